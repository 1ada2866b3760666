"""The four losses of the distillation, each a scalar: the mean over the batch.

Shapes: B batch, h x w latent, C channels of a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

LOSSES = ("coarse", "fine", "task", "perceptual")


class Metric(Protocol):
    """A distance between latents (B, 4, h, w), (B,): `ELatentLPIPS`."""

    def __call__(
        self,
        x: Tensor,
        y: Tensor,
        augment: bool = False,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> Tensor: ...


def resolve_losses(names: Collection[str]) -> tuple[str, ...]:
    """Checks the names of the losses that are on and puts them in the order of `LOSSES`.

    Raises:
        ValueError: no name, or an unknown one.
    """
    unknown = [name for name in names if name not in LOSSES]
    if unknown or not names:
        fault = f"Unknown loss {unknown[0]!r}" if unknown else "No loss is on"
        raise ValueError(f"{fault}: choose from {', '.join(LOSSES)}")
    return tuple(name for name in LOSSES if name in names)


def coarse_loss(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """L_C: mean squared difference at the tap, (B, C, h', w')."""
    return _mean_squared(student_feature, teacher_feature)


def fine_loss(prediction: Tensor, teacher_prediction: Tensor) -> Tensor:
    """L_F: mean squared difference of the two predictions, (B, 4, h, w)."""
    return _mean_squared(prediction, teacher_prediction)


def task_loss(prediction: Tensor, noise: Tensor) -> Tensor:
    """L_task: mean squared difference of the prediction and the true noise, (B, 4, h, w)."""
    return _mean_squared(prediction, noise)


def perceptual_loss(
    metric: Metric,
    prediction: Tensor,
    noisy: Tensor,
    clean: Tensor,
    alphas_cumprod_t: Tensor,
    augment: bool = True,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Tensor:
    """L_perc: perceptual distance of the clean latent that a prediction implies to the true one.

    Args:
        metric: the distance.
        prediction: (B, 4, h, w) predicted noise.
        noisy: (B, 4, h, w) noisy latent that the prediction was made from.
        clean: (B, 4, h, w) true latent.
        alphas_cumprod_t: (B,) the schedule's cumulative product at each sample's time.
        augment: compare after one random transform that both share.
        generator: randomness of the transform, for the batch or one a sample.
    """
    implied = implied_clean(prediction, noisy, alphas_cumprod_t)
    return metric(implied, clean.detach().float(), augment=augment, generator=generator).mean()


def implied_clean(prediction: Tensor, noisy: Tensor, alphas_cumprod_t: Tensor) -> Tensor:
    """x_0 = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t), in float32 at least: (B, 4, h, w)."""
    alpha = alphas_cumprod_t.to(prediction.device)[:, None, None, None]
    return (_full(noisy) - (1 - alpha).sqrt() * _full(prediction)) / alpha.sqrt()


def loss_terms(
    losses: Collection[str],
    prediction: Tensor,
    *,
    noise: Tensor | None = None,
    teacher_prediction: Tensor | None = None,
    student_feature: Tensor | None = None,
    teacher_feature: Tensor | None = None,
    perceptual: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Named terms of the losses that are on, in the order of `LOSSES`; one that is off is absent.

    Args:
        losses: any non-empty subset of `LOSSES`.
        prediction: (B, 4, h, w) the student's predicted noise.
        noise: for task, the true noise.
        teacher_prediction: for fine, the teacher's predicted noise.
        student_feature: for coarse, at the student's tap.
        teacher_feature: for coarse, at the teacher's tap.
        perceptual: for perceptual, from a prediction to the loss.

    Raises:
        ValueError: an unknown loss, or one whose tensors are missing.
    """
    needs: dict[str, tuple[Callable[..., Tensor], dict[str, object]]] = {
        "coarse": (
            coarse_loss,
            {"student_feature": student_feature, "teacher_feature": teacher_feature},
        ),
        "fine": (
            fine_loss,
            {"prediction": prediction, "teacher_prediction": teacher_prediction},
        ),
        "task": (task_loss, {"prediction": prediction, "noise": noise}),
        "perceptual": (_call, {"prediction": prediction, "perceptual": perceptual}),
    }
    terms = {}
    for name in resolve_losses(losses):
        loss, inputs = needs[name]
        missing = [key for key, value in inputs.items() if value is None]
        if missing:
            raise ValueError(f"Loss {name!r} needs {' and '.join(missing)}")
        terms[name] = loss(**inputs)
    return terms


def _call(prediction: Tensor, perceptual: Callable[[Tensor], Tensor]) -> Tensor:
    return perceptual(prediction)


def _mean_squared(student: Tensor, target: Tensor) -> Tensor:
    if student.shape != target.shape:
        raise ValueError(
            f"Shapes {tuple(student.shape)} (student) and {tuple(target.shape)} (target) differ"
        )
    return F.mse_loss(_full(student), _full(target.detach()))


def _full(x: Tensor) -> Tensor:
    """Half precision to float32: sums of squares need the digits."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
