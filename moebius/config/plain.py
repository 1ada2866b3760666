"""Plain data, what JSON can hold: all that a configuration is made of."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from moebius.config.yaml_text import DEPTH

WHOLE = 2**63
"""Whole numbers stay below it: PyTorch and NumPy hold no larger ones."""


def strange_parts(value: Any, where: tuple[Any, ...] = ()) -> Iterator[str]:
    """What in `value` is no plain data, each part with its dotted key.

    YAML's tags and callers can make other things: dates, bytes, sets, keys that are numbers. Kept
    in a run's folder and read again they would no longer be the same.
    """
    if len(where) > DEPTH:
        yield f"{where[0]}: more than {DEPTH} sections or lists lie in each other"
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str) and _is_text(key):
                yield from strange_parts(inner, (*where, key))
            else:
                yield f"{dotted((*where, key))}: the key is no text: put it in quotes"
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from strange_parts(inner, (*where, index))
    else:
        problem = _problem(value)
        if problem is not None:
            yield f"{dotted(where)}: {problem}"


def dotted(where: Sequence[Any]) -> str:
    """A way through sections and lists as one key, `a.b.0`; what cannot be shown is escaped."""
    parts = (part if isinstance(part, str) else repr(part) for part in where)
    return ".".join(part if part.isprintable() else repr(part) for part in parts)


def _problem(value: Any) -> str | None:
    if isinstance(value, str):
        return None if _is_text(value) else "the text holds half a character (a lone surrogate)"
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return None if abs(value) < WHOLE else "the number does not fit 64 bits"
    if isinstance(value, float):
        return None if isfinite(value) else "Input should be a finite number"
    return f"a {type(value).__name__} is neither text nor number: put it in quotes"


def _is_text(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
