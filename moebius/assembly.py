"""A recipe's run, put together from the packages: data, codec, teacher, student, scores.

It runs in whatever process it is called in, alone or as one worker of a group; it knows no Ray.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moebius.config import Recipe
from moebius.data.copies import bring, here, publish
from moebius.data.latents import cache_latents
from moebius.data.manifest import read_records
from moebius.data.sample_spec import sample_spec
from moebius.data.samples import InpaintingSamples, fixed_pairs
from moebius.data.shards.dataset import StoredLatents
from moebius.data.shards.index import check_fit
from moebius.distill.meter import Metrics
from moebius.distill.occupation import occupied
from moebius.distill.perceptual import ELatentLPIPS
from moebius.distill.run_folder import RunFolder
from moebius.distill.trainer import Trainer, usable_workers
from moebius.distill.world import World
from moebius.evaluation.validation import Validation, to_levels
from moebius.inference.pipeline import InpaintPipeline
from moebius.models.codec import LatentCodec, load_codec
from moebius.models.denoiser import Denoiser, build
from moebius.models.loading import load_denoiser
from moebius.models.released import load_checked
from moebius.models.schedule import build_scheduler
from moebius.recipes import load_plugins, teacher_folder

Report = Callable[[Metrics], None]


def train_run(
    recipe: Recipe, folder: Path, shared: Path, report: Report = lambda metrics: None
) -> dict[str, Any]:
    """Trains by a recipe in this process (one of the world's workers) and returns its result.

    A finished run returns its stored result at once; an unfinished one resumes. Where the global
    batch does not divide among all workers, the last ones are spare and return at once, with none.

    Args:
        recipe: the run, complete.
        folder: where it lives, on storage that every worker sees; or this node's copy of it.
        shared: where runs share a trained teacher and cached latents; or a copy.
        report: told the metrics of every log interval.
    """
    load_plugins(recipe.plugins)
    world = World.current(partial(usable_workers, recipe))
    if world.spare:
        return {}
    run = RunFolder(bring(folder))
    world.barrier()  # workers of one node may share a copy
    finished = run.read_result(recipe.training.steps)
    world.barrier()
    if finished is not None:
        return finished
    if world.rank == 0:
        run.prepare(recipe)
        run.publish()
    world.barrier()
    with occupied(folder) if world.rank == 0 else nullcontext():
        return _train(recipe, run, shared, world, report)


def _train(
    recipe: Recipe, run: RunFolder, shared: Path, world: World, report: Report
) -> dict[str, Any]:
    codec = load_codec(recipe.codec, device=world.device)
    denoiser = make_student(recipe)
    teacher = load_teacher(recipe, shared)
    scorer = None
    if world.rank == 0:
        scorer = Scorer(make_validation(recipe, codec), recipe, run, teacher)
    trainer = Trainer(
        recipe,
        denoiser,
        teacher,
        make_dataset(recipe, codec, shared, world),
        codec,
        make_metric(recipe),
        run,
        world,
        scorer,
        report,
    )
    metrics = trainer.run()
    result: dict[str, Any] = {
        **metrics,
        "arch": denoiser.architecture.name,
        "made_up": made_up(recipe),
    }
    if scorer is not None:
        with trainer.averaged() as averaged:
            pipeline = InpaintPipeline(
                averaged,
                codec.vae,
                build_scheduler(),
                guidance_scale=recipe.validation.guidance,
                noise_offset=recipe.training.noise_offset,
                provenance=provenance(recipe),
            )
            pipeline.save_pretrained(run.path / "model")
            # A run that was killed after its last step has not scored in this process.
            shown = scorer.results
            if shown is None:
                shown = scorer.validation.inpaint(averaged, scorer.shown)
        np.save(run.path / "pictures.npy", to_levels(shown[: scorer.shown]))
        run.write_result(result)
        run.publish()
    world.barrier()
    return result


class Scorer:
    """Scores the student during training and draws its sample pictures."""

    def __init__(
        self, validation: Validation, recipe: Recipe, run: RunFolder, teacher: Denoiser | None
    ) -> None:
        self.validation, self.run, self.shown = validation, run, recipe.validation.pictures
        self.teacher = teacher
        self._taught: Tensor | None = None
        self.results: Tensor | None = None
        """What the last call inpainted."""

    def __call__(self, denoiser: Denoiser, step: int) -> Metrics:
        """`psnr_hole` and `ssim_hole`; writes samples/step_*.png."""
        self.results = self.validation.inpaint(denoiser)
        if self.shown:
            columns = [("student", self.results[: self.shown])]
            if self.teacher is not None:
                columns.insert(0, ("teacher", self._teacher_results()))
            self.validation.picture(columns, self.run.samples / f"step_{step:06d}.png")
        return self.validation.score(self.results)

    def _teacher_results(self) -> Tensor:
        # The teacher does not change, its pictures neither.
        if self._taught is None:
            assert self.teacher is not None
            self._taught = self.validation.inpaint(self.teacher, self.shown)
        return self._taught


def make_student(recipe: Recipe) -> Denoiser:
    """The denoiser to train: initialised from the recipe's seed, or from weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        student = build(recipe.arch, **recipe.model)
    if recipe.init_from is not None:
        weights = load_denoiser(here(recipe.init_from), recipe.arch, **recipe.model).state_dict()
        load_checked(student, weights, f"init_from {recipe.init_from}")
    return student


def make_samples(recipe: Recipe) -> InpaintingSamples:
    """The stream of training samples."""
    return InpaintingSamples(
        read_records(recipe.data.source),
        sample_spec(recipe.data, recipe.seed),
        recipe.data.max_unreadable,
        recipe.data.timeout_s,
    )


def make_dataset(recipe: Recipe, codec: LatentCodec, shared: Path, world: World) -> Any:
    """Pixel samples; latents encoded once and kept under `shared/latents`; or a stored set."""
    if recipe.data.latents:
        return stored_latents(recipe, codec)
    samples = make_samples(recipe)
    if not recipe.data.cache:
        return samples
    for turn in (True, False):
        # Rank 0 encodes, the others read what it wrote.
        if turn == (world.rank == 0):
            latents = cache_latents(
                samples, codec, recipe.data.cache, bring(shared / "latents", keep=True)
            )
            publish(shared / "latents")
        world.barrier()
    return latents


def stored_latents(recipe: Recipe, codec: LatentCodec) -> StoredLatents:
    """The set of latents that a recipe names, once it is known to fit.

    Raises:
        ValueError: it is unfinished, or was made by another codec or with other draws.
    """
    assert recipe.data.latents is not None
    stored = StoredLatents(recipe.data.latents, recipe.seed, 1e9 * recipe.data.latents_cache)
    check_fit(stored.index, sample_spec(recipe.data, recipe.seed), codec, stored.place)
    return stored


def make_validation(recipe: Recipe, codec: LatentCodec) -> Validation:
    """The fixed pairs that the recipe is scored on."""
    v = recipe.validation
    pairs = fixed_pairs(
        read_records(v.source),
        sample_spec(recipe.data, recipe.seed),
        v.pairs,
        v.seed,
        recipe.data.timeout_s,
    )
    offset = recipe.training.noise_offset
    return Validation(pairs, codec, v.steps, v.guidance, v.seed, offset)


def make_metric(recipe: Recipe) -> ELatentLPIPS | None:
    """E-LatentLPIPS, where the perceptual loss is on."""
    if "perceptual" not in recipe.distill.losses:
        return None
    return ELatentLPIPS(recipe.distill.perceptual_weights)


def made_up(recipe: Recipe) -> list[str]:
    """What of a run rests on made-up weights; every output names it."""
    perceptual = "perceptual" in recipe.distill.losses
    random = perceptual and recipe.distill.perceptual_weights == "random"
    return ["E-LatentLPIPS weights"] if random else []


def provenance(recipe: Recipe) -> str:
    """Where a trained model comes from, for its card."""
    source = f"latents {recipe.data.latents}" if recipe.data.latents else recipe.data.source
    parts = [f"trained on {source}", f"codec {recipe.codec}"]
    return "; ".join([*parts, *(f"made up: {what}" for what in made_up(recipe))])


def load_teacher(recipe: Recipe, shared: Path) -> Denoiser | None:
    """The teacher that the losses need, in eval mode."""
    if not recipe.needs_teacher:
        return None
    if recipe.teacher is None:
        raise ValueError("the coarse and fine losses need a teacher: name one with --teacher")
    if recipe.teacher.path is not None:
        return load_denoiser(here(recipe.teacher.path), recipe.teacher.arch)
    return load_denoiser(bring(teacher_folder(recipe, shared) / "model"))
