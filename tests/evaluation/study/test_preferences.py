"""Shares, and how sure they are."""

from collections.abc import Callable

import numpy as np
import pytest
from made_study import make_answers, make_key

from moebius.evaluation.study.files import Answers, Key
from moebius.evaluation.study.preferences import (
    count_choices,
    count_positions,
    preferences,
    wilson,
)


def people(key: Key, *choosers: Callable[[int, str], int]) -> list[Answers]:
    return [
        Answers.model_validate(make_answers(key, f"p{n}", choose))
        for n, choose in enumerate(choosers)
    ]


def test_choices_are_counted_by_participant_scenario_and_method():
    key = make_key(("natural", "portrait"))
    found = people(key, lambda n, case: 2, lambda n, case: n % 2 if "natural" in case else 1)
    assert count_choices(key, found).tolist() == [
        [[0, 0, 4], [0, 0, 4]],
        [[2, 2, 0], [0, 4, 0]],
    ]


def test_choices_are_counted_by_place():
    key = make_key()
    # Options are shown in reverse.
    found = people(key, lambda n, case: 0, lambda n, case: min(n, 2))
    assert count_positions(key, found).tolist() == [2, 1, 5]


def test_shares_by_scenario_and_their_average():
    key = make_key(("natural", "portrait"))
    found = preferences(key, people(key, lambda n, case: 0 if "natural" in case else n % 3))
    shares = {(p.scenario, p.method): p.share for p in found}
    assert shares["natural", "red"] == 100 and shares["natural", "blue"] == 0
    assert [shares["portrait", m] for m in key.methods] == [25, 50, 25]
    assert [shares["average", m] for m in key.methods] == [62.5, 25, 12.5]
    total = next(p for p in found if (p.scenario, p.method) == ("average", "red"))
    assert (total.choices, total.answers) == (5, 8)


def test_one_scenario_has_no_average_and_one_participant_no_interval():
    key = make_key()
    found = preferences(key, people(key, lambda n, case: 0))
    assert {p.scenario for p in found} == {"natural"}
    assert {p.interval for p in found} == {None}


def test_wilson_is_as_published():
    # Newcombe 1998, Tab. I, method 3: 81 of 263, 15 of 148, 0 of 20.
    for chosen, total, low, high in [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05)]:
        assert wilson(chosen, total) == pytest.approx((low, high), abs=0.005)
    assert wilson(0, 20) == pytest.approx((0, 16.11), abs=0.005)


def test_people_of_one_mind_are_sure_and_divided_people_are_not():
    key = make_key(cases=50)
    alike = people(key, *[lambda n, case: n % 2] * 20)
    divided = people(key, *[lambda n, case: 0] * 10, *[lambda n, case: 1] * 10)
    for found, half in ((preferences(key, alike), 0), (preferences(key, divided), 21.9)):
        red = found[0]
        assert red.share == 50
        # Of 20 people, not of 1,000 answers: 1.96 * sqrt(0.25 / 20).
        assert red.interval == pytest.approx((50 - half, 50 + half), abs=4)
        assert red.wilson == pytest.approx((46.9, 53.1), abs=0.05)


def test_the_interval_holds_what_it_says():
    """Of many studies among people of differing taste, about 95 % hold the true share."""
    key = make_key(cases=10, methods=["a", "b"])
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(40):
        tastes = rng.beta(2, 3, 25)  # mean 0.4
        draws = rng.random((25, 10))
        picks = (draws >= tastes[:, None]).astype(int)
        choosers = [lambda n, case, row=row: int(row[n]) for row in picks]
        low, high = preferences(key, people(key, *choosers))[0].interval or (0, 0)
        held += low <= 40 <= high
    assert 34 <= held <= 40


def test_the_bootstrap_follows_its_seed():
    key = make_key()
    found = people(key, *[lambda n, case, p=p: p % 3 for p in range(7)])
    assert preferences(key, found, 1) == preferences(key, found, 1)
    assert preferences(key, found, 1) != preferences(key, found, 2)
