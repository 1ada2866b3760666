"""ASHA in a sweep, without a cluster: what is stopped, marked, remembered."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moebius.config import Sweep, parse
from moebius.distill.checkpoints import write_checkpoint
from moebius.distill.run_folder import RunFolder
from moebius.sweeps.halving import halving, mark_stopped
from moebius.sweeps.trials import Trial, plan_trials

BASE: dict[str, Any] = {
    "model": {"widths": [32] * 3, "depths": [1] * 3, "latent_size": 8, "lcg_dim": 8},
    "data": {"size": 64},
    "distill": {"losses": ["task"]},
    "training": {"steps": 10, "global_batch": 4},
    "validation": {"every": 2},
}


def sweep_of(**fields: Any) -> Sweep:
    return parse(Sweep, {"name": "s", "recipe": BASE, **fields}, "sweep")


@pytest.fixture
def asha() -> Sweep:
    pytest.importorskip("ray")
    labels = [{"label": label} for label in "abcd"]
    return sweep_of(experiments=labels, scheduler={"name": "asha", "grace": 2, "reduction": 2})


def as_ray_has_it(trial: Trial) -> Any:
    job = {
        "label": trial.label,
        "folder": str(trial.folder),
        "recipe": trial.recipe.model_dump(mode="json"),
    }
    return SimpleNamespace(trial_id=f"ray-{trial.label}", config={"job": job})


def report(scheduler: Any, trial: Trial, step: int, **scores: float) -> str:
    """What the scheduler says to a report; the trial's log has the same line."""
    trial.folder.mkdir(parents=True, exist_ok=True)
    RunFolder(trial.folder).log({"step": step, **scores})
    return scheduler.on_trial_result(None, as_ray_has_it(trial), {"step": step, **scores})


def started(sweep: Sweep, trials: list[Trial]) -> Any:
    scheduler = halving(sweep, trials, 10)
    for trial in trials:
        scheduler.on_trial_add(None, as_ray_has_it(trial))
    return scheduler


def test_the_worse_half_is_stopped_at_a_rung_and_marked(asha: Sweep, tmp_path: Path):
    a, b, c, _ = trials = plan_trials(asha, tmp_path)
    scheduler = started(asha, trials)
    assert report(scheduler, a, 1, psnr_hole=5.0) == "CONTINUE"  # before the grace period
    assert report(scheduler, a, 2, psnr_hole=20.0) == "CONTINUE"
    assert report(scheduler, b, 2, psnr_hole=22.0) == "CONTINUE"
    assert report(scheduler, c, 2) == "CONTINUE"  # a report without the score
    assert report(scheduler, c, 3, psnr_hole=20.5) == "STOP"  # below the median of 20 and 22
    assert c.stopped == {"step": 3, "psnr_hole": 20.5}
    assert a.stopped is None and b.stopped is None


def test_a_last_step_is_never_stopped(asha: Sweep, tmp_path: Path):
    a, b, *_ = trials = plan_trials(asha, tmp_path)
    scheduler = started(asha, trials)
    report(scheduler, a, 9, psnr_hole=20.0)
    assert report(scheduler, b, 10, psnr_hole=1.0) == "CONTINUE" and b.stopped is None
    assert report(scheduler, b, 9, psnr_hole=1.0) == "STOP"
    scheduler.on_trial_complete(None, as_ray_has_it(b), {"step": 9})
    scheduler.on_trial_remove(None, as_ray_has_it(a))


def test_a_new_process_knows_the_rungs_of_the_one_before(asha: Sweep, tmp_path: Path):
    a, b, c, d = trials = plan_trials(asha, tmp_path)
    first = started(asha, trials)
    report(first, a, 2, psnr_hole=20.0)
    report(first, b, 2, psnr_hole=22.0)
    report(first, b, 3, psnr_hole=22.0)
    write_checkpoint(a.folder / "checkpoints", 2, {}, keep=1)
    second = started(asha, trials)
    assert report(second, b, 3, psnr_hole=1.0) == "CONTINUE"  # b has passed the first rung
    assert report(second, c, 2, psnr_hole=20.5) == "STOP"
    assert report(second, d, 2, psnr_hole=23.0) == "CONTINUE"


def test_who_was_killed_before_the_answer_asks_again(asha: Sweep, tmp_path: Path):
    """It has logged a rung's step and saved nothing since: it takes that step again."""
    a, b, *_ = trials = plan_trials(asha, tmp_path)
    first = started(asha, trials)
    report(first, a, 2, psnr_hole=20.0)
    write_checkpoint(a.folder / "checkpoints", 2, {}, keep=1)
    b.folder.mkdir(parents=True)
    RunFolder(b.folder).log({"step": 2, "psnr_hole": 1.0})
    second = started(asha, trials)
    assert report(second, b, 2, psnr_hole=1.0) == "STOP"


def test_losses_are_better_when_lower(tmp_path: Path):
    pytest.importorskip("ray")
    scheduler = {"name": "asha", "grace": 2, "reduction": 2, "metric": "loss/task"}
    sweep = sweep_of(experiments=[{"label": "a"}, {"label": "b"}], scheduler=scheduler)
    a, b = trials = plan_trials(sweep, tmp_path)
    asha = started(sweep, trials)
    assert report(asha, a, 2, **{"loss/task": 1.0}) == "CONTINUE"
    assert report(asha, b, 2, **{"loss/task": 2.0}) == "STOP"


def test_a_mark_has_the_scores_and_not_what_ray_adds(tmp_path: Path):
    mark_stopped(tmp_path, {"step": 4, "psnr_hole": 9.0, "pid": 3, "config/job": 1})
    assert json.loads((tmp_path / "stopped.json").read_text()) == {"step": 4, "psnr_hole": 9.0}
