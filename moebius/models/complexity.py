"""Parameters and multiply-accumulates, counted from definitions on the meta device.

Two counts stand side by side. The paper's "GFLOPs" column holds the multiply-accumulates of
convolutions and Linears plus 4 per element of BatchNorm and LayerNorm (batch 1, 512 px), without
the BatchNorms of depthwise-separable convolutions: only so do all of Tab. 2's figures come out.
The complete count adds those and the products that no layer shows: einsum, attention and
recurrence, as each operator's `einsum_macs` states them.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from moebius.blocks import DepthwiseSeparableConv
from moebius.blocks.registry import name_of
from moebius.config import Architecture
from moebius.models.denoiser import Denoiser, build, category_ids

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class BlockCost:
    """What one block of the U-Net costs (`down.0.attentions.1`, `conv_out`, ...)."""

    kind: str
    """The operators inside, as registered (`local_lambda + interactive_lambda + mix_ffn`)."""
    params: int
    macs_paper: int
    macs: int


@dataclass(frozen=True)
class Complexity:
    """An architecture's size and work for one denoising step of one sample."""

    arch: str
    params: int
    """Without the LCG table, as in Tab. 2."""
    params_with_lcg: int
    blocks: dict[str, BlockCost]

    @property
    def gmacs_paper(self) -> float:
        """10^9 MACs by the paper's convention."""
        return sum(block.macs_paper for block in self.blocks.values()) / 1e9

    @property
    def gmacs(self) -> float:
        """10^9 MACs, complete."""
        return sum(block.macs for block in self.blocks.values()) / 1e9


def measure_complexity(
    arch: str | Path | Mapping[str, Any] | Architecture,
    count_at: int | None = None,
    **overrides: Any,
) -> Complexity:
    """Counts an architecture without allocating its weights.

    Args:
        arch: whatever `moebius.build` takes.
        count_at: side of the latent (default: the trained size, 64 for 512 px).
        overrides: whatever `moebius.build` takes.
    """
    with torch.device("meta"):
        model = build(arch, **overrides).eval()
    paper, unlisted = _count(model, count_at or model.architecture.latent_size)
    params = {name: p.numel() for name, p in model.named_parameters()}
    blocks = {}
    for path, module in _blocks(model):
        key = path.replace("_blocks", "").replace("_block", "")
        blocks[key] = BlockCost(
            _kind(path, module),
            sum(n for name, n in params.items() if name.startswith(f"unet.{path}.")),
            _below(paper, f"unet.{path}"),
            _below(paper, f"unet.{path}") + _below(unlisted, f"unet.{path}"),
        )
    table = model.lcg.weight.numel()
    total = sum(params.values())
    assert sum(block.params for block in blocks.values()) == total - table
    return Complexity(model.architecture.name, total - table, total, blocks)


def _count(model: Denoiser, size: int) -> tuple[dict[str, int], dict[str, int]]:
    """MACs by module name: those of the paper's convention, and those it leaves out."""
    paper: dict[str, int] = defaultdict(int)
    unlisted: dict[str, int] = defaultdict(int)
    separable = [m for m in model.modules() if isinstance(m, DepthwiseSeparableConv)]
    folded = {norm for m in separable for norm in (m.bn1, m.bn2)}

    def hook(name: str) -> Any:
        def count(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if (conv_macs := getattr(module, "conv_macs", None)) is not None:
                paper[name] += conv_macs(*inputs)
            elif isinstance(module, _CONVS):
                paper[name] += output.numel() * module.weight[0].numel()
            elif isinstance(module, nn.Linear):
                paper[name] += output.numel() * module.in_features
            elif isinstance(module, _NORMS):
                (unlisted if module in folded else paper)[name] += 4 * output.numel()
            elif (einsum_macs := getattr(module, "einsum_macs", None)) is not None:
                unlisted[name] += einsum_macs(*inputs)

        return count

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    architecture = model.architecture
    with torch.device("meta"), torch.no_grad():
        sample = torch.empty(1, architecture.in_channels, size, size)
        ids = category_ids(torch.zeros(1), architecture.context_length)
        model(sample, torch.zeros(1), ids)
    for handle in handles:
        handle.remove()
    return paper, unlisted


def _blocks(model: Denoiser) -> list[tuple[str, nn.Module]]:
    """The U-Net's blocks in order: its children, stages opened up into their layers."""
    found = []
    for name, child in model.unet.named_children():
        if not name.endswith(("_blocks", "_block")):
            found.append((name, child))
            continue
        stages = child.named_children() if name.endswith("_blocks") else [("", child)]
        for index, stage in stages:
            path = f"{name}.{index}".rstrip(".")
            for group, layers in stage.named_children():
                found += [(f"{path}.{group}.{i}", layer) for i, layer in layers.named_children()]
    return [(path, module) for path, module in found if any(True for _ in module.parameters())]


def _kind(path: str, module: Any) -> str:
    if ".attentions." in path:
        block = module.transformer_blocks[0]
        return " + ".join(name_of(part) for part in (block.attn1, block.attn2, block.ff))
    if ".resnets." in path:
        return f"residual {name_of(module.conv1)}"
    return name_of(module)


def _below(counts: Mapping[str, int], path: str) -> int:
    return sum(n for name, n in counts.items() if name == path or name.startswith(f"{path}."))
