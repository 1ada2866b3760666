"""Means over seeds, budgets, winners and rows of a sweep."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import moebius
from moebius.config import Sweep, parse
from moebius.distill.run_folder import RunFolder
from moebius.evaluation.tables import PLANNED
from moebius.sweeps.standings import (
    architecture_key,
    check_budget,
    check_objective,
    costs,
    needs_latency,
    pick_winner,
    shown_metrics,
    table_rows,
)
from moebius.sweeps.trials import Trial, plan_trials

BASE: dict[str, Any] = {
    "model": {
        "widths": [32] * 3,
        "depths": [1] * 3,
        "latent_size": 8,
        "lcg_dim": 8,
        "context_dim": 8,
    },
    "data": {"size": 64},
    "distill": {"losses": ["task"]},
    "training": {"steps": 10, "global_batch": 4},
}


def listed(*labels: str, **fields: Any) -> Sweep:
    experiments = [{"label": label} for label in labels]
    return parse(Sweep, {"name": "s", "recipe": BASE, "experiments": experiments, **fields}, "s")


def finish(trial: Trial, **scores: float) -> None:
    run = RunFolder(trial.folder)
    run.prepare(trial.recipe)
    run.write_result({"step": trial.recipe.training.steps, **scores})


def two_sizes(**promote: Any) -> Sweep:
    """A small architecture and a large one."""
    experiments = [
        {"label": "small", "overrides": {"model.depths": [1, 1, 1]}},
        {"label": "large", "overrides": {"model.depths": [2, 2, 2]}},
    ]
    overrides = {"training.steps": 20}
    return listed(experiments=experiments, promote={"overrides": overrides, **promote})


def test_the_winner_has_the_best_finite_objective(tmp_path: Path):
    most = listed("a", "b", "c", "d", "e")
    trials = plan_trials(most, tmp_path)
    assert pick_winner(most, trials) is None
    for trial, value in zip(trials, (20.0, 22.0, math.nan, 21.0), strict=False):
        finish(trial, psnr_hole=value, fid=-value)
    for mode, metric, best in (("max", "psnr_hole", "b"), ("min", "psnr_hole", "a")):
        sweep = listed("a", "b", "c", "d", "e", objective={"metric": metric, "mode": mode})
        winner = pick_winner(sweep, trials)
        assert winner is not None and winner.label == best
    with pytest.raises(ValueError, match=r"no trial reports the objective 'lpips'"):
        pick_winner(listed("a", objective={"metric": "lpips"}), trials)
    assert pick_winner(most, trials[2:3]) is None  # NaN only


def test_the_winner_is_the_best_seed_of_the_point_with_the_best_mean(tmp_path: Path):
    sweep = listed("lucky", "steady", "failed", seeds=[0, 1])
    trials = {trial.label: trial for trial in plan_trials(sweep, tmp_path)}
    values = {"lucky seed 0": 30, "lucky seed 1": 10, "steady seed 0": 21, "steady seed 1": 23}
    for label, value in values.items():
        finish(trials[label], psnr_hole=float(value))
    finish(trials["failed seed 0"], psnr_hole=40.0)  # its other seed did not finish
    winner = pick_winner(sweep, list(trials.values()))
    assert winner is not None and winner.label == "steady seed 1"


def test_protocol_scores_decide_where_the_objective_is_theirs(tmp_path: Path):
    sweep = listed("a", "b", objective={"metric": "fid", "mode": "min"})
    trials = plan_trials(sweep, tmp_path)
    for trial in trials:
        finish(trial, psnr_hole=20.0)
    winner = pick_winner(sweep, trials, {"a": {"fid": 9.0}, "b": {"fid": 7.0}})
    assert winner is not None and winner.label == "b"


@pytest.mark.parametrize(
    ("when", "winner"), [(None, "large"), ("gmacs > 0 and params < {between}", "small")]
)
def test_only_what_meets_the_budget_wins(tmp_path: Path, when: str | None, winner: str):
    sizes = [costs(t.recipe)["params"] for t in plan_trials(two_sizes(), tmp_path)]
    budget = None if when is None else when.format(between=sum(sizes) / 2)
    sweep = two_sizes(when=budget)
    trials = plan_trials(sweep, tmp_path)
    for trial, value in zip(trials, (20.0, 22.0), strict=True):
        finish(trial, psnr_hole=value)
    check_budget(sweep, trials, {})
    best = pick_winner(sweep, trials)
    assert best is not None and best.label == winner


def test_a_budget_that_no_trial_meets_is_refused_with_what_there_is(tmp_path: Path):
    sweep = two_sizes(when="params <= 10 and gmacs < 100")
    with pytest.raises(ValueError, match=r"no trial meets 'params <= 10 .*params from [\d,]+ to"):
        check_budget(sweep, plan_trials(sweep, tmp_path), {})


def test_a_budget_in_milliseconds_asks_for_measured_steps(tmp_path: Path):
    sweep = two_sizes(when="latency_ms < 5")
    trials = plan_trials(sweep, tmp_path)
    keys = [architecture_key(trial.recipe) for trial in trials]
    assert needs_latency(sweep) and not needs_latency(two_sizes()) and keys[0] != keys[1]
    check_budget(sweep, trials, dict(zip(keys, (4.0, 6.0), strict=True)))
    with pytest.raises(ValueError, match="latency_ms from 6 to 7"):
        check_budget(sweep, trials, dict(zip(keys, (6.0, 7.0), strict=True)))


@pytest.mark.parametrize(
    ("objective", "measured", "said"),
    [
        ({"metric": "fid", "mode": "min"}, ["lpips"], "no trial reports 'fid'; known: psnr_hole"),
        ({"metric": "fid"}, ["fid"], "the best fid is its min"),
        ({"metric": "loss/task"}, [], "the best loss/task is its min"),
    ],
)
def test_an_objective_that_cannot_be_meant_is_refused(objective, measured, said: str):
    with pytest.raises(ValueError, match=said):
        check_objective(listed("a", objective=objective), measured)


def test_objectives_that_are_measured_pass():
    check_objective(listed("a"), [])
    check_objective(listed("a", objective={"metric": "fid", "mode": "min"}), ["fid"])


def test_rows_show_scores_or_the_reason(tmp_path: Path):
    trials = plan_trials(listed("good", "bad", "killed"), tmp_path)
    finish(trials[0], psnr_hole=20.0, ssim_hole=0.5, other=1.0)
    good, bad, killed = table_rows(trials, {"bad": "step 3: the task loss is nan"})
    assert good.metrics == {"psnr_hole": 20.0, "ssim_hole": 0.5} and good.error is None
    assert good.arch == "lmi_dw_mixffn" and not good.distilled
    with torch.device("meta"):
        built = moebius.build("lmi_dw_mixffn", **BASE["model"])
    assert good.params == sum(p.numel() for p in built.unet.parameters())
    assert bad.metrics == {} and bad.error == "step 3: the task loss is nan"
    assert killed.error == "did not finish"


def test_a_failure_of_an_earlier_process_is_told_from_its_file(tmp_path: Path):
    (trial,) = plan_trials(listed("bad"), tmp_path)
    trial.folder.mkdir(parents=True)
    (trial.folder / "error.txt").write_text("Traceback\nValueError: no such weights\n")
    (row,) = table_rows([trial], {})
    assert row.error == "ValueError: no such weights"


def test_seeds_make_one_row_with_mean_and_sample_deviation(tmp_path: Path):
    trials = plan_trials(listed("a", "b", seeds=[0, 1, 2]), tmp_path)
    for trial, value in zip(trials[::2], (10.0, 12.0, 17.0), strict=True):  # a 0, a 1, a 2
        finish(trial, psnr_hole=value)
    finish(trials[1], psnr_hole=11.0)
    a, b = table_rows(trials, {"b seed 1": "nan", "b seed 2": "out of memory"})
    assert (a.label, a.seeds, a.metrics) == ("a", 3, {"psnr_hole": 13.0})
    assert a.deviations["psnr_hole"] == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert b.metrics == {} and b.error == "2 of 3 seeds; b seed 1: nan"
    _, b = table_rows(trials, {trial.label: PLANNED for trial in trials})
    assert b.error == PLANNED


def test_a_stopped_trial_keeps_its_scores_and_is_no_failure(tmp_path: Path):
    (trial,) = plan_trials(listed("a"), tmp_path)
    trial.folder.mkdir(parents=True)
    (trial.folder / "stopped.json").write_text('{"step": 4, "psnr_hole": 9.0}')
    (row,) = table_rows([trial], {})
    assert (row.stopped, row.error, row.metrics) == (4, None, {"psnr_hole": 9.0})
    assert pick_winner(listed("a"), [trial]) is None


def test_rows_have_protocol_scores_times_and_the_papers_numbers(tmp_path: Path):
    sweep = listed("9", "guidance=2.5")
    trials = plan_trials(sweep, tmp_path)
    finish(trials[0], psnr_hole=20.0)
    key = architecture_key(trials[0].recipe)
    paper = {"9": {"fid": 26.43}, "2.5": {"fid": 9.48}}
    rows = table_rows(trials, {}, {"9": {"fid": 30.0, "psnr_hole": 21.0}}, {key: 3.5}, paper)
    assert rows[0].metrics == {"psnr_hole": 21.0, "fid": 30.0} and rows[0].latency_ms == 3.5
    assert [row.published for row in rows] == [{"fid": 26.43}, {"fid": 9.48}]
    assert [m.name for m in shown_metrics(sweep, rows)] == ["psnr_hole", "ssim_hole", "fid"]
