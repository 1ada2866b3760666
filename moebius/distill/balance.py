"""Gradient balance: weights that bring the losses' gradients to one scale (paper, Eq. 4 and 5).

theta_f is the weight of the student's output layer, theta_c the one that closes its coarse tap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from moebius.distill.cut import Arrived, Cut, gradient_at, with_gradient
from moebius.distill.losses import LOSSES, resolve_losses

# In this order, the first that is on is the reference that the others are brought to.
OUTPUT_LOSSES = ("task", "fine", "perceptual")


@dataclass(frozen=True)
class Balanced:
    """A balanced sum of losses; `total` is the sum of `weights[name] * terms[name]`."""

    total: Tensor
    """Scalar to differentiate, once."""
    weights: dict[str, Tensor]
    """Factor of each term, without gradient, 0-dimensional."""
    norms: dict[str, Tensor]
    """Gradient norms behind the weights: output losses at theta_f, "coarse" and "output" (what
    the coarse loss is weighed against) at theta_c. Only those that the subset needs."""


@dataclass(frozen=True)
class GradientRule:
    """How norms become weights; `balance` describes the two rules that use it."""

    power: int
    eps_f: float = 0.0
    max_f: float = math.inf
    eps_c: float = 0.0
    max_c: float = math.inf
    factors: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(LOSSES, 1.0))
    against_reference: bool = False
    """W_C against the reference loss alone rather than against all of L_out."""


GRADIENT_RULES = {
    "paper": GradientRule(power=2),
    "release": GradientRule(
        power=1,
        eps_f=1e-6,
        max_f=1e6,
        eps_c=1e-4,
        max_c=1e4,
        factors={"coarse": 0.01, "fine": 0.01, "task": 0.5, "perceptual": 0.5},
        against_reference=True,
    ),
}
RULES = (*GRADIENT_RULES, "static")


def balance(
    rule: str,
    terms: Mapping[str, Tensor],
    cut: Cut,
    theta_f: nn.Parameter,
    theta_c: nn.Parameter,
    reduce: Callable[[Tensor], Tensor] = lambda gradient: gradient,
    static: Mapping[str, float] | None = None,
) -> Balanced:
    """Weighs any non-empty subset of the four losses.

    With |L| the norm of L's gradient, R the reference (L_task, else L_F, else L_perc) and i the
    other output losses that are on:

    - `paper`: W_i = (|R| / |L_i|)^2 at theta_f and L_out = R + sum W_i L_i (Eq. 4);
      W_C = (|L_C| / |L_out|)^2 at theta_c and L_total = L_C + W_C L_out (Eq. 5). The paper names
      no guard; here a weight whose denominator is exactly zero is 1, so that a loss that cannot
      be weighed (a student equal to its teacher, an output layer that starts at zero) goes on
      at its own scale instead of turning the total into NaN.
    - `release`: norms not squared; W_i = min(|R| / (|L_i| + 1e-6), 1e6) at theta_f;
      W_C = min(|L_C| / (|R| + 1e-4), 1e4) at theta_c, from the reference alone; fixed factors enter
      the sum only, no norm: L_total = 0.01 L_C + W_C (0.5 L_task + 0.01 W_F L_F + 0.5 W_p L_perc).
    - `static`: the sum of the terms, each times its given weight.

    Without the coarse loss, L_total = L_out; without output losses, L_total = L_C (times its
    factor). Non-finite terms pass through into the total, for the caller to find.

    The gradient rules pass the losses' graphs and the head once and free them: what is left to
    differentiate is the total alone.

    Args:
        rule: one of `RULES`.
        terms: named scalars, a subset of `LOSSES`, with their graphs.
        cut: the prediction behind the output losses, and the border that the gradients stop at.
        theta_f: anchor of the output losses.
        theta_c: anchor of the coarse loss against the output.
        reduce: averages a gradient over the workers, before its norm is taken; every worker calls
            it equally often, in the same order.
        static: weights by loss; read by the rule `static`, which needs one for each term.

    Raises:
        ValueError: an unknown rule or loss, a missing static weight, or a term that does not
            depend on its anchor.
    """
    names = resolve_losses(tuple(terms))
    if rule == "static":
        weights = _static_weights(terms, static or {})
        return Balanced(_weighted(names, weights, terms), weights, {})
    if rule not in GRADIENT_RULES:
        raise ValueError(f"Unknown balance {rule!r}: choose from {', '.join(RULES)}")
    weighing = _Weighing(GRADIENT_RULES[rule], terms, cut, theta_f, theta_c, reduce)
    parts = weighing.run()
    total = _weighted(names, weighing.weights, terms)
    if parts:
        total = with_gradient(total, parts)
    return Balanced(total, weighing.weights, weighing.norms)


def _static_weights(terms: Mapping[str, Tensor], static: Mapping[str, float]) -> dict[str, Tensor]:
    missing = [name for name in terms if name not in static]
    if missing:
        raise ValueError(f"The static balance needs a weight for {', '.join(missing)}")
    return {name: torch.full_like(term.detach(), static[name]) for name, term in terms.items()}


Parts = list[tuple[Tensor, Arrived]]


def _weighted(
    names: Iterable[str], weights: Mapping[str, Tensor], values: Mapping[str, Tensor]
) -> Tensor:
    return torch.stack([weights[name] * values[name] for name in names]).sum(dim=0)


class _Weighing:
    """One batch's weights, norms and total gradient by a rule, from losses that are followed once.

    Attributes:
        weights: the factor of each term.
        norms: the gradient norms that were needed.
    """

    def __init__(
        self,
        rule: GradientRule,
        terms: Mapping[str, Tensor],
        cut: Cut,
        theta_f: nn.Parameter,
        theta_c: nn.Parameter,
        reduce: Callable[[Tensor], Tensor],
    ) -> None:
        self.rule, self.terms, self.cut, self.reduce = rule, terms, cut, reduce
        self.theta_f, self.theta_c = theta_f, theta_c
        self.output = [name for name in OUTPUT_LOSSES if name in terms]
        self.weights = {name: torch.ones_like(term.detach()) for name, term in terms.items()}
        self.norms: dict[str, Tensor] = {}

    def run(self) -> Parts:
        """The total's gradient in parts; none for the coarse loss alone: its own graph serves."""
        if not self.output:
            self._apply_factors()
            return []
        at_prediction = {name: self._followed(name) for name in self.output}
        if len(self.output) > 1:
            self._weigh_output(at_prediction)
        if "coarse" in self.terms:
            return self._weigh_coarse(at_prediction)
        self._apply_factors()
        mixed = self._mixed(self.output, at_prediction)
        return [(mixed.new_ones(()), Arrived({self.cut.prediction: mixed}))]

    def _weigh_output(self, at_prediction: Mapping[str, Tensor]) -> None:
        """Eq. 4: one layer's product a loss."""
        rule = self.rule
        for name in self.output:
            gradient = gradient_at(self.theta_f, [self.cut.prediction], [at_prediction[name]])
            self._note(name, name, gradient, self.theta_f)
        reference = self.norms[self.output[0]]
        for name in self.output[1:]:
            other = self.norms[name]
            self.weights[name] = _ratio(reference, other, rule.power, rule.eps_f, rule.max_f)

    def _weigh_coarse(self, at_prediction: Mapping[str, Tensor]) -> Parts:
        """Eq. 5: the coarse loss and L_out down to the border, and a layer's product each."""
        rule, prediction = self.rule, self.cut.prediction
        alone = rule.against_reference
        against = self.output[:1] if alone else self.output
        coarse = self.cut.arriving(self.terms["coarse"], keep=True)
        output = self.cut.arriving(prediction, self._mixed(against, at_prediction), keep=alone)
        over = self._note("coarse", "coarse", coarse.at(self.theta_c), self.theta_c)
        under = self._note("output", against[0], output.at(self.theta_c), self.theta_c)
        weight = _ratio(over, under, rule.power, rule.eps_c, rule.max_c)
        for name in self.output:
            self.weights[name] = weight * self.weights[name]
        self._apply_factors()
        if alone:  # what is summed up is not what was weighed: the head is passed again
            output = self.cut.arriving(prediction, self._mixed(self.output, at_prediction))
            weight = torch.ones_like(weight)
        return [(self.weights["coarse"], coarse), (weight, output)]

    def _followed(self, name: str) -> Tensor:
        """The gradient of an output loss at the prediction."""
        gradient = None
        if self.terms[name].requires_grad:
            (gradient,) = torch.autograd.grad(
                self.terms[name], self.cut.prediction, allow_unused=True
            )
        return self._found(name, gradient, self.theta_f)

    def _mixed(self, names: Iterable[str], at_prediction: Mapping[str, Tensor]) -> Tensor:
        return _weighted(names, self.weights, at_prediction)

    def _apply_factors(self) -> None:
        self.weights = {n: self.rule.factors[n] * weight for n, weight in self.weights.items()}

    def _note(self, key: str, loss: str, gradient: Tensor | None, anchor: nn.Parameter) -> Tensor:
        found = self._found(loss, gradient, anchor)
        self.norms[key] = torch.linalg.vector_norm(self.reduce(found))
        return self.norms[key]

    @staticmethod
    def _found(name: str, gradient: Tensor | None, anchor: nn.Parameter) -> Tensor:
        if gradient is None:
            raise ValueError(
                f"Loss {name!r} does not depend on its anchor of shape {tuple(anchor.shape)}: "
                "check the model's anchor parameters and that nothing detaches its output"
            )
        return gradient


def _ratio(over: Tensor, under: Tensor, power: int, eps: float, limit: float) -> Tensor:
    ratio = ((over / (under + eps)) ** power).clamp(max=limit)
    return torch.where(under + eps == 0, torch.ones_like(ratio), ratio)
