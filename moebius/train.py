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
from moebius.config import Recipe, parse
from moebius.config.secrets import without_secrets
from moebius.console import Tracked, guard, show_progress
from moebius.distill.memory import estimate_memory
from moebius.distill.run_folder import RunFolder
from moebius.distill.trainer import batch_arithmetic
from moebius.models.architectures import resolve
from moebius.models.complexity import measure_complexity
from moebius.models.denoiser import build
from moebius.recipes import read_recipe, teacher_folder, teacher_recipe

# --- on Ray ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workers:
    """How many workers a run takes, and what each of them takes."""

    count: int = 1
    cpus: float | None = None
    """`None` shares the cluster's cores among the workers."""
    gpus: float = 0


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
        RuntimeError: the run failed; the message is the worker's.
    """
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    workers = fit_workers(workers)
    batch_arithmetic(recipe, workers.count)
    job = {
        "recipe": recipe.model_dump(mode="json", by_alias=True),
        "folder": str(folder.absolute()),
        "shared": str(shared.absolute()),
    }
    trainer = TorchTrainer(
        ray_worker,
        train_loop_config=job,
        scaling_config=ScalingConfig(
            num_workers=workers.count,
            use_gpu=workers.gpus > 0,
            resources_per_worker={"CPU": workers.cpus, "GPU": workers.gpus},
        ),
        run_config=RunConfig(
            name=f"{folder.name}-{time.time_ns():x}",
            storage_path=str((folder / "ray").absolute()),
            callbacks=list(callbacks),
            failure_config=FailureConfig(max_failures=2, controller_failure_limit=0),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise RuntimeError(last_line(error)) from error
    result = RunFolder(folder).read_result(recipe.training.steps)
    assert result is not None, "a run that ended well left no result"
    return result


def ray_worker(job: Mapping[str, Any]) -> None:
    """What a Ray Train worker runs."""
    import ray.train

    recipe = parse_recipe(job["recipe"])
    quiet()
    train_run(recipe, Path(job["folder"]), Path(job["shared"]), ray.train.report)


def parse_recipe(data: Mapping[str, Any]) -> Recipe:
    """A recipe that travelled to a worker as a mapping."""
    return parse(Recipe, data, "recipe")


def fit_workers(workers: Workers) -> Workers:
    """Workers with their cores filled in, once the cluster is known to hold them.

    Ray waits in silence for what a cluster lacks, so this is asked before anything starts.
    """
    import ray

    total = ray.cluster_resources()
    cpus = workers.cpus or max(1, int(total.get("CPU", 1) // workers.count))
    for name, each in (("CPU", cpus), ("GPU", workers.gpus)):
        if each * workers.count > total.get(name, 0):
            raise ValueError(
                f"{workers.count} workers with {each:g} {name} each do not fit: the cluster has "
                f"{total.get(name, 0):g} {name}; use fewer workers or less for each"
            )
    return Workers(workers.count, cpus, workers.gpus)


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


def last_line(error: BaseException) -> str:
    """The last line of the innermost failure that Ray wrapped."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


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
    teacher: str | None = None
    """Teacher: model folder, released checkpoint or Hub name."""
    codec: str | None = None
    """Latent codec: `builtin`, a folder or a Hub name."""
    perceptual: str | None = None
    """E-LatentLPIPS weights file, or `random` (made-up, for demos)."""
    out: Path | None = None
    """Folder of the run; by default runs/<recipe>-<arch>."""
    workers: int = 1
    """Ray Train workers."""
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
        "codec": options.codec,
        "distill.perceptual_weights": options.perceptual,
        "teacher": None if options.teacher is None else {"path": options.teacher},
    }
    given = [f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None]
    recipe = read_recipe(options.recipe, [*given, *options.overrides])
    arch = resolve(recipe.arch, **recipe.model).name
    return recipe, options.out or Path("runs") / f"{Path(options.recipe).stem}-{arch}"


def missing_inputs(recipe: Recipe) -> list[str]:
    """Options that a recipe leaves open and that a run cannot do without."""
    perceptual = "perceptual" in recipe.distill.losses
    needed = {
        "--data (folder or manifest)": not recipe.data.source,
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
    if options.dry_run:
        describe(recipe, options.workers, Console())
        if missing:
            console.print(f"still to be named: {'; '.join(missing)}")
        return
    if missing:
        raise ValueError(f"recipe {options.recipe!r} needs {'; '.join(missing)}")
    if options.recipe == "builtin":
        console.print("[dim]built-in recipe: tiny widths, built-in photographs, this machine[/]")
    for what in made_up(recipe):
        console.print(f"[yellow]made-up {what}: figures are for demonstration only[/]")
    workers = Workers(options.workers, options.cpus_per_worker, options.gpus_per_worker)
    start_ray()
    shared = folder.parent
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
        f"model in {folder / 'model'}"
    )


if __name__ == "__main__":
    guard(lambda: main(tyro.cli(Options)))
