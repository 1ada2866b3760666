"""The training loop: one for a single process, for DDP, and inside a sweep's trial."""

import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from moebius.config import Recipe
from moebius.data.copies import place_of
from moebius.data.latents import LatentSample, Numbers, encode_pixels
from moebius.distill.batch import Noising, NoisyBatch
from moebius.distill.checkpoints import NotSaved, newest_checkpoint, write_checkpoint
from moebius.distill.meter import Meter, Metrics
from moebius.distill.optimizer import build_optimizer, learning_rate
from moebius.distill.perceptual import ELatentLPIPS
from moebius.distill.run_folder import RunFolder
from moebius.distill.step import DistillationStep, FrozenTeacher, StepLosses, Student
from moebius.distill.taps import check_teacher, join_taps
from moebius.distill.tracking import Track, tracked
from moebius.distill.world import World
from moebius.models.codec import LatentCodec
from moebius.models.denoiser import Denoiser
from moebius.models.released import read_state

logger = logging.getLogger(__name__)


class NonFiniteError(FloatingPointError):
    """A loss or gradient that is not finite: the step, the term and the last good checkpoint."""


class Trainer:
    """Trains a denoiser by a recipe, resuming from the newest whole checkpoint of its folder.

    Everything that is drawn depends on (seed, sample number), so a run that stops and goes on
    takes the same steps as one that does not, and W workers the same as one.

    Args:
        recipe: the run.
        denoiser: the student, freshly built or initialised.
        teacher: needed by the coarse and fine losses.
        dataset: of pixel samples or of latents; sample n must always be the same.
        codec: encodes pixel samples; not used for cached latents.
        metric: E-LatentLPIPS, needed by the perceptual loss.
        folder: where the run lives, on storage that every worker sees.
        world: this process among the workers.
        evaluate: scores the student (EMA weights), on rank 0.
        report: told the metrics of every log interval.
    """

    def __init__(
        self,
        recipe: Recipe,
        denoiser: Denoiser,
        teacher: Denoiser | None,
        dataset: Dataset,
        codec: LatentCodec,
        metric: ELatentLPIPS | None,
        folder: RunFolder,
        world: World,
        evaluate: Callable[[Denoiser, int], Metrics] | None = None,
        report: Callable[[Metrics], None] = lambda metrics: None,
    ) -> None:
        self.recipe, self.folder, self.world = recipe, folder, world
        self.dataset, self.codec = dataset, codec
        self.evaluate, self.report = evaluate, report
        training, device = recipe.training, world.device
        self.micro_batch, self.accumulate = batch_arithmetic(recipe, world.size)
        tap, frozen, adapter = denoiser.coarse_tap, None, None
        if recipe.needs_teacher:
            if teacher is None:
                raise ValueError("the coarse and fine losses need a teacher; name one")
            check_teacher(denoiser, teacher)
            theirs = teacher.coarse_tap
            if "coarse" in recipe.distill.losses:
                tap, theirs, adapter = join_taps(
                    denoiser,
                    teacher,
                    recipe.data.size // codec.factor,
                    recipe.distill.student_tap,
                    recipe.distill.teacher_tap,
                    recipe.distill.adapter,
                )
            frozen = FrozenTeacher(teacher.to(device), theirs)  # type: ignore[arg-type]
        if training.activation_checkpointing:
            denoiser.enable_gradient_checkpointing()
        self.student = Student(denoiser, tap, adapter).to(device)
        if training.batch_norm == "sync":
            if device.type != "cuda":
                raise ValueError("training.batch_norm=sync needs GPUs; choose train or frozen")
            self.student = nn.SyncBatchNorm.convert_sync_batchnorm(self.student, world.group)
        only_coarse = recipe.distill.losses == ["coarse"]
        self.wrapped = world.wrap(
            self.student, unused=only_coarse or recipe.distill.student_tap is not None
        )
        self.optimizer = build_optimizer(
            *[part for part in (denoiser, adapter) if part is not None],
            name=recipe.optimizer.name,
            lr=recipe.optimizer.lr,
            weight_decay=recipe.optimizer.weight_decay,
            world=world,
        )
        decay = recipe.optimizer.ema
        self.ema = None if decay is None else EMAModel(denoiser.parameters(), decay=decay)
        if self.ema is not None:
            self.ema.to(device)
        self.distill = DistillationStep(
            self.wrapped,
            denoiser,
            frozen,
            recipe.distill,
            None if metric is None else metric.to(device),
            world.mean,
            training.precision == "bf16",
        )
        self.noising = Noising(
            recipe.seed,
            training.timesteps,
            training.noise_offset,
            denoiser.architecture.context_length,
            (training.timestep_logit_mean, training.timestep_logit_std),
        )
        self.step = 0

    @property
    def denoiser(self) -> Denoiser:
        """The student's denoiser, as trained (not averaged)."""
        return self.student.denoiser

    def run(self) -> Metrics:
        """Trains to the recipe's last step; returns the last metrics.

        Raises:
            NonFiniteError: a loss or gradient is not finite.
        """
        self._resume()
        with tracked(self.recipe, self.folder, self.world) as track:
            self._train(track)
        self.world.barrier()
        # From the log: a run that was killed after its last step takes none now.
        return self.folder.read_metrics()[-1]

    def _train(self, track: Track) -> None:
        training = self.recipe.training
        meter, batches = Meter(), self.batches()
        while self.step < training.steps:
            meter.add(self.take_step(batches), training.global_batch)
            if self._due(training.log_every) or self._scoring:
                metrics = {"step": self.step, **meter.read(self.world)}
                if self._scoring:
                    metrics |= self._score()
                if self.world.rank == 0:
                    self.folder.log(metrics)
                    track(metrics)
                    self.folder.publish(now=False)
                self.report(metrics)
            if self._due(training.checkpoint_every) or self.step == training.steps:
                self._save()

    def averaged(self) -> "AveragedWeights":
        """Context in which the denoiser holds its EMA weights, in eval mode."""
        return AveragedWeights(self.denoiser, self.ema)

    def take_step(self, batches: Iterator[NoisyBatch]) -> Metrics:
        """One update from a global batch; returns what is worth logging, still on its device."""
        self._train_mode()
        self.optimizer.zero_grad(set_to_none=True)
        measured: dict[str, list[Tensor]] = {}
        for part in range(self.accumulate):
            last = part == self.accumulate - 1
            unsynced = nullcontext() if last or self.world.size == 1 else self.wrapped.no_sync()  # type: ignore[operator]
            with unsynced:
                losses = self.distill(next(batches))
                self._check_losses(losses)
                (losses.balanced.total / self.accumulate).backward()
            for key, value in _named(losses).items():
                measured.setdefault(key, []).append(value.detach())
        clip = self.recipe.optimizer.clip_norm
        norm = nn.utils.clip_grad_norm_(self.student.parameters(), clip or math.inf)
        if not norm.isfinite():
            raise self._non_finite("the gradient norm", norm)
        rate = self._set_learning_rate()
        self.optimizer.step()
        if self.ema is not None:
            self.ema.step(self.denoiser.parameters())
        self.step += 1
        means = {key: torch.stack(values).mean() for key, values in measured.items()}
        return {**means, "grad_norm": norm, "learning_rate": torch.tensor(rate)}  # type: ignore[dict-item]

    def _check_losses(self, losses: StepLosses) -> None:
        for name, term in losses.terms.items():
            if not term.isfinite():
                raise self._non_finite(f"the {name} loss", term)
        for name, weight in losses.balanced.weights.items():
            if not weight.isfinite():
                raise self._non_finite(f"the weight of the {name} loss", weight)

    def _non_finite(self, what: str, value: Tensor) -> NonFiniteError:
        good = newest_checkpoint(self.folder.checkpoints) or "none"
        return NonFiniteError(
            f"step {self.step + 1}: {what} is {value.item()}; last good checkpoint: {good}"
        )

    def _train_mode(self) -> None:
        self.student.train()
        if self.recipe.training.batch_norm == "frozen":
            for module in self.student.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _set_learning_rate(self) -> float:
        o = self.recipe.optimizer
        decay = self.recipe.training.steps if o.linear_decay else None
        rate = learning_rate(self.step, o.lr, o.warmup, o.milestones, o.gamma, decay)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def batches(self) -> Iterator[NoisyBatch]:
        """Noisy micro-batches from the current step on."""
        training, world = self.recipe.training, self.world
        numbers = Numbers(
            self.step,
            training.steps,
            training.global_batch,
            self.micro_batch,
            world.rank,
            world.size,
        )
        loaders = self.recipe.data.workers
        # Shards in an object store are read by processes that do not start as forks.
        start = getattr(self.dataset, "start_method", None) if loaders else None
        loader: DataLoader = DataLoader(
            self.dataset,
            batch_sampler=numbers,
            num_workers=loaders,
            multiprocessing_context=start,
        )
        for batch_numbers, batch in zip(numbers, loader, strict=True):
            yield self.noising(self._latents(batch), batch_numbers, world.device)

    def _latents(self, batch: Any) -> LatentSample:
        if "image" not in batch:
            return batch
        image, mask, category = (
            batch[key].to(self.world.device) for key in ("image", "mask", "category")
        )
        return encode_pixels(self.codec, image, mask, category)

    def _due(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0

    @property
    def _scoring(self) -> bool:
        return self._due(self.recipe.validation.every) or self.step == self.recipe.training.steps

    def _score(self) -> Metrics:
        """Rank 0 scores, the others wait: a long score must not look like a hung worker."""
        scores = Metrics()
        if self.evaluate is not None and self.world.rank == 0:
            with self.averaged() as denoiser:
                scores = self.evaluate(denoiser, self.step)
        self.world.barrier()
        return scores

    def _save(self) -> None:
        """Rank 0 writes what a step depends on; DDP keeps the others equal to it."""
        if self.world.rank:
            return
        shadow = [] if self.ema is None else self.ema.shadow_params
        names = [name for name, _ in self.denoiser.named_parameters()]
        ema = dict(zip(names, shadow, strict=True)) if shadow else {}
        state = {
            "optimizer": self.optimizer.state_dict(),
            "ema_steps": 0 if self.ema is None else self.ema.optimization_step,
            "torch_rng": torch.get_rng_state(),
        }
        summary = {"step": self.step, "samples": self.step * self.recipe.training.global_batch}
        writers: dict[str, Callable[[Path], Any]] = {
            "student.safetensors": lambda path: save_file(
                _contiguous(self.student.state_dict()), path
            ),
            "ema.safetensors": lambda path: save_file(_contiguous(ema), path),
            "optimizer.pt": lambda path: torch.save(state, path),
            "state.json": lambda path: path.write_text(json.dumps(summary)),
        }
        keep = self.recipe.training.keep_checkpoints
        saved = write_checkpoint(self.folder.checkpoints, self.step, writers, keep)
        try:
            self.folder.publish()
        except OSError as error:
            raise NotSaved(
                f"{place_of(saved)} cannot be written ({error}); it is whole in {saved} on this "
                "node, and the same command goes on from the one before"
            ) from error

    def _resume(self) -> None:
        found = newest_checkpoint(self.folder.checkpoints)
        if found is not None:
            self._load(found)
        if self.world.rank == 0:
            self.folder.rewind(self.step)

    def _load(self, found: Path) -> None:
        device = str(self.world.device)
        self.student.load_state_dict(load_file(found / "student.safetensors", device=device))
        state = read_state(found / "optimizer.pt")
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            shadow = load_file(found / "ema.safetensors", device=device)
            for name, own in zip(
                (name for name, _ in self.denoiser.named_parameters()),
                self.ema.shadow_params,
                strict=True,
            ):
                own.copy_(shadow[name])
            self.ema.optimization_step = state["ema_steps"]
        torch.set_rng_state(state["torch_rng"])
        self.step = json.loads((found / "state.json").read_text())["step"]
        logger.info("resumed %s at step %d", self.folder.path, self.step)


class AveragedWeights:
    """Swaps EMA weights into a denoiser for the time of a `with` block."""

    def __init__(self, denoiser: Denoiser, ema: EMAModel | None) -> None:
        self.denoiser, self.ema = denoiser, ema

    def __enter__(self) -> Denoiser:
        if self.ema is not None:
            self.ema.store(self.denoiser.parameters())
            self.ema.copy_to(self.denoiser.parameters())
        return self.denoiser.eval()

    def __exit__(self, *error: object) -> None:
        if self.ema is not None:
            self.ema.restore(self.denoiser.parameters())


def batch_arithmetic(recipe: Recipe, workers: int) -> tuple[int, int]:
    """Samples a worker holds at once, and how many such micro-batches it accumulates.

    Raises:
        ValueError: the global batch does not divide.
    """
    total = recipe.training.global_batch
    if total % workers:
        raise ValueError(f"training.global_batch {total} does not divide among {workers} workers")
    share = total // workers
    micro = min(recipe.training.micro_batch or share, share)
    if share % micro:
        raise ValueError(
            f"a worker's {share} samples do not divide into micro-batches of {micro}; "
            "change training.micro_batch or the number of workers"
        )
    return micro, share // micro


def usable_workers(recipe: Recipe, there: int) -> int:
    """The most of the workers that are there among whom the global batch divides."""
    for count in range(there, 1, -1):
        try:
            batch_arithmetic(recipe, count)
        except ValueError:
            continue
        return count
    return 1  # a recipe's batch is a multiple of its micro-batch


def _named(losses: StepLosses) -> dict[str, Tensor]:
    groups = {
        "loss": {**losses.terms, "total": losses.balanced.total},
        "weight": losses.balanced.weights,
        "norm": losses.balanced.norms,
    }
    return {f"{group}/{key}": v for group, values in groups.items() for key, v in values.items()}


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.contiguous() for key, value in tensors.items()}
