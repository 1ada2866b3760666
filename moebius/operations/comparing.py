"""What two configurations do not share, key by dotted key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Difference:
    """A key and its two values; `None` where one side lacks it."""

    key: str
    first: Any
    second: Any


def differences(first: Any, second: Any, prefix: str = "") -> list[Difference]:
    """Every key whose values differ, in the order of the first."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return [
            difference
            for key in dict.fromkeys([*first, *second])
            for difference in differences(first.get(key), second.get(key), f"{prefix}{key}.")
        ]
    return [] if first == second else [Difference(prefix.rstrip("."), first, second)]
