"""A sweep's runs: teachers, trials under Ray Tune or in this process, the promotion."""

import io
import os
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from moebius.assembly import train_run
from moebius.cluster import Workers
from moebius.config import Recipe, Sweep
from moebius.console import Tracked, show_progress
from moebius.data.copies import bring, discard, forget, open_place, place_of, publish
from moebius.distill.occupation import ERROR
from moebius.distill.run_folder import write_text
from moebius.distill.tracking.identity import run_name
from moebius.distill.trainer import batch_arithmetic
from moebius.models.architectures import resolve
from moebius.operations.gauges import gauged
from moebius.profile import measure_latency
from moebius.recipes import teacher_folder, teacher_recipe
from moebius.restarts import last_line
from moebius.storage import LEFT_THERE
from moebius.sweeps.halving import halving
from moebius.sweeps.searching import Study, proposals
from moebius.sweeps.stalls import ends_when_stalled
from moebius.sweeps.standings import architecture_key
from moebius.sweeps.trials import Trial, base_recipe, promoted_recipe, warm_start
from moebius.train import launch, parse_recipe, quiet

Run = Callable[[Recipe, Path, Path], dict[str, Any]]
"""Trains a recipe in a folder, with what runs share in another, and returns its result."""


def measure_latencies(recipes: Sequence[Recipe]) -> dict[str, float]:
    """ms a denoising step of every architecture, on this machine."""
    times: dict[str, float] = {}
    for recipe in recipes:
        key = architecture_key(recipe)
        if key not in times:
            architecture = resolve(recipe.arch, **recipe.model)
            measured = measure_latency(architecture, recipe.data.size // 8)
            times[key] = measured["ms_per_step"]
    return times


def preflight(
    sweep: Sweep, trials: Sequence[Trial], recipes: Sequence[Recipe], out: Path
) -> tuple[int, Workers]:
    """Trials that run at once, and the workers of a run that has the cluster to itself.

    Raises:
        ValueError: a run needs more than there is, or its batch does not divide.
    """
    import ray

    total = ray.cluster_resources()
    each = {"CPU": sweep.resources.cpus, "GPU": sweep.resources.gpus}
    bound = "GPU" if sweep.resources.gpus else "CPU"
    everyone = max(1, int(total.get(bound, 0) // each[bound]))
    count = everyone if sweep.cluster_workers == "all" else sweep.cluster_workers
    room = []
    for name, needed in each.items():
        there = total.get(name, 0)
        for what, workers in (("trial", sweep.workers), ("cluster run", count)):
            if needed * workers > there:
                raise ValueError(
                    f"a {what} of sweep {sweep.name!r} needs {needed * workers:g} {name}, the "
                    f"cluster has {there:g}; lower its workers or resources.{name.lower()}s"
                )
        if needed:
            room.append(int(there // (needed * sweep.workers)))
    for recipe in recipes:
        batch_arithmetic(recipe, sweep.workers)
        own = teacher_recipe(recipe)
        if own is not None:
            batch_arithmetic(own, count)
    if sweep.promote is not None:
        for trial in trials:
            batch_arithmetic(promoted_recipe(sweep, trial, out), count)
    concurrent = min([*room, *([sweep.max_concurrent] if sweep.max_concurrent else [])])
    return concurrent, Workers(count, sweep.resources.cpus, sweep.resources.gpus)


def scoring_workers() -> int:
    """Workers that a score by protocol can have; 0 where one would only take a process's place."""
    import ray

    total = ray.cluster_resources()
    free = int(total.get("CPU", 1)) - 1  # Ray Data's own
    gpus = int(total.get("GPU", 0))
    return min(gpus, free) if gpus else free if free > 1 else 0


def train_teachers(recipes: Sequence[Recipe], out: Path, run: Run) -> None:
    """Trains every teacher that recipes ask for, each once."""
    for student in recipes:
        recipe = teacher_recipe(student)
        if recipe is None:
            continue
        folder = teacher_folder(student, out)
        tracked = Tracked("teacher", folder, recipe.training.steps)
        if tracked.finished:
            continue
        with show_progress([tracked]):
            run(recipe, folder, out)


def run_trials(
    sweep: Sweep, trials: Sequence[Trial], out: Path, concurrent: int, study: Study | None = None
) -> dict[str, str]:
    """Runs the unfinished trials under Ray Tune; returns why trials failed, by label."""
    from ray import tune

    asha = sweep.scheduler.name == "asha"
    if study is None:
        todo = [t for t in trials if t.result is None and not (asha and t.stopped)]
        count = len(todo)
    else:
        study.catch_up()
        known = study.trials()
        todo = [known[number] for number in study.unfinished()]
        trials, count = list(known.values()), len(todo) + study.remaining
    if not count:
        return {}
    for trial in todo:  # a mark of another scheduler
        discard(trial.folder / "stopped.json")
    steps = max(r.training.steps for r in [base_recipe(sweep), *(t.recipe for t in trials)])
    tracked = [Tracked(t.label, t.folder, t.recipe.training.steps) for t in todo]
    if study is not None:
        tracked = [Tracked(f"trial {n}", folder, steps) for n, folder in study.folders()]
    make_job = _job_maker(sweep, out)
    if asha:
        # Not every report has the score that ASHA compares.
        os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    # A gang of workers reserves its own cores; its trial must not take any, or both would wait.
    alone = {"CPU": sweep.resources.cpus, "GPU": sweep.resources.gpus}
    needs = alone if sweep.workers == 1 else {"memory": 1}
    jobs = {"job": tune.grid_search([make_job(trial) for trial in todo])}
    tuner = tune.Tuner(
        tune.with_resources(ray_trial, needs),
        param_space=jobs if study is None else {},
        tune_config=tune.TuneConfig(
            search_alg=None if study is None else proposals(study, make_job),
            num_samples=1 if study is None else count,
            scheduler=halving(sweep, trials, steps) if asha else None,
            max_concurrent_trials=concurrent,
            reuse_actors=sweep.workers == 1,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=f"tune-{time.time_ns():x}",
            storage_path=place_of(out / "ray"),
            failure_config=tune.FailureConfig(max_failures=sweep.max_failures),
            verbose=0,
        ),
    )
    # Tune greets on stdout at any verbosity; that belongs to the table.
    with show_progress(tracked), redirect_stdout(io.StringIO()):
        grid = tuner.fit()
    bring(out / "trials", LEFT_THERE)
    return trial_errors(grid)


def check_in_process(sweep: Sweep) -> None:
    """Refuses what only a cluster can do.

    Raises:
        ValueError: naming what the sweep asks for.
    """
    asked = {
        "search": sweep.search is not None,
        "scheduler": sweep.scheduler.name != "all",
        "workers": sweep.workers > 1,
        "stall_s": sweep.stall_s is not None,
    }
    if any(asked.values()):
        keys = ", ".join(key for key, there in asked.items() if there)
        raise ValueError(f"--in-process runs listed trials to their end, without {keys}: use Ray")


def run_in_process(trials: Sequence[Trial], out: Path) -> dict[str, str]:
    """Runs the unfinished trials one after the other, without Ray; returns why trials failed."""
    errors = {}
    for trial in trials:
        if trial.result is not None:
            continue
        try:
            with show_progress([Tracked(trial.label, trial.folder, trial.recipe.training.steps)]):
                train_run(trial.recipe, trial.folder, out)
        except Exception as error:
            _keep_traceback(trial.folder)
            errors[trial.label] = last_line(error)
    return errors


def _keep_traceback(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / ERROR, traceback.format_exc().rstrip() + "\n")
    with suppress(OSError):  # that its store does not answer may be why
        publish(folder / ERROR)


def _job_maker(sweep: Sweep, out: Path) -> Callable[[Trial], dict[str, Any]]:
    """Makes of a trial what `ray_trial` is given."""

    def make(trial: Trial) -> dict[str, Any]:
        return {
            "label": trial.label,
            "recipe": trial.recipe.model_dump(mode="json", by_alias=True),
            "folder": place_of(trial.folder),
            "shared": place_of(out),
            "workers": sweep.workers,
            "stall_s": sweep.stall_s,
            "resources": sweep.resources.model_dump(),
        }

    return make


def trial_errors(grid: Any) -> dict[str, str]:
    """Why trials failed, by label: their process died, or Python raised."""
    errors = {}
    for result in grid:
        job = (result.config or {})["job"]
        label, left = job["label"], open_place(job["folder"], "driver") / ERROR
        if result.error is not None:
            # A process that ended itself has left why; Ray knows only that it is gone.
            reasons = left.read_text().splitlines() if left.is_file() else []
            errors[label] = reasons[-1] if reasons else last_line(result.error)
        elif "failed" in (result.metrics or {}):
            errors[label] = result.metrics["failed"]
    return errors


def ray_trial(config: dict[str, Any]) -> None:
    """What Ray Tune runs: the loop itself, or a gang of Ray Train workers around it."""
    from ray import tune

    job = config["job"]
    alone, recipe = job["workers"] == 1, parse_recipe(job["recipe"])
    folder, shared = (
        open_place(job[key], "worker" if alone else "driver") for key in ("folder", "shared")
    )
    quiet()
    discard(folder / ERROR)  # of an earlier try
    try:
        with ends_when_stalled(folder, job["stall_s"], elsewhere=not alone):
            if alone:
                from ray.util.metrics import Gauge

                train_run(recipe, folder, shared, gauged(tune.report, Gauge, run_name(folder)))
                forget(folder)
            else:
                from ray.tune.integration.ray_train import TuneReportCallback

                workers = Workers(job["workers"], **job["resources"])
                launch(recipe, folder, shared, workers, [TuneReportCallback()])
    except Exception as error:
        # What Python raises would be raised again; only a process that dies is worth a retry.
        _keep_traceback(folder)
        tune.report({"failed": last_line(error)})


def promote(sweep: Sweep, winner: Trial, out: Path, run: Run) -> Trial | None:
    """Trains the winner on as the sweep says; its model becomes `out/model`."""
    if sweep.promote is None:
        copy_model(winner.folder, out)
        return None
    label = f"{winner.label} promoted"
    promoted = Trial(label, promoted_recipe(sweep, winner, out), out / "promoted", label)
    if promoted.result is None:
        if sweep.promote.warm_start:
            warm_start(winner, promoted.folder)
        tracked = Tracked(promoted.label, promoted.folder, promoted.recipe.training.steps)
        with show_progress([tracked]):
            run(promoted.recipe, promoted.folder, out)
    copy_model(promoted.folder, out)
    return promoted


def copy_model(run: Path, out: Path) -> None:
    """Puts a run's model at `out/model`, in one step."""
    partial = out / ".model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(bring(run / "model"), partial)
    shutil.rmtree(out / "model", ignore_errors=True)
    partial.rename(out / "model")
    publish(out / "model")
