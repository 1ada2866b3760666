"""The balance against gradients written out by hand, on a linear student of two layers.

feature = C x, prediction = F C x: theta_c = C is behind every loss, theta_f = F behind the
output losses only. Everything in float64.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import chain, combinations
from threading import Barrier

import pytest
import torch
from torch import nn

from moebius.distill.balance import OUTPUT_LOSSES, RULES, balance
from moebius.distill.cut import Cut
from moebius.distill.losses import LOSSES

SUBSETS = list(chain.from_iterable(combinations(LOSSES, n) for n in range(1, 5)))
STATIC = {"coarse": 0.3, "fine": 0.7, "task": 2.0, "perceptual": 0.1}
N = 8


class Terms(dict):
    """Named losses, and the cut of the graph behind them."""

    def __init__(self, terms, cut) -> None:
        super().__init__(terms)
        self.cut = cut


class Problem:
    """Each loss is mean((output - target)^2), perceptual a third of that."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def randn(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        self.c, self.f = nn.Parameter(randn(3, 5)), nn.Parameter(randn(2, 3))
        self.x = randn(N, 5)
        self.targets = {n: s * randn(N, 3 if n == "coarse" else 2) for s, n in enumerate(LOSSES, 1)}

    def terms(self, names, rows=slice(None)):
        feature = self.x[rows] @ self.c.T
        prediction = feature @ self.f.T
        outputs = {n: feature if n == "coarse" else prediction for n in names}
        terms = {
            n: (1 / 3 if n == "perceptual" else 1) * ((y - self.targets[n][rows]) ** 2).mean()
            for n, y in outputs.items()
        }
        return Terms(terms, Cut(prediction, [feature], [self.f]))

    def weigh(self, rule, terms, **options):
        anchors = {"theta_f": self.f, "theta_c": self.c}
        return balance(rule, dict(terms), terms.cut, **(anchors | options))

    def gradients(self, name):
        """By hand: of one loss with respect to (theta_c, theta_f)."""
        c, f = self.c.detach(), self.f.detach()
        feature = self.x @ c.T
        output = feature if name == "coarse" else feature @ f.T
        error = 2 * (output - self.targets[name]) / output.numel()
        if name == "coarse":
            return error.T @ self.x, None
        error = error / 3 if name == "perceptual" else error
        return f.T @ error.T @ self.x, error.T @ feature


@pytest.fixture
def problem():
    return Problem()


def expected_weights(problem, rule, names):
    if rule == "static":
        return {n: STATIC[n] for n in names}
    grad_c = {n: problem.gradients(n)[0] for n in names}
    grad_f = {n: problem.gradients(n)[1] for n in names if n != "coarse"}
    outputs = [n for n in ("task", "fine", "perceptual") if n in names]
    weights = dict.fromkeys(names, 1.0)
    for n in outputs[1:]:
        over, under = grad_f[outputs[0]].norm(), grad_f[n].norm()
        weights[n] = over**2 / under**2 if rule == "paper" else over / (under + 1e-6)
    if "coarse" in names and outputs:
        if rule == "paper":
            whole = sum(weights[n] * grad_c[n] for n in outputs)
            weight_c = grad_c["coarse"].norm() ** 2 / whole.norm() ** 2
        else:
            weight_c = grad_c["coarse"].norm() / (grad_c[outputs[0]].norm() + 1e-4)
        weights |= {n: weights[n] * weight_c for n in outputs}
    if rule == "release":
        factors = {"coarse": 0.01, "fine": 0.01, "task": 0.5, "perceptual": 0.5}
        weights = {n: factors[n] * w for n, w in weights.items()}
    return weights


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
def test_weights_of_every_subset_are_those_by_hand(problem, rule, names):
    terms = problem.terms(names)
    balanced = problem.weigh(rule, terms, static=STATIC)
    expected = expected_weights(problem, rule, names)
    assert balanced.weights.keys() == expected.keys()
    for name, weight in balanced.weights.items():
        assert weight.item() == pytest.approx(float(expected[name]), rel=1e-12), name
        assert not weight.requires_grad
    total = sum(expected[n] * terms[n] for n in names)
    torch.testing.assert_close(balanced.total, total)
    # Weights are constants: the total's gradient is the weighted sum of the terms' gradients.
    balanced.total.backward()
    gradient = sum(expected[n] * problem.gradients(n)[0] for n in names)
    torch.testing.assert_close(problem.c.grad, gradient)


