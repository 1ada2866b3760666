"""A sweep without its machinery: its points, their trials and folders, and what is promoted."""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch

from moebius.config import Recipe, Sweep, load_yaml, override, parse, set_dotted
from moebius.data.copies import bring, place_of, publish
from moebius.distill.checkpoints import newest_checkpoint
from moebius.distill.run_folder import RunFolder, slug
from moebius.models.architectures import resolve
from moebius.models.denoiser import build
from moebius.recipes import raw_recipe, read_recipe, teacher_folder, teacher_recipe

DURING_TRAINING = ("psnr_hole", "ssim_hole")
"""Scores that a run has of itself, while it trains where `validation.every` says so."""


@dataclass(frozen=True)
class Point:
    """What a row of the table stands for: one variation of the base, whatever the seed."""

    label: str
    overrides: Mapping[str, Any]
    """Dotted keys to values."""
    folder: str = ""
    """Name of its trial's folder, where it is not made of the label."""


@dataclass(frozen=True)
class Trial:
    """One run of a sweep."""

    label: str
    recipe: Recipe
    folder: Path
    point: str = ""
    """Label of its point; seeds of one point share it."""

    @property
    def result(self) -> dict[str, Any] | None:
        """Its stored result, or `None` while it is unfinished."""
        return RunFolder(self.folder).read_result(self.recipe.training.steps)

    @property
    def stopped(self) -> dict[str, Any] | None:
        """What it had reached when a scheduler stopped it; `None` where none did."""
        path = self.folder / "stopped.json"
        return json.loads(path.read_text()) if path.is_file() and self.result is None else None


def read_sweep(path: str | Path, overrides: Iterable[str] = ()) -> Sweep:
    """A validated sweep file.

    Args:
        path: YAML file.
        overrides: `dotted.key=value` texts on top, such as `recipe.training.steps=100`.
    """
    data, given = load_yaml(path), list(overrides)
    if isinstance(data.get("recipe"), str) and any(text.startswith("recipe.") for text in given):
        data["recipe"] = {"extends": data["recipe"]}
    return parse(Sweep, override(data, given), f"sweep {path}")


def points(sweep: Sweep) -> list[Point]:
    """The points that a sweep lists or spans, in order; a search finds its own."""
    if sweep.experiments:
        return [Point(experiment.label, experiment.overrides) for experiment in sweep.experiments]
    if not sweep.grid:
        return []
    combinations = [dict(zip(sweep.grid, v, strict=True)) for v in product(*sweep.grid.values())]
    return [Point(describe(overrides), overrides) for overrides in combinations]


def plan_trials(sweep: Sweep, out: Path) -> list[Trial]:
    """The sweep's trials in order; every recipe is validated, every architecture built (on meta).

    Args:
        sweep: the sweep, one that trains.
        out: its folder; trials live in `out/trials/<label>`.

    Raises:
        ValueError: a trial's recipe is wrong, could not be stopped or promoted as the sweep says,
            or would share its folder with another trial or with a run of other settings.
    """
    trials = dict[Path, Trial]()
    seeds: list[int | None] = [*sweep.seeds] or [None]
    for seed in seeds:
        for point in points(sweep):
            trial = plan_trial(sweep, out, point, seed)
            twin = trials.setdefault(trial.folder, trial)
            if twin is not trial:
                raise ValueError(
                    f"trials {twin.label!r} and {trial.label!r} share a folder, {trial.folder}"
                )
    return list(trials.values())


def plan_trial(sweep: Sweep, out: Path, point: Point, seed: int | None = None) -> Trial:
    """One point's trial of one seed, checked as in `plan_trials`."""
    label = point.label if seed is None else f"{point.label} seed {seed}"
    try:
        recipe = _vary(_base(sweep, out), point.overrides, seed)
        architecture = resolve(recipe.arch, **recipe.model)
        _check_builds(json.dumps(architecture.model_dump(mode="json", by_alias=True)))
        trial = Trial(label, recipe, out / "trials" / (point.folder or slug(label)), point.label)
        _check_scheduler(sweep, recipe)
        _check_promotion(sweep, trial, out)
    except ValueError as error:
        raise ValueError(f"trial {label!r}: {error}") from None
    RunFolder(trial.folder).check(recipe)
    return trial


