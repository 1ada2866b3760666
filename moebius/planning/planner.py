"""Costs of a sweep's runs: steps, FLOPs, time, memory and disk; every figure is an estimate."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moebius.config import Recipe
from moebius.distill.cost import (
    NOTHING,
    Cost,
    checkpoint_bytes,
    encoder_peak_bytes,
    encoding_cost,
    inpainting_cost,
    latents_bytes,
    model_bytes,
    sample_cost,
    update_cost,
)
from moebius.distill.memory import MemoryEstimate, estimate_memory
from moebius.distill.trainer import batch_arithmetic
from moebius.planning.machines import Machine, Pace, measure_pace
from moebius.planning.networks import Networks
from moebius.recipes import teacher_folder, teacher_recipe

IRRELEVANT_FOR_PACE: dict[str, Any] = {
    "seed": True,
    "init_from": True,
    "validation": True,
    "training": {"steps", "log_every", "checkpoint_every", "keep_checkpoints"},
    "optimizer": {"lr", "weight_decay", "warmup", "milestones", "gamma", "linear_decay"},
}
"""What a recipe may differ in and a step takes as long."""


@dataclass(frozen=True)
class Scoring:
    """Pictures that every trial and the promotion are scored on after training."""

    images: int
    size: int = 512
    steps: int = 20
    guidance: float = 2.5


@dataclass(frozen=True)
class PlannedRun:
    """One line of a plan: estimates."""

    label: str
    arch: str
    steps: int
    """Steps still to take."""
    samples: int
    cost: Cost
    seconds: float
    """From start to end."""
    devices: int
    memory: float
    """Bytes that a worker needs."""
    disk: float
    """Bytes that stay, at most."""

    @property
    def device_hours(self) -> float:
        """Hours of one device."""
        return self.seconds * self.devices / 3600


@dataclass(frozen=True)
class Plan:
    """What a sweep costs; every figure is an estimate."""

    machine: Machine
    before: list[PlannedRun]
    """Latents to cache and teachers to train, one after the other."""
    trials: list[PlannedRun]
    promotion: PlannedRun | None
    concurrent: int
    """Trials at once."""
    notes: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[PlannedRun]:
        """Every line, in the order of time."""
        return [*self.before, *self.trials, *([self.promotion] if self.promotion else [])]

    @property
    def device_hours(self) -> float:
        """Hours of one device, all runs together."""
        return sum(run.device_hours for run in self.runs)

    @property
    def seconds(self) -> float:
        """From start to end: a trial starts where one ends."""
        slots = [0.0] * min(self.concurrent, max(len(self.trials), 1))
        for trial in self.trials:
            heapq.heapreplace(slots, slots[0] + trial.seconds)
        alone = [*self.before, *([self.promotion] if self.promotion else [])]
        return max(slots) + sum(run.seconds for run in alone)

    @property
    def cost(self) -> Cost:
        """FLOPs of all runs together."""
        return sum((run.cost for run in self.runs), NOTHING)

    @property
    def disk(self) -> float:
        """Bytes of all runs together."""
        return sum(run.disk for run in self.runs)


class Planner:
    """Plans run after run; what is the same in many trials is counted and measured once."""

    def __init__(self, machine: Machine, scoring: Scoring | None, limit: float) -> None:
        self.machine, self.scoring, self.limit = machine, scoring, limit
        self.networks = Networks()
        self._paces: dict[str, Pace] = {}
        self._memories: dict[tuple[str, int], MemoryEstimate] = {}

    def teachers(self, recipes: Sequence[Recipe]) -> list[Recipe]:
        """The teachers to train first, each once."""
        found = {}
        for recipe in recipes:
            own = teacher_recipe(recipe)
            if own is not None:
                found[teacher_folder(recipe, Path()).name] = own
        self.networks.planned_teachers = found
        return list(found.values())

    def caches(self, recipes: Sequence[Recipe]) -> list[Recipe]:
        """One recipe for each set of latents to cache."""
        found = {(r.data.model_dump_json(), r.seed, r.codec): r for r in recipes if r.data.cache}
        return list(found.values())

    def cache(self, recipe: Recipe) -> PlannedRun:
        """Encoding a recipe's draws once, on one device."""
        codec, draws = self.networks.codec(recipe), recipe.data.cache
        cost = encoding_cost(codec, recipe.data.size).times(draws)
        seconds = self._seconds(cost, recipe)
        disk = latents_bytes(recipe, codec)
        return PlannedRun("latents", "", 0, draws, cost, seconds, 1, 0.0, disk)

    def run(
        self, label: str, recipe: Recipe, workers: int, first_step: int = 0, scored: bool = True
    ) -> PlannedRun:
        """One training run with its scores."""
        student, teacher = self.networks.student(recipe), self.networks.teacher(recipe)
        codec, training, machine = self.networks.codec(recipe), recipe.training, self.machine
        micro, _ = batch_arithmetic(recipe, workers)
        steps = training.steps - first_step
        samples = steps * training.global_batch
        devices = 1 if machine.shared else workers
        learning = sample_cost(recipe, student, teacher, codec).times(samples)
        update = update_cost(recipe, student).times(steps)
        # Rank 0 scores the recipe's own pairs while the others wait; a benchmark is shared out.
        v = recipe.validation
        pairs = v.pairs * _times(v.every, first_step, training.steps)
        alone = inpainting_cost(student, codec, recipe.data.size, v.steps, v.guidance).times(pairs)
        together = NOTHING
        if self.scoring is not None and scored:
            s = self.scoring
            together = inpainting_cost(student, codec, s.size, s.steps, s.guidance).times(s.images)
        if machine.measure:
            pace = self._pace(recipe)
            seconds = (samples * pace.sample_seconds + steps * pace.update_seconds) / devices
        else:
            seconds = machine.seconds(learning + update) / devices
        seconds += self._seconds(alone, recipe) + self._seconds(together, recipe) / devices
        model = model_bytes(student) + model_bytes(codec.vae)
        return PlannedRun(
            label,
            student.architecture.name,
            steps,
            samples,
            learning + update + alone + together,
            seconds,
            devices,
            self._memory(recipe, micro),
            # One checkpoint more while it is written.
            (training.keep_checkpoints + 1) * checkpoint_bytes(recipe, student) + model,
        )

    def _memory(self, recipe: Recipe, micro_batch: int) -> int:
        """What one worker holds at most: networks, optimiser, and activations or encoder's maps."""
        student, codec = self.networks.student(recipe), self.networks.codec(recipe)
        teacher = self.networks.teacher(recipe)
        # All but the teacher is the same with and without distillation, and slow to count.
        known = recipe.model_dump_json(
            exclude={**IRRELEVANT_FOR_PACE, "distill": True, "teacher": True}
        )
        if (known, micro_batch) not in self._memories:
            estimate = estimate_memory(recipe, student, None, micro_batch, codec.factor)
            self._memories[known, micro_batch] = estimate
        own = self._memories[known, micro_batch]
        encoding = 0
        if not recipe.data.encoded:
            encoding = encoder_peak_bytes(codec, recipe.data.size, 2 * micro_batch)
        frozen = model_bytes(codec.vae) + (0 if teacher is None else model_bytes(teacher))
        # The encoder's maps are gone when the student's come.
        return own.total - own.activations + max(own.activations, encoding) + frozen

    def _seconds(self, cost: Cost, recipe: Recipe) -> float:
        """Time of work that is not training, on a measured machine at training's pace."""
        if not self.machine.measure:
            return self.machine.seconds(cost)
        networks = (self.networks.student(recipe), self.networks.teacher(recipe))
        sample = sample_cost(recipe, *networks, self.networks.codec(recipe))
        return cost.total * self._pace(recipe).sample_seconds / sample.total

    def _pace(self, recipe: Recipe) -> Pace:
        known = recipe.model_dump_json(exclude=IRRELEVANT_FOR_PACE)
        if known not in self._paces:
            networks = self.networks.with_weights(recipe)
            self._paces[known] = measure_pace(recipe, *networks, limit=self.limit)
        return self._paces[known]


def _times(every: int | None, first: int, last: int) -> int:
    """How often a run scores its own pairs: every so many steps, and at its end."""
    return len({last, *(range(every, last + 1, every) if every else ())} - set(range(first + 1)))
