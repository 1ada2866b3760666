"""What the tests under fuzz/ share: valid documents and files made hostile, and a judge."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

QUICK = {"max_examples": 2_000, "derandomize": True}
"""The same cases in every run: a change of the code is what turns them red."""
SLOW = {"max_examples": 20_000}
_COMMON: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}

RUNS = pytest.mark.parametrize(
    "fuzz",
    [
        pytest.param(settings(**QUICK, **_COMMON), id="quick"),
        pytest.param(settings(**SLOW, **_COMMON), id="slow", marks=pytest.mark.slow),
    ],
)


def answer(call: Callable[[], Any], *names: str) -> Any:
    """What a reader gives, or `None` where it refuses in one line that holds all of `names`.

    Any other exception than a `ValueError` goes through, and so fails the test.
    """
    try:
        return call()
    except ValueError as error:
        text = str(error)
        assert text.strip() and len(text.splitlines()) == 1, f"not one line: {text!r}"
        # Pydantic's, json's and YAML's own are ValueErrors, too: nobody has put them in words.
        assert type(error).__module__.partition(".")[0] in ("builtins", "moebius"), repr(error)
        for name in names:
            assert name in text, f"{name!r} is not in {text!r}"
        return None


# --- choices --------------------------------------------------------------------------------

MOST = 4
"""Changes to one document or file."""


class Choices:
    """What one case chooses, read off bytes.

    One draw a case: a strategy for each choice takes longer than most of what is tested. Zeros
    choose what stands first, so that hypothesis shrinks towards it.
    """

    def __init__(self, data: bytes) -> None:
        self._left = data

    def number(self, below: int) -> int:
        """Two bytes' worth."""
        word, self._left = self._left[:2], self._left[2:]
        return int.from_bytes(word) % below

    def one_of(self, options: Sequence[Any]) -> Any:
        """One of them."""
        return options[self.number(len(options))]

    def place(self, length: int) -> int:
        """From 0 to the length itself; every other time near the start, where headers are."""
        return self.number(1 + (length if self.number(2) else min(length, 64)))


def cases(make: Callable[[Choices], Any]) -> st.SearchStrategy[Any]:
    """What `make` gives for any choices."""
    size = 2 * (2 + 5 * 2 * MOST)
    return st.binary(min_size=size, max_size=size).map(lambda data: make(Choices(data)))


# --- documents ------------------------------------------------------------------------------


def _nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


STRANGE_TEXTS = (
    "",
    " ",
    "\n",
    "a\nb",
    "\x00",
    "\x1b[31m",
    "\u2028",
    "\u202e\u0301é",
    "\U0001f600" * 3,
    "x" * 300,
    "0",
    "nan",
    "1e999",
    "../../etc/passwd",
    "/etc/passwd",
    "~",
    "C:\\x",
    "a.b",
    "%s%n{0}",
    "$(id)",
    "__import__('os')",
    "builtin",
    "random",
    "none.yaml",
    "params <= 1e999",
)
STRANGE_VALUES = (
    *(None, True, False, 0, -1, 1, 2, 0.5, 2**31, 2**63, 2**64, 10**30, 10**400, -(10**400)),
    *(1e308, -1e308, 5e-324, -0.0, float("nan"), float("inf"), float("-inf"), 1.0, 32.0),
    *([], {}, [[]], [None], [{}], {"": 1}, {"a": {"b": []}}, [1, "a", None], [0, 0], [2, 1]),
    *(_nested(10), _nested(45), ["x"] * 50, {str(n): n for n in range(50)}, {"name": "x"}),
    *({"name": ["x"]}, {"name": None, "window": 1e999}, {"extends": "builtin"}, ["task"]),
    *STRANGE_TEXTS,
)
NOT_JSON = (
    *(b"bytes", b"\xff", date(2020, 2, 3), {1, 2}, (1, 2), {1: 2}, {None: 1}, {True: {}}),
    *({(1, 2): 3}, 1 + 2j, object()),
)
"""What YAML's tags can make of a text, and what a caller can pass by mistake."""

KEYS = (*STRANGE_TEXTS, "name", "seed", "base", "<<", "stages", "steps")
STRAY_KEYS = (1, None, True, 1.5, date(2020, 2, 3), (1,), b"k")


