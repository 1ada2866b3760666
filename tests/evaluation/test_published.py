"""The paper's numbers as shipped, what differs from its settings, and whether an order agrees."""

import math
from dataclasses import replace
from statistics import stdev

import pytest

from moebius.evaluation.published import (
    PAPER_METRICS,
    differences,
    published,
    rank_agreement,
    references,
    settings,
)
from moebius.evaluation.tables import Metric, Row
from moebius.models.architectures import EXPERIMENTS

FID = PAPER_METRICS["fid"]
PSNR = Metric("psnr_hole", "PSNR")


def row(label: str, arch: str, distilled: bool, fid: float, deviation: float | None = None) -> Row:
    spread = {} if deviation is None else {"fid": deviation}
    numbers = published("table2")[label]
    seeds = 1 if deviation is None else 4
    return Row(label, arch, distilled, {"fid": fid}, None, None, None, spread, seeds, numbers)


@pytest.mark.parametrize(
    ("reference", "name", "numbers"),
    [
        ("table2", "9", {"fid": 26.43, "lpips": 0.258}),
        ("table3/places2_test", "Moebius", {"fid": 9.48, "lpips": 0.207}),
        ("table5", "coarse", {"fid": 74.20, "lpips": 0.367}),
        ("table6/celebahq_512", "2.0", {"fid": 5.39, "lpips": 0.122}),
        ("figure6", "Moebius", {"average": 31.76}),
    ],
)
def test_numbers_of_the_paper(reference: str, name: str, numbers: dict[str, float]):
    assert published(reference)[name] == numbers


def test_every_table_can_be_read_and_table_2_has_every_experiment():
    for reference in references():
        assert published(reference) and settings(reference).source == "arXiv 2606.19195"
    numbered = {str(n) for pair in EXPERIMENTS.values() for n in pair if n is not None}
    assert published("table2").keys() == numbered


def test_settings_say_protocol_and_steps():
    assert (settings("table5").protocol, settings("table5").steps) == ("places2_test", 18_000)
    fine_tuned = settings("table6/celebahq_512")
    assert (fine_tuned.protocol, fine_tuned.steps) == ("celebahq_512", None)


@pytest.mark.parametrize("reference", ["table9", "table3", "table2/places2_test", ""])
def test_a_table_that_is_not_there_names_those_that_are(reference: str):
    with pytest.raises(ValueError, match=r"no numbers under .*known: .*table3/places2_test"):
        published(reference)


def test_differences_are_plain_sentences():
    assert differences("table2", steps=250, global_batch=16, protocol="32 pairs", images=32) == [
        "Paper's numbers: arXiv 2606.19195, Tab. 2.",
        "Training steps: 250; the paper: 18,000.",
        "Samples a step: 16; the paper: 768.",
        "Scored on: 32 pairs; the paper: Places2 (Test).",
        "Images scored: 32; the paper: 10,000.",
    ]
    (_, steps) = differences("table3/places2_test", steps=18_000)
    assert steps == "Training steps: 18,000; the paper: 138,000 and fine-tuned."


def test_what_equals_the_papers_setting_is_not_a_difference():
    same = differences(
        "table2",
        steps=18_000,
        global_batch=768,
        size=512,
        protocol="places2_test",
        images=10_000,
        teacher="hustvl/PixelHacker/pretrained",
        codec="hustvl/PixelHacker/vae",
    )
    assert same == ["Paper's numbers: arXiv 2606.19195, Tab. 2."]


def test_the_order_is_compared_by_kendalls_tau_with_the_metrics_directions():
    rows = [  # in the paper: 11 (26.81) before 1 (32.75) before 10 (33.42)
        row("1", "a", False, 40),
        row("11", "a", True, 30),
        row("10", "b", False, 35),
    ]
    agreement = rank_agreement(rows, FID)
    assert agreement is not None and agreement.rows == 3
    assert agreement.tau == pytest.approx(1 / 3)  # two of three pairs agree
    (pair,) = agreement.pairs
    assert (pair.ahead, pair.behind) == ("11", "1") and pair.error is None
    assert pair.published == pytest.approx(32.75 - 26.81) and pair.measured == pytest.approx(10)
    assert pair.verdict == "holds"
    higher = [replace(r, metrics={"psnr_hole": -r.metrics["fid"]}) for r in rows]
    same = rank_agreement(higher, PSNR)
    assert same is not None and same.tau == agreement.tau and same.pairs[0].measured == 10


def test_pairs_carry_the_standard_error_of_their_difference():
    values = {"11": [28.0, 30, 32, 30], "1": [33.0, 33, 35, 31]}
    rows = [row(k, "a", k == "11", sum(v) / 4, stdev(v)) for k, v in values.items()]
    agreement = rank_agreement(rows, FID)
    assert agreement is not None
    (pair,) = agreement.pairs
    assert pair.measured == pytest.approx(3)
    assert pair.error == pytest.approx(math.sqrt(sum(stdev(v) ** 2 / 4 for v in values.values())))
    assert any(f"+3.00 ± {pair.error:.2f} FID: holds" in text for text in agreement.sentences())


@pytest.mark.parametrize(
    ("distilled", "verdict"),
    [(30, "holds"), (38, "undecided"), (42, "undecided"), (50, "reversed")],
)
def test_a_pair_within_two_standard_errors_is_undecided(distilled: float, verdict: str):
    rows = [row("11", "a", True, distilled, 2.0), row("1", "a", False, 40, 2.0)]
    agreement = rank_agreement(rows, FID)
    assert agreement is not None and agreement.pairs[0].verdict == verdict
    assert f"{verdict} 1" in agreement.sentences()[1]


def test_without_pairs_of_distillation_neighbours_in_the_papers_order_are_compared():
    rows = [row("10", "a", False, 3), row("7", "b", True, 1), row("9", "c", True, 2)]
    agreement = rank_agreement(rows, FID)
    assert agreement is not None and agreement.tau == 1
    assert [(p.ahead, p.behind) for p in agreement.pairs] == [("7", "9"), ("9", "10")]


def test_rows_without_both_numbers_have_no_order():
    failed = Row("1", "a", True, {"fid": 3}, error="it broke", published={"fid": 1})
    assert rank_agreement([row("9", "a", True, 2), failed, Row("x", "b", True)], FID) is None
