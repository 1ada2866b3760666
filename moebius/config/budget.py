"""Budgets as text, `params <= 250e6 and gmacs < 100`: read by a small grammar, never evaluated."""

import operator
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

COSTS = ("params", "gmacs", "latency_ms")
"""What a budget may bound: parameters, the paper's 10^9 MACs, ms a denoising step."""
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}
_BOUND = re.compile(r"\s*(\w+)\s*(<=|>=|<|>)\s*(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*")


class Bound(NamedTuple):
    """One comparison of a budget."""

    cost: str
    operator: str
    limit: float

    def holds(self, costs: Mapping[str, float]) -> bool:
        """Whether the costs of an architecture stay within it."""
        return OPERATORS[self.operator](costs[self.cost], self.limit)


def parse_budget(text: str) -> list[Bound]:
    """The comparisons of a budget; all of them must hold.

    Raises:
        ValueError: naming the part that is not `params|gmacs|latency_ms <= number`.
    """
    bounds = []
    for part in re.split(r"\band\b", text):
        match = _BOUND.fullmatch(part)
        if match is None or match[1] not in COSTS:
            raise ValueError(
                f"budget {part.strip()!r} must read {' or '.join(COSTS)}, then <=, <, >= or >, "
                "then a number, such as 'params <= 250e6'; 'and' joins several"
            )
        bounds.append(Bound(match[1], match[2], float(match[3])))
    return bounds
