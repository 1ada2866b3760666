"""Sweep files: what they may say, and what they are told when they say it wrong."""

from typing import Any

import pytest

from moebius.config import Sweep, parse
from moebius.config.budget import parse_budget


def sweep_of(**fields: Any) -> Sweep:
    return parse(Sweep, {"name": "s", "recipe": "builtin", **fields}, "sweep")


GRID = {"grid": {"seed": [0]}}
SPACE = {"optimizer.lr": {"loguniform": [1e-3, 1e-1]}}
MODEL = {"recipe": None, "model": "m", "score": {}, "grid": {"score.guidance": [1, 2]}}


@pytest.mark.parametrize(
    ("text", "costs", "holds"),
    [
        ("params <= 250e6", {"params": 250e6}, True),
        ("params < 250e6", {"params": 250e6}, False),
        ("gmacs>=1.5", {"gmacs": 1.5}, True),
        ("params <= 10 and gmacs > 2", {"params": 9, "gmacs": 2}, False),
        ("params <= 10 and gmacs > 2", {"params": 9, "gmacs": 3}, True),
        ("latency_ms < 40 and latency_ms > 10.5", {"latency_ms": 20}, True),
    ],
)
def test_a_budget_is_what_it_reads(text: str, costs: dict[str, float], holds: bool):
    assert all(bound.holds(costs) for bound in parse_budget(text)) is holds


@pytest.mark.parametrize(
    "text",
    [
        "param <= 3",
        "params = 3",
        "params <= 3 or gmacs < 2",
        "params <= 3 and",
        "params <= -1",
        "params <= nan",
        "params <= 3; gmacs < 2",
        "__import__('os').getcwd()",
        "",
    ],
)
def test_a_budget_that_cannot_be_read_names_the_grammar(text: str):
    with pytest.raises(ValueError, match="such as 'params <= 250e6'"):
        parse_budget(text)
    with pytest.raises(ValueError, match=r"sweep: promote.when: budget "):
        sweep_of(**GRID, promote={"when": text})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "a sweep needs either experiments or a grid or a search"),
        ({**GRID, "search": {"space": SPACE, "trials": 2}}, "either experiments or a grid or a"),
        ({**GRID, "recipe": None}, "either a recipe to train by or a model to score"),
        ({**GRID, "model": "m"}, "either a recipe to train by or a model to score"),
        ({"grid": {"score.guidance": [1]}}, "score.guidance: only a sweep with `model`"),
        ({**MODEL, "seeds": [1]}, "trains nothing"),
        ({**MODEL, "promote": {}}, "trains nothing"),
        ({**MODEL, "score": None}, "needs `score`"),
        ({**MODEL, "grid": {"seed": [1]}}, "varies only `score.` keys"),
        ({**GRID, "seeds": [1, 2]}, "name seeds either under seeds or as the recipe's `seed`"),
        ({"grid": {"arch": ["a"]}, "seeds": [1, 1]}, "seeds must differ"),
        ({"search": {"space": SPACE, "trials": 2}, "seeds": [1]}, "drop its seeds"),
        (
            {"grid": {"arch": ["a"]}, "seeds": [1], "scheduler": {"name": "asha"}},
            "asha would stop some seeds",
        ),
        ({**GRID, "scheduler": {"grace": 3}}, "scheduler: grace belong to asha"),
        ({**GRID, "scheduler": {"name": "asha", "reduction": 1}}, "scheduler.reduction"),
        ({**GRID, "scheduler": {"name": "hyperband"}}, "scheduler.name"),
        ({"search": {"space": {}, "trials": 2}}, "search.space"),
        ({"search": {"space": {"seed": {}}, "trials": 2}}, "space.seed: name one of choice"),
        (
            {"search": {"space": {"seed": {"int": [0, 1], "choice": [1]}}, "trials": 2}},
            "name one of choice",
        ),
        ({"search": {"space": {"seed": {"int": [3, 1]}}, "trials": 2}}, "the low end comes first"),
        ({"search": {"space": {"x": {"loguniform": [0, 1]}}, "trials": 2}}, "greater than 0"),
        ({**GRID, "cluster_workers": "some"}, "cluster_workers"),
        (
            {"grid": {f"key{n}": [*range(10)] for n in range(8)}},
            "a sweep has at most 10,000 trials, these are 100,000,000",
        ),
        ({"grid": {"arch": ["a"]}, "seeds": [*range(10_001)]}, "these are 10,001"),
        ({"search": {"space": SPACE, "trials": 10**9}}, "these are 1,000,000,000"),
    ],
)
def test_a_sweep_that_contradicts_itself_is_refused(fields: dict[str, Any], said: str):
    with pytest.raises(ValueError) as caught:
        sweep_of(**fields)
    assert said in str(caught.value)


def test_what_is_whole_is_read():
    assert sweep_of(**GRID, cluster_workers="all").cluster_workers == "all"
    assert sweep_of(**MODEL).subject.source == "m"
    own = sweep_of(**{**MODEL, "model": {"source": "m", "codec": "c"}}).subject
    assert (own.source, own.arch, own.codec) == ("m", "lmi_dw_mixffn", "c")
    search = sweep_of(search={"space": {**SPACE, "seed": {"int": [0, 3]}}, "trials": 2})
    assert search.search is not None and search.varied == {"optimizer.lr", "seed"}
    assert search.search.space["seed"].integers == (0, 3)
