"""The optimiser of the paper's recipe: Muon for matrices, AdamW for everything else, in one class.

Muon: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; update scale: Liu et al. 2025,
arXiv 2502.16982. torch.optim.Muon takes only two-dimensional weights and fuses the steps of its
Newton-Schulz iteration, which moves an update by 3 to 5 % in bfloat16, so only AdamW is torch's.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from moebius.distill.sharing import gather, share_out
from moebius.distill.world import World

NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the quintic, from Jordan et al.
ADAMW_BETAS = (0.9, 0.95)
OPTIMIZERS = ("muon", "adamw")


class Muon(torch.optim.Optimizer):
    """Muon and AdamW side by side, with one learning rate and one weight decay.

    Args:
        muon: weights of two or more dimensions, flattened to (out, rest).
        adamw: everything else.
        lr: learning rate of both.
        weight_decay: decoupled, of both.
        momentum: Nesterov momentum of Muon.
        betas: of AdamW.
        eps: of AdamW.
        world: workers that hold equal weights and gradients, and share Muon's work.
    """

    def __init__(
        self,
        muon: Iterable[nn.Parameter],
        adamw: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        betas: tuple[float, float] = ADAMW_BETAS,
        eps: float = 1e-8,
        world: World | None = None,
    ) -> None:
        self.world = world or World(0, 1, torch.device("cpu"))
        groups: list[dict[str, Any]] = [
            {"params": list(muon), "algorithm": "muon", "momentum": momentum},
            {"params": list(adamw), "algorithm": "adamw", "betas": betas, "eps": eps},
        ]
        flat = [tuple(p.shape) for p in groups[0]["params"] if p.ndim < 2]
        if flat:
            raise ValueError(f"Muon takes weights of two or more dimensions, not {flat[0]}")
        super().__init__(
            [group for group in groups if group["params"]],
            {"lr": lr, "weight_decay": weight_decay},
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Takes one step; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["algorithm"] == "muon":
                self._muon_step(parameters, group)
            else:
                self._adamw_step(parameters, group)
        return loss

    def _muon_step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        momentum, rate = group["momentum"], group["lr"]
        gradients: list[Tensor] = [p.grad for p in parameters]  # type: ignore[misc]
        buffers = [self._momentum_buffer(parameter) for parameter in parameters]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        for chosen, directions in self._directions(gradients, buffers, momentum):
            for parameter, direction in zip(
                (parameters[i] for i in chosen), directions, strict=True
            ):
                # The scale counts a convolution's channels only, not its window.
                scale = 0.2 * math.sqrt(max(parameter.shape[:2]))
                parameter.add_(direction.view(parameter.shape), alpha=-rate * scale)

    def _directions(
        self, gradients: list[Tensor], buffers: list[Tensor], momentum: float
    ) -> Iterator[tuple[list[int], Sequence[Tensor]]]:
        """Orthogonalised Nesterov gradients, (out, rest) each, with their numbers.

        Equal shapes go through Newton-Schulz together: a U-Net has many small matrices. Several
        workers take each their share; what is kept between steps, all of them have.
        """
        shapes = [gradient.flatten(1).shape for gradient in gradients]
        owners = share_out([newton_schulz_macs(*shape) for shape in shapes], self.world.size)
        by_shape = defaultdict(list)
        for i, (shape, owner) in enumerate(zip(shapes, owners, strict=True)):
            if owner == self.world.rank:
                by_shape[shape].append(i)
        mine: dict[int, Tensor] = {}
        for chosen in by_shape.values():
            stack = torch.stack(
                [gradients[i].add(buffers[i], alpha=momentum).flatten(1) for i in chosen]
            )
            directions = orthogonalize(stack)
            if self.world.size == 1:  # none is held longer than it has to be
                yield chosen, directions.unbind()
            else:  # they were rounded to bfloat16 before
                mine.update(zip(chosen, directions.bfloat16(), strict=True))
        if self.world.size > 1:
            yield list(range(len(shapes))), gather(self.world, mine, owners, shapes, torch.bfloat16)

    def _momentum_buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]

    def _adamw_step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters],  # type: ignore[misc]
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonalize(matrices: Tensor) -> Tensor:
    """Brings the singular values of (..., out, in) near 1 by Newton-Schulz, in bfloat16."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x  # the Gram matrix of the shorter side is the smaller one
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype).contiguous()


def newton_schulz_macs(rows: int, columns: int) -> float:
    """MACs that `orthogonalize` takes for one matrix."""
    short, long = sorted((rows, columns))
    return NEWTON_SCHULZ_STEPS * (2.0 * short**2 * long + short**3)


def split_parameters(*modules: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Splits the trainable parameters into those of Muon and those of AdamW.

    Muon gets every weight of two or more dimensions, except those that a module's own
    `boundary_parameters()` names (a denoiser's LCG table, first and last convolution).
    """
    muon: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in modules:
        named = dict(module.named_parameters())
        boundary: Collection[str] = getattr(module, "boundary_parameters", tuple)()
        assert named.keys() >= set(boundary), f"no parameters: {set(boundary) - named.keys()}"
        for name, parameter in named.items():
            if parameter.requires_grad:
                matrix = parameter.ndim >= 2 and name not in boundary
                (muon if matrix else others).append(parameter)
    return muon, others


def build_optimizer(
    *modules: nn.Module,
    name: str = "muon",
    lr: float = 2e-4,
    weight_decay: float = 0.1,
    world: World | None = None,
) -> torch.optim.Optimizer:
    """Builds the optimiser of all trainable parameters of the modules.

    Args:
        modules: the model (not wrapped in DDP) and what else is trained, such as an adapter.
        name: "muon" (with AdamW for what Muon leaves) or "adamw" for everything.
        lr: learning rate.
        weight_decay: decoupled weight decay.
        world: workers that share Muon's work.

    Raises:
        ValueError: an unknown name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"Unknown optimizer {name!r}: choose from {', '.join(OPTIMIZERS)}")
    muon, others = split_parameters(*modules)
    if name == "muon":
        return Muon(muon, others, lr, weight_decay, world=world)
    return torch.optim.AdamW(muon + others, lr, ADAMW_BETAS, weight_decay=weight_decay)


def learning_rate(
    step: int,
    base: float,
    warmup: int = 0,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
    decay_steps: int | None = None,
) -> float:
    """Learning rate of the update after `step` updates: linear warm-up, then what brings it down.

    Args:
        step: updates taken so far, from 0.
        base: rate after the warm-up.
        warmup: updates until `base` is reached; 0 starts with it.
        milestones: steps from which the rate is multiplied by `gamma` once more each.
        gamma: the paper's is 0.1, at 111,000 and 129,000.
        decay_steps: updates over which the rate also falls linearly to zero; None: it does not.
    """
    ramp = min(1.0, (step + 1) / warmup) if warmup else 1.0
    left = 1.0 if decay_steps is None else max(0.0, 1 - step / decay_steps)
    return base * ramp * left * gamma ** sum(step >= milestone for milestone in milestones)
