"""JSON of any origin: an object, or one line that says why not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BITS = 64


def read_object(text: str) -> dict[str, Any]:
    """The object that a text holds.

    Raises:
        ValueError: something else, or a whole number of more than 64 bits; one line.
    """
    try:
        data = json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({' '.join(str(error).split())})") from None
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return data


def load_json(path: str | Path) -> dict[str, Any]:
    """A JSON file's object; one clear ValueError for a missing or malformed file."""
    text = _read(path)
    try:
        return read_object(text)
    except ValueError as error:
        raise ValueError(f"{path} is {error}") from None


def load_json_lines(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line of a file, `file:number`, with its object; ValueError as in `load_json`."""
    # Only newlines end a line: JSON's texts may hold other separators as they are.
    for number, line in enumerate(_read(path).removesuffix("\n").split("\n"), start=1):
        where = f"{path}:{number}"
        try:
            yield where, read_object(line)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text: save the file as UTF-8") from None


def _whole(digits: str) -> int:
    # Python itself gives up at thousands of digits, floats at hundreds, NumPy at twenty.
    if len(digits) > BITS or abs(int(digits)) >= 2**BITS:
        raise ValueError(f"a number of {len(digits)} digits does not fit {BITS} bits")
    return int(digits)