def base_recipe(sweep: Sweep) -> Recipe:
    """What the sweep varies; a search takes its teacher from here."""
    assert sweep.recipe is not None, "a sweep that trains has a recipe"
    return read_recipe(raw_recipe(sweep.recipe))


def early_metric(sweep: Sweep) -> str:
    """What ASHA compares trials by while they train."""
    return sweep.scheduler.metric or sweep.objective.metric


def promoted_recipe(sweep: Sweep, winner: Trial, out: Path) -> Recipe:
    """The winner's recipe with the promotion's overrides, and the teacher that it had."""
    assert sweep.promote is not None
    base = winner.recipe.model_dump(mode="json", by_alias=True)
    return _vary(_with_teacher_of(winner.recipe, base, out), sweep.promote.overrides)


def warm_start(winner: Trial, folder: Path) -> None:
    """Gives a promoted run the winner's last checkpoint to go on from, once."""
    source = newest_checkpoint(bring(winner.folder / "checkpoints"))
    target = bring(folder / "checkpoints")
    if source is None or newest_checkpoint(target) is not None:
        return
    target.mkdir(parents=True, exist_ok=True)
    partial, final = target / ".warm_start.partial", target / source.name
    for leftover in (partial, final):  # of a copy that was cut short or damaged
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(source, partial)
    partial.rename(final)
    publish(target)


def describe(overrides: Mapping[str, Any]) -> str:
    """A point's values in a few words: `lmi_dw_ffn, losses=task+fine`."""
    return ", ".join(_short(key, value) for key, value in overrides.items())


@cache
def _check_builds(architecture: str) -> None:
    """Operators and their options are checked by those who build them."""
    with torch.device("meta"):
        build(json.loads(architecture))


def _check_scheduler(sweep: Sweep, recipe: Recipe) -> None:
    """ASHA needs something to compare before the last step."""
    if sweep.scheduler.name != "asha":
        return
    metric = early_metric(sweep)
    if metric not in DURING_TRAINING and not metric.startswith("loss/"):
        raise ValueError(
            f"scheduler: {metric!r} is not known during training; set scheduler.metric to "
            f"{', '.join(DURING_TRAINING)} or a loss such as loss/task"
        )
    if metric in DURING_TRAINING and recipe.validation.every is None:
        raise ValueError(
            f"scheduler: asha needs {metric} during training; set validation.every, such as "
            f"validation.every={sweep.scheduler.grace}"
        )


def _check_promotion(sweep: Sweep, trial: Trial, out: Path) -> None:
    """Every trial may win, and a promotion that fails would fail after the whole sweep."""
    if sweep.promote is None:
        return
    steps, total = trial.recipe.training.steps, promoted_recipe(sweep, trial, out).training.steps
    if sweep.promote.warm_start and total <= steps:
        raise ValueError(
            f"promote: a warm start goes on from step {steps}, so training.steps must be more "
            f"than that, not {total}"
        )


def _vary(base: Mapping[str, Any], overrides: Mapping[str, Any], seed: int | None = None) -> Recipe:
    data = dict(base)
    for key, value in overrides.items():
        data = set_dotted(data, key, value)
    return read_recipe(data if seed is None else _reseeded(data, seed))


def _base(sweep: Sweep, out: Path) -> dict[str, Any]:
    assert sweep.recipe is not None, "a sweep that trains has a recipe"
    data = raw_recipe(sweep.recipe)
    return data if sweep.search is None else _with_teacher_of(read_recipe(data), data, out)


def _with_teacher_of(recipe: Recipe, data: dict[str, Any], out: Path) -> dict[str, Any]:
    """`data` with the teacher that `recipe` trains, by its path: it asks for none of its own."""
    if teacher_recipe(recipe) is None:
        return data
    model = teacher_folder(recipe, out) / "model"
    return {**data, "teacher": {"path": place_of(model)}}


def _reseeded(data: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A recipe of another seed and the same teacher."""
    teacher = data.get("teacher")
    if isinstance(teacher, Mapping) and isinstance(teacher.get("train"), Mapping):
        train = {"seed": data.get("seed", 0), **teacher["train"]}
        data = {**data, "teacher": {**teacher, "train": train}}
    return {**data, "seed": seed}


def _short(key: str, value: Any) -> str:
    text = "+".join(map(str, value)) if isinstance(value, list) else str(value)
    if isinstance(value, float) and len(text) > 6:
        text = f"{value:.3g}"
    return text if key == "arch" else f"{key.rpartition('.')[2]}={text}"
