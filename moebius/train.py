"""Door: train a denoiser, on this machine or a cluster (`python -m moebius.train`)."""

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import tyro
import yaml
from rich.console import Console
from rich.table import Table

from moebius.assembly import made_up, train_run
from moebius.cluster import Workers, check_inputs, check_shared, fit_workers, parse_workers
from moebius.config import Recipe, parse
from moebius.config.secrets import without_secrets
from moebius.console import Tracked, guard, show_progress
from moebius.data.copies import bring, forget, open_place, place_of, shown
from moebius.distill.memory import estimate_memory
from moebius.distill.run_folder import RunFolder
from moebius.distill.tracking.identity import run_name
from moebius.distill.trainer import batch_arithmetic
from moebius.models.architectures import resolve
from moebius.models.complexity import measure_complexity
from moebius.models.denoiser import build
from moebius.operations.gauges import gauged
from moebius.recipes import read_recipe, teacher_folder, teacher_recipe
from moebius.restarts import fit
from moebius.sources import check_sources
from moebius.storage import LEFT_THERE, run_folder

# --- on Ray ---------------------------------------------------------------------------------


def launch(
    recipe: Recipe, folder: Path, shared: Path, workers: Workers, callbacks: Sequence[Any] = ()
) -> dict[str, Any]:
    """Runs `train_run` on Ray Train workers of the running cluster.

    Args:
        recipe: the run, complete.
        folder: where it lives.
        shared: where runs share a trained teacher and cached latents.
        workers: how many, and what each takes.
        callbacks: Ray Train's, told of every report.

    Raises:
        ValueError: the cluster has less than the workers need.
        RuntimeError: the run failed, and the message is the worker's; or it was lost too often.
    """
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    batch_arithmetic(recipe, workers.fewest)
    batch_arithmetic(recipe, workers.count)
    elastic = workers.fewest < workers.count
    job = {
        "recipe": recipe.model_dump(mode="json", by_alias=True),
        "elastic": elastic,
        "folder": place_of(folder),
        "shared": place_of(shared),
    }

    def make_trainer() -> TorchTrainer:
        fitted = fit_workers(workers)
        return TorchTrainer(
            ray_worker,
            train_loop_config=job,
            scaling_config=ScalingConfig(
                num_workers=(fitted.fewest, fitted.count) if elastic else fitted.count,
                elastic_resize_monitor_interval_s=fitted.look_every,
                use_gpu=fitted.gpus > 0,
                resources_per_worker={"CPU": fitted.cpus, "GPU": fitted.gpus},
            ),
            run_config=RunConfig(
                name=f"{folder.name}-{time.time_ns():x}",
                storage_path=place_of(folder / "ray"),
                callbacks=list(callbacks),
                # Ray learns late that a node is gone, and an elastic run's workers are tried there.
                failure_config=FailureConfig(
                    max_failures=0, controller_failure_limit=-1 if elastic else 0
                ),
                logging_config=LoggingConfig(log_level="ERROR"),
            ),
        )

    fit(make_trainer, RunFolder(folder).checkpoints)
    result = RunFolder(bring(folder, LEFT_THERE)).read_result(recipe.training.steps)
    assert result is not None, "a run that ended well left no result"
    return result


def ray_worker(job: Mapping[str, Any]) -> None:
    """What a Ray Train worker runs."""
    import ray.train
    from ray.util.metrics import Gauge

    recipe, folder = parse_recipe(job["recipe"]), open_place(job["folder"], "worker")
    quiet()
    # A report waits for every worker, and those of an elastic run that are spare make none.
    report = _unheard if job["elastic"] else ray.train.report
    if ray.train.get_context().get_world_rank() == 0:
        report = gauged(report, Gauge, run_name(folder))
    train_run(recipe, folder, open_place(job["shared"], "worker"), report)
    forget(folder)


def _unheard(metrics: Mapping[str, float]) -> None:
    """Reports nothing."""


def parse_recipe(data: Mapping[str, Any]) -> Recipe:
    """A recipe that travelled to a worker as a mapping."""
    return parse(Recipe, data, "recipe")