def test_norms_are_those_that_the_subset_needs(problem):
    norms = problem.weigh("paper", problem.terms(LOSSES)).norms
    assert set(norms) == {"coarse", "fine", "task", "perceptual", "output"}
    assert norms["fine"].item() == pytest.approx(problem.gradients("fine")[1].norm().item())
    assert norms["coarse"].item() == pytest.approx(problem.gradients("coarse")[0].norm().item())
    assert problem.weigh("paper", problem.terms(["task"])).norms == {}
    only = problem.weigh("paper", problem.terms(["coarse", "fine"])).norms
    assert set(only) == {"coarse", "output"}


def test_paper_brings_the_gradients_to_one_scale(problem):
    """Eq. 4 and 5 with squares: |W_i grad L_i| = |grad R|^2 / |grad L_i|, at both anchors."""
    terms = problem.terms(LOSSES)
    balanced = problem.weigh("paper", terms)
    w, norms = balanced.weights, balanced.norms
    for name in ("fine", "perceptual"):
        relative = w[name] / w["task"]
        torch.testing.assert_close(relative * norms[name] ** 2, norms["task"] ** 2)
    torch.testing.assert_close(w["task"] * norms["output"] ** 2, norms["coarse"] ** 2)


@pytest.mark.parametrize("rule", ["paper", "release"])
@pytest.mark.parametrize("names", [LOSSES, OUTPUT_LOSSES, ("coarse", "fine")], ids="+".join)
def test_two_workers_weigh_their_halves_like_the_whole(problem, rule, names):
    whole = problem.weigh(rule, problem.terms(names))
    barrier, sent = Barrier(2, timeout=200), [torch.empty(0)] * 2

    def work(worker: int):
        def average(gradient):
            sent[worker] = gradient
            barrier.wait()
            mean = (sent[0] + sent[1]) / 2
            barrier.wait()
            return mean

        rows = slice(worker * N // 2, (worker + 1) * N // 2)
        return problem.weigh(rule, problem.terms(names, rows), reduce=average)

    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(work, range(2)))
    for name in names:
        for half in halves:
            torch.testing.assert_close(half.weights[name], whole.weights[name])
    torch.testing.assert_close((halves[0].total + halves[1].total) / 2, whole.total)
    assert halves[0].total != halves[1].total


@pytest.mark.parametrize("rule", ["paper", "release"])
def test_a_student_equal_to_its_teacher_stays_finite(problem, rule):
    problem.targets["fine"] = (problem.x @ problem.c.T @ problem.f.T).detach()
    balanced = problem.weigh(rule, problem.terms(LOSSES))
    assert balanced.total.isfinite()
    relative = balanced.weights["fine"] / balanced.weights["task"]
    assert relative.item() == pytest.approx(1.0 if rule == "paper" else 1e6 * 0.01 / 0.5)


def test_an_output_layer_at_zero_still_trains(problem):
    problem.f.data.zero_()
    balanced = problem.weigh("paper", problem.terms(["coarse", "task"]))
    assert balanced.weights["task"] == 1
    balanced.total.backward()
    assert problem.f.grad.norm() > 0


def test_release_clamps(problem):
    terms = problem.terms(["coarse", "task", "fine"])
    terms["fine"], terms["coarse"] = terms["fine"] * 1e-13, terms["coarse"] * 1e9
    weights = problem.weigh("release", terms).weights
    assert weights["task"].item() == pytest.approx(0.5 * 1e4)
    terms = problem.terms(["coarse", "task", "fine"])
    terms["fine"], terms["task"] = terms["fine"] * 1e-13, terms["task"] * 1e6
    weights = problem.weigh("release", terms).weights
    assert (weights["fine"] / weights["task"]).item() == pytest.approx(1e6 * 0.01 / 0.5)


def test_a_non_finite_term_reaches_the_total(problem):
    terms = problem.terms(LOSSES)
    terms["fine"] = terms["fine"] * torch.nan
    assert problem.weigh("paper", terms).total.isnan()


def test_errors(problem):
    terms = problem.terms(LOSSES)
    with pytest.raises(ValueError, match="'papre': choose from paper, release, static"):
        problem.weigh("papre", terms)
    with pytest.raises(ValueError, match="needs a weight for fine, perceptual"):
        problem.weigh("static", terms, static={"task": 1, "coarse": 1})
    with pytest.raises(ValueError, match="No loss is on"):
        problem.weigh("paper", Terms({}, terms.cut))
    stray = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=r"'coarse' does not depend on its anchor of shape \(2,\)"):
        problem.weigh("paper", terms, theta_c=stray)
    terms = problem.terms(LOSSES)
    detached = Terms({"task": terms["task"].detach(), "fine": terms["fine"]}, terms.cut)
    with pytest.raises(ValueError, match="'task' does not depend"):
        problem.weigh("paper", detached)
