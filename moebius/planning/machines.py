"""What runs are planned for: devices by their data sheets, or this machine, measured."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.utils.data import Dataset

from moebius.config import Recipe, load_yaml
from moebius.distill.cost import Cost
from moebius.distill.perceptual import ELatentLPIPS
from moebius.distill.run_folder import RunFolder
from moebius.distill.trainer import Trainer
from moebius.distill.world import World
from moebius.models.codec import LatentCodec
from moebius.models.denoiser import Denoiser

PRECISIONS = ("bf16", "tf32", "fp32")
TIMED_STEPS = 4
MEASURED = "this"
"""The name under which `--plan` measures the machine that it runs on."""


@dataclass(frozen=True)
class Pace:
    """What a measured machine takes for a recipe."""

    update_seconds: float
    """A step, whatever its batch."""
    sample_seconds: float
    batch: int
    """Largest batch measured."""


@dataclass(frozen=True)
class Machine:
    """One device: what it does and holds."""

    name: str
    memory: float
    """Bytes."""
    tflops: Mapping[str, float] = field(default_factory=dict)
    """Dense peak by precision, 10^12 floating-point operations a second."""
    utilisation: float = 1.0
    """Share of the peak that is assumed to be reached."""
    measure: bool = False
    """This machine: to be measured, not read from a data sheet."""

    @property
    def shared(self) -> bool:
        """Whether workers share it (a CPU) rather than having one each."""
        return self.measure and not torch.cuda.is_available()

    @property
    def unit(self) -> str:
        """What its hours are called."""
        return "Hours" if self.shared else "GPU-hours"

    @property
    def assumption(self) -> str:
        """Where its speed comes from, in one sentence."""
        if self.measure:
            busy, cores = os.getloadavg()[0], os.cpu_count() or 1
            others = (
                f" It was busy: load {busy:.0f} on {cores} cores." if busy > 1.5 * cores else ""
            )
            return (
                f"Hours are estimates from a few real steps of each run on {self.name}, on random "
                f"pictures and made-up weights, reading of data not included.{others}"
            )
        peaks = ", ".join(f"{p} {n:g}" for p, n in self.tflops.items())
        return (
            f"Hours are estimates: {self.name}, dense peaks in TFLOPS {peaks}, of which "
            f"{self.utilisation:.0%} are assumed to be reached, not measured."
        )

    def seconds(self, cost: Cost) -> float:
        """Time that a data sheet's device takes."""
        rate = {name: 1e12 * peak * self.utilisation for name, peak in self.tflops.items()}
        return sum(n / rate[cost.precision[part]] for part, n in cost.flops.items())


def machine_names() -> list[str]:
    """Names that `load_machine` takes."""
    return [*_data_sheets(), MEASURED]


def load_machine(name: str) -> Machine:
    """A device by name (`L40S`, ...), from a YAML file of the same layout, or `this`.

    A file may hold several devices: `mine.yaml:A100`.

    Raises:
        ValueError: an unknown name, or a file that lacks something.
    """
    if name == MEASURED:
        return _here()
    path, _, device = name.rpartition(":") if ".yaml:" in name else ("", "", name)
    sheets = load_yaml(path) if path else _data_sheets()
    if device not in sheets:
        raise ValueError(
            f"unknown machine {name!r}; known: {', '.join([*sheets, MEASURED])}, or FILE.yaml:NAME"
        )
    try:
        sheet = sheets[device]
        tflops = {precision: float(sheet["tflops"][precision]) for precision in PRECISIONS}
        return Machine(device, 1e9 * sheet["memory"], tflops, float(sheet["utilisation"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"machine {name!r}: {error} is missing or no number; it needs memory, utilisation "
            f"and tflops of {', '.join(PRECISIONS)}"
        ) from None


def measure_pace(
    recipe: Recipe, student: Denoiser, teacher: Denoiser | None, codec: LatentCodec, limit: float
) -> Pace:
    """Takes a few real steps of a recipe in this process, with batches of 1, 2, 4, ...

    It stops at the recipe's micro-batch, or where the next batch would not end within the limit.
    Weights are made up and pictures random: time does not depend on them.

    Args:
        recipe: the run.
        student, teacher, codec: with weights, not on the meta device.
        limit: seconds for all of it; the first batch is run whatever it takes.
    """
    most = recipe.training.micro_batch or recipe.training.global_batch
    start, times, batch = time.perf_counter(), dict[int, float](), 1
    while True:
        begun = time.perf_counter()
        times[batch] = _step_seconds(recipe, student, teacher, codec, batch, limit)
        now = time.perf_counter()
        # The next batch takes about twice as long.
        if batch >= most or now - start + 2 * (now - begun) > limit:
            return _fit(times)
        batch = min(2 * batch, most)


def _fit(times: Mapping[int, float]) -> Pace:
    """A line through smallest and largest batch: what a step costs anyway, what a sample adds."""
    smallest, largest = min(times), max(times)
    rise = 0.0
    if largest > smallest:
        rise = (times[largest] - times[smallest]) / (largest - smallest)
    if not 0 < rise * largest < times[largest]:
        return Pace(0.0, times[largest] / largest, largest)
    return Pace(times[largest] - largest * rise, rise, largest)


def _step_seconds(
    recipe: Recipe,
    student: Denoiser,
    teacher: Denoiser | None,
    codec: LatentCodec,
    batch: int,
    limit: float,
) -> float:
    """Seconds of the fastest of a few steps; the first one warms up and counts if it is alone."""
    world = World.current()
    changes = {"steps": TIMED_STEPS, "global_batch": batch, "micro_batch": batch}
    training = recipe.training.model_copy(update=changes)
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            recipe.model_copy(update={"training": training}),
            student,
            teacher,
            _RandomSamples(recipe, codec),
            codec.to(world.device),
            ELatentLPIPS("random") if "perceptual" in recipe.distill.losses else None,
            RunFolder(Path(folder)),
            world,
        )
        batches, seconds = trainer.batches(), list[float]()
        while not seconds or (len(seconds) < TIMED_STEPS and sum(seconds) < limit / 2):
            start = time.perf_counter()
            trainer.take_step(batches)
            if world.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return min(seconds[1:] or seconds)


class _RandomSamples(Dataset):
    """Pictures, or latents where the recipe has them encoded, of the right shape."""

    def __init__(self, recipe: Recipe, codec: LatentCodec) -> None:
        self.size, self.cached = recipe.data.size, recipe.data.encoded
        self.side, self.channels = recipe.data.size // codec.factor, codec.channels

    def __getitem__(self, n: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(n)
        category = torch.zeros((), dtype=torch.long)
        if not self.cached:
            image = 2 * torch.rand(3, self.size, self.size, generator=generator) - 1
            mask = (torch.rand(1, self.size, self.size, generator=generator) < 0.3).float()
            return {"image": image, "mask": mask, "category": category}
        shape = (2, self.channels, self.side, self.side)
        clean, masked = torch.rand(2, *shape, generator=generator)
        mask = (torch.rand(1, self.side, self.side, generator=generator) < 0.3).float()
        return {"clean": clean, "masked": masked, "mask": mask, "category": category}


def _here() -> Machine:
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        return Machine(f"this machine's {device.name}", device.total_memory, measure=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(f"this machine ({os.cpu_count()} CPU cores)", memory, measure=True)


def _data_sheets() -> dict[str, Any]:
    return yaml.safe_load(files("moebius").joinpath("assets/machines.yaml").read_text())
