"""A sweep's plan: its points, seeds and trials, and what is promoted."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from moebius.config import Sweep, parse
from moebius.distill.checkpoints import newest_checkpoint, write_checkpoint
from moebius.distill.run_folder import RunFolder
from moebius.recipes import teacher_folder, teacher_recipe
from moebius.sweeps.trials import (
    Trial,
    plan_trials,
    promoted_recipe,
    read_sweep,
    warm_start,
)

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


def sweep_of(**fields: Any) -> Sweep:
    return parse(Sweep, {"name": "s", "recipe": BASE, **fields}, "sweep")


def listed(*labels: str, **fields: Any) -> Sweep:
    return sweep_of(experiments=[{"label": label} for label in labels], **fields)


def finish(trial: Trial, **scores: float) -> None:
    run = RunFolder(trial.folder)
    run.prepare(trial.recipe)
    run.write_result({"step": trial.recipe.training.steps, **scores})


def checkpoint(root: Path, step: int, text: str = "weights") -> Path:
    return write_checkpoint(root, step, {"w": lambda path: path.write_text(text)}, keep=2)


def test_listed_experiments_change_the_base(tmp_path: Path):
    sweep = sweep_of(
        experiments=[
            {"label": "1", "overrides": {"arch": "gla_ca_conv_ffn", "training.steps": 20}},
            {"label": "own U-Net", "overrides": {"arch": {"base": "lmi_dw_ffn"}, "seed": 3}},
        ]
    )
    one, two = plan_trials(sweep, tmp_path)
    assert (one.label, one.recipe.arch, one.recipe.training.steps) == ("1", "gla_ca_conv_ffn", 20)
    assert (two.recipe.arch, two.recipe.seed) == ({"base": "lmi_dw_ffn"}, 3)
    assert two.recipe.training.global_batch == 4 and two.recipe.training.steps == 10
    assert two.folder == tmp_path / "trials" / "own_U-Net" and two.result is None


def test_a_grid_is_every_combination_in_order(tmp_path: Path):
    grid = {
        "arch": ["lmi_dw_ffn", "gla_ca_dw_ffn"],
        "distill.losses": [["task"], ["task", "perceptual"]],
        "seed": [0, 1],
    }
    trials = plan_trials(sweep_of(grid=grid), tmp_path)
    assert [t.label for t in trials] == [
        f"{arch}, losses={losses}, seed={seed}"
        for arch in ("lmi_dw_ffn", "gla_ca_dw_ffn")
        for losses in ("task", "task+perceptual")
        for seed in (0, 1)
    ]
    last = trials[-1].recipe
    assert (last.arch, last.seed, last.distill.losses) == (
        "gla_ca_dw_ffn",
        1,
        ["task", "perceptual"],
    )
    assert len({trial.folder for trial in trials}) == 8


def test_trials_of_one_folder_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"trials 'a b' and 'a,b' share a folder"):
        plan_trials(listed("a b", "a,b"), tmp_path)
    with pytest.raises(ValueError, match="share a folder"):
        plan_trials(sweep_of(grid={"seed": [1, 1]}), tmp_path)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"trainig.steps": 3}, "trial 'x': recipe: unknown key 'trainig'; did you mean 'training'"),
        ({"arch": "lmi_dw_mixfn"}, "trial 'x': unknown architecture 'lmi_dw_mixfn'; did you mean"),
        (
            {"arch": {"base": "lmi_dw_ffn", "stages": [{"self": "gls"}]}, "model": {}},
            "trial 'x': unknown self operator 'gls'",
        ),
    ],
)
def test_a_wrong_trial_is_found_before_anything_runs(tmp_path: Path, overrides, said: str):
    with pytest.raises(ValueError, match=said):
        plan_trials(sweep_of(experiments=[{"label": "x", "overrides": overrides}]), tmp_path)


def test_changed_settings_are_refused_and_longer_runs_are_not(tmp_path: Path):
    (trial,) = plan_trials(listed("1"), tmp_path)
    finish(trial, psnr_hole=20.0)
    changed = sweep_of(experiments=[{"label": "1", "overrides": {"seed": 9}}])
    with pytest.raises(ValueError, match=r"run with other settings \(seed\)"):
        plan_trials(changed, tmp_path)
    longer = sweep_of(experiments=[{"label": "1", "overrides": {"training.steps": 30}}])
    (trial,) = plan_trials(longer, tmp_path)
    assert trial.result is None  # of 10 steps, not of 30


def test_a_promotion_goes_on_from_the_winners_settings(tmp_path: Path):
    promote = {"overrides": {"training.steps": 30, "optimizer.lr": 1e-5}}
    sweep = sweep_of(experiments=[{"label": "1", "overrides": {"seed": 5}}], promote=promote)
    (winner,) = plan_trials(sweep, tmp_path)
    recipe = promoted_recipe(sweep, winner, tmp_path)
    assert (recipe.training.steps, recipe.optimizer.lr, recipe.seed) == (30, 1e-5, 5)
    assert recipe.model == winner.recipe.model


def test_a_promotion_keeps_the_winners_teacher(tmp_path: Path):
    """Its own steps would otherwise ask for a teacher trained as long."""
    overrides = {"distill.losses": ["fine", "task"], "teacher": {"train": {}}}
    sweep = sweep_of(
        experiments=[{"label": "1", "overrides": overrides}],
        promote={"overrides": {"training.steps": 30}},
    )
    (winner,) = plan_trials(sweep, tmp_path)
    teacher = promoted_recipe(sweep, winner, tmp_path).teacher
    assert teacher is not None
    assert teacher.path == str(teacher_folder(winner.recipe, tmp_path) / "model")


def test_a_promotion_that_could_not_run_is_found_at_once(tmp_path: Path):
    short = {"overrides": {"training.steps": 10}}
    with pytest.raises(ValueError, match=r"trial '1': promote: a warm start goes on from step 10"):
        plan_trials(listed("1", promote=short), tmp_path)
    assert plan_trials(listed("1", promote={**short, "warm_start": False}), tmp_path)
    with pytest.raises(ValueError, match=r"trial '1': .*'optimiser'; did you mean 'optimizer'"):
        plan_trials(listed("1", promote={"overrides": {"optimiser.lr": 1}}), tmp_path)


def test_warm_start_copies_the_winners_checkpoint_once(tmp_path: Path):
    (winner,) = plan_trials(listed("1"), tmp_path)
    promoted = tmp_path / "promoted"
    warm_start(winner, promoted)  # nothing to copy
    assert newest_checkpoint(promoted / "checkpoints") is None
    checkpoint(winner.folder / "checkpoints", 5, "older")
    checkpoint(winner.folder / "checkpoints", 10, "first")
    warm_start(winner, promoted)
    copied = newest_checkpoint(promoted / "checkpoints")
    assert copied is not None and copied.name == "step_000010"
    assert (copied / "w").read_text() == "first"
    assert [path.name for path in (promoted / "checkpoints").iterdir()] == ["step_000010"]
    checkpoint(winner.folder / "checkpoints", 20, "second")
    warm_start(winner, promoted)
    assert newest_checkpoint(promoted / "checkpoints") == copied


def test_a_damaged_warm_start_is_replaced(tmp_path: Path):
    (winner,) = plan_trials(listed("1"), tmp_path)
    checkpoint(winner.folder / "checkpoints", 10)
    warm_start(winner, tmp_path / "promoted")
    copied = tmp_path / "promoted" / "checkpoints" / "step_000010"
    (copied / "w").write_text("cut")
    warm_start(winner, tmp_path / "promoted")
    assert newest_checkpoint(copied.parent) == copied


def test_a_sweep_file_is_read_strictly(tmp_path: Path):
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({"name": "s", "recipe": "builtin", "grids": {}}))
    with pytest.raises(ValueError, match=r"sweep .*s.yaml: unknown key 'grids'; did you mean 'gri"):
        read_sweep(path)


def test_overrides_of_the_command_line_reach_the_sweep_and_its_recipe(tmp_path: Path):
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({"name": "s", "recipe": "builtin", "grid": {"seed": [0]}}))
    given = ["recipe.training.steps=7", "recipe.data.source=photos", "max_concurrent=2"]
    sweep = read_sweep(path, given)
    (trial,) = plan_trials(sweep, tmp_path)
    assert sweep.max_concurrent == 2
    assert (trial.recipe.training.steps, trial.recipe.data.source) == (7, "photos")
    assert trial.recipe.training.global_batch == 16  # the built-in recipe's


def test_seeds_repeat_every_point_with_one_teacher(tmp_path: Path):
    taught = {**BASE, "distill": {"losses": ["fine", "task"]}, "seed": 5}
    taught["teacher"] = {"train": {"training": {"steps": 3}}}
    sweep = sweep_of(
        recipe=taught,
        experiments=[{"label": "a"}, {"label": "b", "overrides": {"arch": "lmi_dw_ffn"}}],
        seeds=[0, 7],
    )
    trials = plan_trials(sweep, tmp_path)
    assert [(t.label, t.point, t.recipe.seed) for t in trials] == [
        ("a seed 0", "a", 0),
        ("b seed 0", "b", 0),
        ("a seed 7", "a", 7),
        ("b seed 7", "b", 7),
    ]
    assert trials[0].folder == tmp_path / "trials" / "a_seed_0"
    assert len({teacher_folder(trial.recipe, tmp_path) for trial in trials}) == 1
    own = teacher_recipe(trials[3].recipe)
    assert own is not None and own.seed == 5


def test_a_teachers_own_seed_is_kept(tmp_path: Path):
    taught = {**BASE, "distill": {"losses": ["fine", "task"]}}
    taught["teacher"] = {"train": {"seed": 3}}
    (trial,) = plan_trials(
        sweep_of(recipe=taught, grid={"arch": ["lmi_dw_ffn"]}, seeds=[8]), tmp_path
    )
    own = teacher_recipe(trial.recipe)
    assert own is not None and (own.seed, trial.recipe.seed) == (3, 8)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "asha needs psnr_hole during training; set validation.every"),
        ({"objective": {"metric": "fid", "mode": "min"}}, "'fid' is not known during training"),
    ],
)
def test_asha_needs_a_score_during_training(tmp_path: Path, fields: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        plan_trials(listed("a", scheduler={"name": "asha", "grace": 2}, **fields), tmp_path)
    watched = {"name": "asha", "grace": 2, "metric": "loss/task"}
    assert plan_trials(listed("a", scheduler=watched, **fields), tmp_path)
    every = {**BASE, "validation": {"every": 2}}
    assert plan_trials(listed("a", recipe=every, scheduler={"name": "asha"}), tmp_path)


def test_a_stopped_trial_is_one_until_it_finishes(tmp_path: Path):
    (trial,) = plan_trials(listed("1"), tmp_path)
    assert trial.stopped is None
    trial.folder.mkdir(parents=True)
    (trial.folder / "stopped.json").write_text('{"step": 4, "psnr_hole": 9.0}')
    assert trial.stopped == {"step": 4, "psnr_hole": 9.0}
    finish(trial, psnr_hole=20.0)
    assert trial.stopped is None
