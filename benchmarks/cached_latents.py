"""A training sample from stored latents against one that is encoded online: FLOPs and time.

The paper's networks with made-up weights: 226M student, 862M teacher, SDXL's VAE, all four losses.
Forward and backward of one sample; the optimiser's share vanishes in a batch. FLOPs are counted at
512 px, time is taken at 256 px unless told: `python benchmarks/cached_latents.py --size 512`.
"""

from dataclasses import dataclass
from typing import cast

import torch
import tyro
from _ratio import ratio, show

from moebius.data.latents import LatentSample, encode_pixels
from moebius.data.shards.writer import STORED
from moebius.distill.batch import Noising
from moebius.distill.cost import sample_cost
from moebius.distill.perceptual import ELatentLPIPS
from moebius.distill.step import DistillationStep, FrozenTeacher, Student
from moebius.distill.taps import teacher_tap
from moebius.planning.networks import Networks
from moebius.recipes import read_recipe

PAPER = {"data.source": "photographs", "distill.perceptual_weights": "random"}


@dataclass
class Options:
    """What to time."""

    size: int = 256
    """Side of the crop in pixels."""
    rounds: int = 1


def count(losses: list[str]) -> None:
    """Prints the ratio of FLOPs at 512 px, exactly as `--plan` counts them."""
    totals = []
    for latents in (None, "stored"):
        recipe = read_recipe("paper", {**PAPER, "distill.losses": losses, "data.latents": latents})
        networks = Networks()
        cost = sample_cost(
            recipe, networks.student(recipe), networks.teacher(recipe), networks.codec(recipe)
        )
        totals.append(cost.total)
    online, stored = totals
    show(
        f"arithmetic of a training sample, 512 px, {len(losses)} losses, online to latents",
        (online / 1e12, stored / 1e12, online / stored),
        at_least=2.2,
        unit="TFLOP",
    )


def measure(size: int, rounds: int) -> None:
    """Prints the ratio of times."""
    recipe, networks = read_recipe("paper", {**PAPER, "data.size": size}), Networks()
    student, teacher, codec = networks.with_weights(recipe)
    assert teacher is not None
    tap = student.coarse_tap
    step = DistillationStep(
        Student(student.train(), tap),
        student,
        FrozenTeacher(teacher.eval(), teacher_tap(student, teacher, tap)),
        recipe.distill,
        ELatentLPIPS("random"),
    )
    noising = Noising(0, "logit_normal", recipe.training.noise_offset)
    image, mask = 2 * torch.rand(1, 3, size, size) - 1, torch.zeros(1, 1, size, size)
    mask[..., : size // 2] = 1
    category = torch.zeros(1, dtype=torch.long)

    def train(latents: LatentSample) -> None:
        student.zero_grad(set_to_none=True)
        step(noising(latents, [0], torch.device("cpu"))).balanced.total.backward()

    encoded = encode_pixels(codec, image, mask, category)
    stored = cast(LatentSample, {key: t.to(STORED[key]) for key, t in encoded.items()})  # type: ignore[attr-defined]

    def online() -> None:
        train(encode_pixels(codec, image, mask, category))

    show(f"training sample, {size} px, fp32", ratio(online, lambda: train(stored), rounds))


def main(options: Options) -> None:
    """Prints what is counted, then what is measured."""
    torch.set_num_threads(1)
    count(["coarse", "fine", "task"])
    count(["coarse", "fine", "task", "perceptual"])
    measure(options.size, options.rounds)


if __name__ == "__main__":
    main(tyro.cli(Options))
