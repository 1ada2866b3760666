"""The registry of operators, one table a slot of the U-Net.

An operator is an `nn.Module` registered under a slot and a name. What each slot calls:

    self    module(x, size)            x (B, N, C), size = (H, W), N = H*W  -> (B, N, C)
    cross   module(x, context, size)   context (B, M, D)                    -> (B, N, C)
    ffn     module(x, size)                                                 -> (B, N, C)
    conv    module(x)                  x (B, C_in, H, W)                    -> (B, C_out, H, W)

Constructors take plain keywords and receive those they name out of what the builder knows:
`dim, heads` (self); `dim, heads, context_dim, context_length, size` (cross); `dim` (ffn);
`in_channels, out_channels` (conv). Options from a configuration come on top.
"""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from torch import nn

SLOTS = ("self", "cross", "ffn", "conv")
OperatorSpec = str | Mapping[str, Any]
"""An operator's name, or `{"name": ..., **options}`."""

_OPERATORS: dict[str, dict[str, type[nn.Module]]] = {slot: {} for slot in SLOTS}
Operator = TypeVar("Operator", bound=type[nn.Module])


def register(slot: str, name: str) -> Callable[[Operator], Operator]:
    """Class decorator: makes an operator available to architectures and sweeps by `name`.

    Raises:
        ValueError: the slot is unknown, or the name is taken in this slot.
    """
    table = _table(slot)

    def add(operator: Operator) -> Operator:
        known = table.get(name)
        # A module that is imported again (a plugin on a Ray worker) defines the same class anew.
        if known is not None and known.__qualname__ + known.__module__ != (
            operator.__qualname__ + operator.__module__
        ):
            raise ValueError(
                f"{slot} operator {name!r} is already registered by {known.__module__}."
                f"{known.__qualname__}; choose a name other than {', '.join(sorted(table))}"
            )
        table[name] = operator
        return operator

    return add


def names(slot: str) -> list[str]:
    """Registered operator names of a slot, sorted."""
    return sorted(_table(slot))


def lookup(slot: str, name: str) -> type[nn.Module]:
    """The class registered under `name`; a ValueError lists what exists."""
    table = _table(slot)
    if name not in table:
        close = get_close_matches(name, table, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"unknown {slot} operator {name!r}; {hint}registered: {', '.join(sorted(table))}"
        )
    return table[name]


def name_of(module: nn.Module) -> str:
    """The name that a module's class is registered under, else the class's own."""
    for table in _OPERATORS.values():
        for name, operator in table.items():
            if type(module) is operator:
                return name
    return type(module).__name__


def create(slot: str, spec: OperatorSpec, **available: Any) -> nn.Module:
    """Builds the operator that `spec` names, from its options and what the builder knows.

    Raises:
        ValueError: unknown name, or an option that the operator does not take.
    """
    name, options = split_spec(spec)
    operator = lookup(slot, name)
    accepted = inspect.signature(operator).parameters
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        free = sorted(set(accepted) - set(available))
        raise ValueError(
            f"{slot} operator {name!r} has no option {', '.join(map(repr, unknown))}; "
            f"it takes: {', '.join(free) or 'none'}"
        )
    known = {key: value for key, value in available.items() if key in accepted}
    return operator(**(known | options))


def split_spec(spec: OperatorSpec) -> tuple[str, dict[str, Any]]:
    """An operator's name and options; a mapping without a name is a ValueError."""
    if isinstance(spec, str):
        return spec, {}
    options = dict(spec)
    if not isinstance(options.get("name"), str):
        raise ValueError(f"operator {dict(spec)!r} has no name; write {{name: ..., option: ...}}")
    return options.pop("name"), options


def _table(slot: str) -> dict[str, type[nn.Module]]:
    if slot not in _OPERATORS:
        raise ValueError(f"unknown slot {slot!r}; the slots are {', '.join(SLOTS)}")
    return _OPERATORS[slot]
