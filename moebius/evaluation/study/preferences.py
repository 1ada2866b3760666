"""How often each method was preferred, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moebius.evaluation.study.files import Answers, Key

AVERAGE = "average"
DRAWS = 10_000
LEVEL = 0.95
Z = 1.959964
"""Quantile of the normal distribution for `LEVEL`."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Preference:
    """Share of choices that fell on a method, everything in per cent."""

    scenario: str
    """Its name, or `average` over several."""
    method: str
    share: float
    choices: int
    """How often it was chosen, out of `answers`."""
    answers: int
    interval: Interval | None
    """Bootstrap over participants; `None` with one participant."""
    wilson: Interval
    """As if all answers were independent, for comparison."""


def count_choices(key: Key, answers: Sequence[Answers]) -> np.ndarray:
    """Choices by participant, scenario and method, (P, S, M)."""
    counts = np.zeros((len(answers), len(key.scenarios), len(key.methods)), np.int64)
    for p, person in enumerate(answers):
        for answer in person.answers:
            case = key.cases[answer.case]
            method = key.methods.index(case.options[answer.choice])
            counts[p, key.scenarios.index(case.scenario), method] += 1
    return counts


def count_positions(key: Key, answers: Sequence[Answers]) -> np.ndarray:
    """How often the picture in each place was chosen, (M,): near equal where places do not sway."""
    places = [answer.shown.index(answer.choice) for a in answers for answer in a.answers]
    return np.bincount(places, minlength=len(key.methods))


def preferences(key: Key, answers: Sequence[Answers], seed: int = 0) -> list[Preference]:
    """Shares by scenario and method, and averages over scenarios where there are several.

    Intervals are percentiles of a bootstrap that draws whole participants with replacement
    (a cluster bootstrap; Davison and Hinkley 1997, Sec. 3.8): a person's 50 answers share a
    taste, so they are not 50 independent ones. The cases are taken as given, so an interval is
    about other people and the same pictures.

    Args:
        key: of the study.
        answers: at least one participant's, all to the same cases.
        seed: of the bootstrap.
    """
    counts = count_choices(key, answers)
    names = list(key.scenarios)
    if len(names) > 1:
        names.append(AVERAGE)
        counts = np.concatenate([counts, counts.sum(axis=1, keepdims=True)], axis=1)
    answered = counts.sum(axis=2, keepdims=True)
    # Every scenario has equally many cases, so the pooled share is the mean of the shares.
    shares = 100 * counts / answered
    people = len(answers)
    weights = np.random.default_rng(seed).multinomial(people, np.full(people, 1 / people), DRAWS)
    drawn = np.einsum("dp,psm->dsm", weights / people, shares)
    tails = 50 * (1 - LEVEL)
    low, high = np.percentile(drawn, [tails, 100 - tails], axis=0)
    found = []
    for s, m in np.ndindex(*shares.shape[1:]):
        chosen, total = int(counts[:, s, m].sum()), int(answered[:, s].sum())
        found.append(
            Preference(
                names[s],
                key.methods[m],
                share=100 * chosen / total,
                choices=chosen,
                answers=total,
                interval=(float(low[s, m]), float(high[s, m])) if people > 1 else None,
                wilson=wilson(chosen, total),
            )
        )
    return found


def wilson(chosen: int, total: int) -> Interval:
    """Wilson's score interval of a share (Wilson 1927), per cent."""
    share, scale = chosen / total, Z**2 / total
    centre = (share + scale / 2) / (1 + scale)
    half = Z * ((share * (1 - share) + scale / 4) / total) ** 0.5 / (1 + scale)
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)
