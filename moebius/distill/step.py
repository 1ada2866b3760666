"""One distillation step: predictions, losses, balance (Sec. 3.3, Eq. 4 and 5)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moebius.config import Distill
from moebius.distill.balance import Balanced, balance
from moebius.distill.batch import NoisyBatch
from moebius.distill.cut import Cut
from moebius.distill.losses import loss_terms, perceptual_loss
from moebius.distill.perceptual import ELatentLPIPS
from moebius.distill.taps import Adapter
from moebius.models.denoiser import Denoiser, DenoiserOutput


class Student(nn.Module):
    """The trained module: denoiser, and the adapter behind its tap where there is one."""

    def __init__(self, denoiser: Denoiser, tap: str, adapter: Adapter | None = None) -> None:
        super().__init__()
        self.denoiser, self.tap, self.adapter = denoiser, tap, adapter

    def forward(self, batch: NoisyBatch) -> tuple[Tensor, Tensor]:
        """The prediction (B, 4, h, w) and the tapped feature (B, C, h', w')."""
        out = self.denoiser(batch.sample, batch.timesteps, batch.category_ids)
        feature = out.features[self.tap]
        return out.sample, feature if self.adapter is None else self.adapter(feature)


class FrozenTeacher:
    """The teacher in eval mode, without gradients, and the name of its tap."""

    def __init__(self, denoiser: Denoiser, tap: str) -> None:
        self.denoiser, self.tap = denoiser.eval().requires_grad_(False), tap

    @torch.no_grad()
    def __call__(self, batch: NoisyBatch) -> tuple[Tensor, Tensor]:
        """Its prediction and its tapped feature."""
        out = self.denoiser(batch.sample, batch.timesteps, batch.category_ids)
        return out.sample, out.features[self.tap]


@dataclass(frozen=True)
class StepLosses:
    """A batch's named losses, without their graphs, and their balanced sum."""

    terms: dict[str, Tensor]
    balanced: Balanced


class DistillationStep:
    """Computes L_total of a batch; its caller differentiates and updates.

    Args:
        student: the module to train, in DDP or not.
        anchors: the student's denoiser, asked for theta_C and theta_F.
        teacher: needed by the coarse and the fine loss, else `None`.
        config: losses and balance.
        metric: E-LatentLPIPS, for the perceptual loss.
        reduce: averages an anchor's gradient over the workers.
        autocast: whether the two networks run in bfloat16.
    """

    def __init__(
        self,
        student: nn.Module,
        anchors: Denoiser,
        teacher: FrozenTeacher | None,
        config: Distill,
        metric: ELatentLPIPS | None = None,
        reduce: Callable[[Tensor], Tensor] = lambda gradient: gradient,
        autocast: bool = False,
    ) -> None:
        self.student, self.anchors, self.teacher = student, anchors, teacher
        self.config, self.metric, self.reduce, self.autocast = config, metric, reduce, autocast

    def __call__(self, batch: NoisyBatch) -> StepLosses:
        """Terms and balance of one (micro-)batch."""
        with torch.autocast(batch.sample.device.type, torch.bfloat16, enabled=self.autocast):
            # The teacher first: what it needs in passing is freed before the student keeps its own.
            taught = (None, None) if self.teacher is None else self.teacher(batch)
            prediction, feature, border = self._student(batch)
        terms = loss_terms(
            self.config.losses,
            prediction,
            noise=batch.noise,
            teacher_prediction=taught[0],
            student_feature=feature,
            teacher_feature=taught[1],
            perceptual=lambda noise: self._perceptual(batch, noise),
        )
        balanced = balance(
            self.config.balance,
            terms,
            Cut(prediction, border, self._head()),
            self.anchors.theta_f,
            self.anchors.theta_c,
            self.reduce,
            self.config.static_weights,  # type: ignore[arg-type]
        )
        return StepLosses({name: term.detach() for name, term in terms.items()}, balanced)

    def _student(self, batch: NoisyBatch) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Its prediction in float32, its tapped feature, and its border.

        The border is caught where it is: DDP may hand out other tensors than those that were used.
        """
        caught: list[DenoiserOutput] = []
        hook = self.anchors.register_forward_hook(lambda _, inputs, output: caught.append(output))
        with hook:
            prediction, feature = self.student(batch)
        return prediction.float(), feature, caught[0].border

    def _head(self) -> list[nn.Parameter]:
        """Everything trained above the border, an adapter too."""
        below = set(self.anchors.encoder_parameters())
        return [p for p in self.student.parameters() if p.requires_grad and p not in below]

    def _perceptual(self, batch: NoisyBatch, prediction: Tensor) -> Tensor:
        assert self.metric is not None, "the perceptual loss needs its metric"
        return perceptual_loss(
            self.metric,
            prediction,
            batch.noisy,
            batch.clean,
            batch.alphas,
            self.config.perceptual_augment,
            batch.generators,
        )