def places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every part of a nested document, itself (the empty way) first."""
    found = [at]
    if isinstance(document, Mapping):
        for key, value in document.items():
            found += places(value, (*at, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            found += places(value, (*at, index))
    return found


def mutated(*documents: Any, strange: bool = True) -> st.SearchStrategy[Any]:
    """One of the documents, whole or with one to three parts changed, added or taken away.

    Args:
        documents: valid ones, of dicts, lists and plain values.
        strange: also put in what JSON cannot hold.
    """
    known = [(document, places(document)) for document in documents]
    parts = [_part(document, way) for document, ways in known for way in ways[1:]]
    values = (*STRANGE_VALUES, *(NOT_JSON if strange else ()), *parts)
    keys = (*KEYS, *(STRAY_KEYS if strange else ()))
    return cases(lambda choices: _mutated(choices, known, values, keys))


def _mutated(choices: Choices, known: Sequence[Any], values: Sequence[Any], keys: Any) -> Any:
    document, ways = choices.one_of(known)
    for _ in range(choices.number(MOST)):
        way, kind = choices.one_of(ways), choices.one_of(_CHANGES)
        value, key = choices.one_of(values), choices.one_of(keys)
        with contextlib.suppress(KeyError, IndexError, TypeError):  # an earlier change was there
            document = _changed(document, way, kind, key, value)
    return document


_CHANGES = ("replace", "replace", "replace", "add", "delete", "wrap", "repeat")


def _part(document: Any, way: tuple[Any, ...]) -> Any:
    for step in way:
        document = document[step]
    return document


def _changed(document: Any, way: tuple[Any, ...], kind: str, key: Any, value: Any) -> Any:
    """A copy, changed at one place; KeyError, IndexError or TypeError where that is gone."""
    if (way or kind == "add") and not isinstance(document, dict | list):
        raise TypeError
    if len(way) > 1 or (way and kind not in ("delete", "repeat")):
        inner = _changed(document[way[0]], way[1:], kind, key, value)
        if isinstance(document, list):
            return [*document[: way[0]], inner, *document[way[0] + 1 :]]
        return {**document, way[0]: inner}
    if way and isinstance(document, list):
        at = way[0]
        again = [] if kind == "delete" else [document[at]] * 2
        return [*document[:at], *again, *document[at + 1 :]]
    if way:
        if kind == "repeat":
            return {**document, f"{way[0]}_": document[way[0]]}
        return {k: v for k, v in document.items() if k != way[0]}
    if kind == "add":
        return [*document, value] if isinstance(document, list) else {**document, key: value}
    if kind == "wrap":
        return [document] if value is None else {"name": document}
    return document if kind in ("delete", "repeat") else value


# --- texts and bytes ------------------------------------------------------------------------

TOKENS = (
    *("{", "}", "[", "]", ",", ":", '"', "'", "\\", "\n", "\t", "\x00", "\ufeff", "\u2028", "#"),
    *("&a ", "*a", "&a [*a]", "<<: *a, ", "!!python/object/apply:os.system [id] ", "!!binary x "),
    *("!!set {a} ", "!!timestamp ", "!!int ", "!!omap [a: 1] ", "!x ", "? ", "- ", "--- ", "..."),
    *("%YAML 9.9\n", "2020-13-45", "2020-02-03", "1:2:3", "0x", "9" * 5_000, "1e999", "NaN"),
    *("Infinity", "-", "~", "null", "true", "[" * 60, "{a: " * 60, "\\ud800", "é", "%", "@", "`"),
)


def mutated_texts(*documents: Any) -> st.SearchStrategy[str]:
    """`mutated` as JSON, which is YAML too, with some tokens put in or over others."""
    known = [(document, places(document)) for document in documents]
    values = (*STRANGE_VALUES, *(_part(d, way) for d, ways in known for way in ways[1:]))

    def make(choices: Choices) -> str:
        return _spliced(choices, json.dumps(_mutated(choices, known, values, KEYS)), TOKENS)

    return cases(make)


def spliced_texts(*texts: str) -> st.SearchStrategy[str]:
    """One of the texts with some tokens put in or over others."""
    return cases(lambda choices: _spliced(choices, choices.one_of(texts), TOKENS))


WORDS = (
    *(b"", b"\0", b"\xff", b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"),
    *(b"\0\0\xff\xff", b"\xff\xff\0\0", b"\0" * 8, b"\xff" * 8, b"{}", b"A" * 64),
    *(bytes([n]) for n in range(1, 255, 7)),
)


def spliced_bytes(*files: bytes) -> st.SearchStrategy[bytes]:
    """One of the files with some words put in or over others."""
    return cases(lambda choices: _spliced(choices, choices.one_of(files), WORDS))


def _spliced(choices: Choices, whole: Any, tokens: Sequence[Any]) -> Any:
    for _ in range(choices.number(MOST)):
        at, over = choices.place(len(whole)), choices.one_of((0, 1, 0, 2, 4, 8, 100, 1 << 20))
        whole = whole[:at] + choices.one_of(tokens) + whole[at + over :]
    return whole