def start_ray() -> None:
    """Connects to the cluster of RAY_ADDRESS, or starts a quiet one on this machine."""
    if find_spec("ray") is None:
        raise ValueError("this needs Ray: pip install 'moebius-inpainting[cluster]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if not ray.is_initialized():
        ray.init(
            address=os.environ.get("RAY_ADDRESS") or "local",
            log_to_driver=False,
            logging_level="ERROR",
        )


def start_checked(recipes: Sequence[Recipe]) -> None:
    """`start_ray`, once it is known that what recipes name is here, or on a node that is joined.

    Raises:
        ValueError: naming the key, and what may stand there.
    """
    if os.environ.get("RAY_ADDRESS"):
        start_ray()
        check_inputs(recipes)
        return
    for recipe in recipes:
        check_sources(recipe)
    start_ray()


def quiet() -> None:
    """Keeps third-party chatter out of a worker's log."""
    logging.getLogger("diffusers").setLevel(logging.ERROR)


# --- the command ----------------------------------------------------------------------------


@dataclass
class Options:
    """Train a denoiser by a recipe; the same command again resumes it."""

    overrides: tyro.conf.Positional[tuple[str, ...]] = ()
    """Dotted keys of the recipe, such as distill.losses=[fine,task] or training.steps=2000."""
    arch: str | None = None
    """Architecture: a name (see `python -m moebius.profile --arch all`) or a YAML file."""
    recipe: str = "builtin"
    """`builtin` (this machine, built-in photographs), `paper`, or a YAML file."""
    data: str | None = None
    """Folder of images or JSONL manifest."""
    latents: str | None = None
    """Folder or URL that `python -m moebius.encode` filled, in place of --data."""
    teacher: str | None = None
    """Teacher: model folder, released checkpoint or Hub name."""
    codec: str | None = None
    """Latent codec: `builtin`, a folder or a Hub name."""
    perceptual: str | None = None
    """E-LatentLPIPS weights file, or `random` (made-up, for demos)."""
    out: str | Path | None = None
    """Folder or s3:// URL; by default <recipe>-<arch> in $MOEBIUS_STORAGE, or in runs."""
    workers: str = "1"
    """Ray Train workers: a number, or LEAST:MOST to go on with fewer where nodes are lost."""
    cpus_per_worker: float | None = None
    """Cores of each worker; by default the cluster's, shared out."""
    gpus_per_worker: float = 0
    """GPUs of each worker."""
    dry_run: bool = False
    """Print configuration, counts and memory, and start nothing."""


def resolve_options(options: Options) -> tuple[Recipe, Path]:
    """The recipe with the command line's values, and the run's folder."""
    named = {
        "arch": options.arch,
        "data.source": options.data,
        "data.latents": options.latents,
        "data.cache": None if options.latents is None else 0,
        "codec": options.codec,
        "distill.perceptual_weights": options.perceptual,
        "teacher": None if options.teacher is None else {"path": options.teacher},
    }
    given = [f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None]
    recipe = read_recipe(options.recipe, [*given, *options.overrides])
    arch = resolve(recipe.arch, **recipe.model).name
    return recipe, run_folder(options.out, f"{Path(options.recipe).stem}-{arch}")


def missing_inputs(recipe: Recipe) -> list[str]:
    """Options that a recipe leaves open and that a run cannot do without."""
    perceptual = "perceptual" in recipe.distill.losses
    needed = {
        "--data (folder or manifest) or --latents": not (recipe.data.source or recipe.data.latents),
        "--teacher (model folder, released checkpoint or Hub name)": (
            recipe.needs_teacher and recipe.teacher is None
        ),
        "--codec (folder, Hub name or builtin)": not recipe.codec,
        "--perceptual (E-LatentLPIPS weights file, or random)": (
            perceptual and recipe.distill.perceptual_weights is None
        ),
    }
    return [name for name, absent in needed.items() if absent]


def describe(recipe: Recipe, workers: int, console: Console) -> None:
    """Prints the resolved recipe, counts, batch arithmetic and memory."""
    shown = without_secrets(recipe.model_dump(mode="json", by_alias=True))
    console.print(yaml.safe_dump(shown, sort_keys=False))
    micro, parts = batch_arithmetic(recipe, workers)
    with torch.device("meta"):
        student = build(recipe.arch, **recipe.model)
        theirs = None
        if recipe.needs_teacher and recipe.teacher is not None:
            own = teacher_recipe(recipe)
            model = {} if own is None else own.model
            theirs = build(recipe.teacher.arch, **model)
    table = Table("what", "value", show_header=False)
    roles = [("student", student)] + ([("teacher", theirs)] if theirs is not None else [])
    for role, model_ in roles:
        counted = measure_complexity(model_.architecture, recipe.data.size // 8)
        table.add_row(
            role,
            f"{counted.arch}: {counted.params:,} parameters, {counted.gmacs:.2f} GMACs "
            f"at {recipe.data.size} px",
        )
    table.add_row(
        "batch",
        f"{recipe.training.global_batch} = {workers} workers x {parts} micro-batches x {micro}",
    )
    samples = recipe.training.steps * recipe.training.global_batch
    table.add_row("length", f"{recipe.training.steps:,} steps, {samples:,} samples")
    memory = estimate_memory(recipe, student, theirs, micro)
    parts_ = ("weights", "optimizer", "teacher", "activations", "total")
    sizes = ", ".join(f"{part} {getattr(memory, part) / 2**30:.2f}" for part in parts_)
    table.add_row("memory a worker", f"{sizes} GiB (estimate)")
    console.print(table)


def main(options: Options) -> None:
    """Resolves the command line, then trains the teacher if need be, and the student."""
    console = Console(stderr=True)
    recipe, folder = resolve_options(options)
    missing = missing_inputs(recipe)
    least, most = parse_workers(options.workers)
    batch_arithmetic(recipe, least)
    batch_arithmetic(recipe, most)
    if options.dry_run:
        describe(recipe, most, Console())
        if missing:
            console.print(f"still to be named: {'; '.join(missing)}")
        return
    if missing:
        raise ValueError(f"recipe {options.recipe!r} needs {'; '.join(missing)}")
    if options.recipe == "builtin":
        console.print("[dim]built-in recipe: tiny widths, built-in photographs, this machine[/]")
    for what in made_up(recipe):
        console.print(f"[yellow]made-up {what}: figures are for demonstration only[/]")
    workers = Workers(most, options.cpus_per_worker, options.gpus_per_worker, least)
    start_checked([recipe])
    shared = folder.parent
    check_shared(shared)
    teacher = teacher_recipe(recipe)
    if teacher is not None:
        place = teacher_folder(recipe, shared)
        with show_progress([Tracked("teacher", place, teacher.training.steps)]):
            launch(teacher, place, shared, workers)
    with show_progress([Tracked("student", folder, recipe.training.steps)]):
        result = launch(recipe, folder, shared, workers)
    console.print(
        f"{result['arch']}: PSNR in the hole {result['psnr_hole']:.2f} dB, "
        f"SSIM {result['ssim_hole']:.3f} over {recipe.validation.pairs} pairs; "
        f"model in {shown(folder / 'model')}"
    )


if __name__ == "__main__":
    guard(lambda: main(tyro.cli(Options)))
