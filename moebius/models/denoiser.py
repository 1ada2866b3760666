"""The denoiser: LCG table and U-Net, with named features and anchors for distillation."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from safetensors import safe_open
from torch import Tensor, nn

from moebius.blocks.products import adopt
from moebius.config import Architecture, load_json, parse
from moebius.models.architectures import resolve
from moebius.models.modes import let_read
from moebius.models.unet import DownStage, UNet
from moebius.models.whole import load_whole

if TYPE_CHECKING:
    from moebius.models.optimized import OptimizedDenoiser

CATEGORIES = 2


@dataclass(frozen=True)
class DenoiserOutput:
    """What a denoiser returns."""

    sample: Tensor
    """Predicted noise, (B, 4, h, w)."""
    features: dict[str, Tensor]
    """Outputs of the stages by name: `down.i`, `mid`, `up.i`, each (B, C, h_i, w_i)."""
    border: list[Tensor]
    """All that passes from the encoder to the decoder: skips, time embedding and context."""


class Denoiser(ModelMixin, ConfigMixin):
    """LCG table and U-Net (Sec. 3); `moebius.build` makes one from an architecture's name.

    Args are the fields of `moebius.config.Architecture`, kept in `config.json`.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        stages: list[dict[str, Any]],
        name: str = "unnamed",
        middle: dict[str, Any] | None = None,
        latent_size: int = 64,
        heads: int = 8,
        lcg_dim: int = 3072,
        context_dim: int = 768,
        context_length: int = 10,
        norm_groups: int = 32,
        in_channels: int = 9,
        out_channels: int = 4,
    ) -> None:
        super().__init__()
        fields = {key: value for key, value in locals().items() if key in Architecture.model_fields}
        self.architecture = parse(Architecture, fields, f"architecture {name!r}")
        self.lcg = nn.Embedding(CATEGORIES * context_length, lcg_dim)
        self.unet = UNet(self.architecture)
        adopt(self.unet)

    def forward(
        self, sample: Tensor, timestep: Tensor | int, category_ids: Tensor
    ) -> DenoiserOutput:
        """Predicts the noise in a latent.

        Args:
            sample: (B, 9, h, w): noisy latent, mask (hole = 1), masked image's latent.
            timestep: (B,) or one for all, in [0, 1000).
            category_ids: (B, M) rows of the LCG table, see `category_ids`.
        """
        steps = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        return DenoiserOutput(*self.unet(sample, steps, self.lcg(category_ids)))

    def optimized(
        self, dtype: torch.dtype | None = None, compile: bool = False, graph: bool = False
    ) -> "OptimizedDenoiser":
        """Its inference form: the same call, the same outputs, less time; no gradients.

        It shares the weights that it does not change: after training on, make another.

        Args:
            dtype: of weights and work, such as `torch.bfloat16`; `None` keeps this denoiser's.
            compile: run through `torch.compile`, or without it where it fails, with a notice. On
                two cores the first step takes minutes, and those after it no less than without.
            graph: run through CUDA graphs, or without them likewise.
        """
        from moebius.models.optimized import OptimizedDenoiser

        return OptimizedDenoiser(self, dtype, compile, graph)

    @property
    def coarse_tap(self) -> str:
        """Name of the feature that the coarse loss compares: the last down stage's."""
        return f"down.{len(self.architecture.stages) - 1}"

    @property
    def theta_c(self) -> nn.Parameter:
        """Anchor of Eq. 5: the weight of the convolution that closes the coarse tap."""
        stage = self.unet.down_blocks[-1]
        assert isinstance(stage, DownStage)
        layer = stage.layers[-1]
        closing = layer.resnet.conv2 if layer.mixer is None else layer.mixer.proj_out
        assert isinstance(closing, nn.Module)
        return _last_weight(closing)

    @property
    def theta_f(self) -> nn.Parameter:
        """Anchor of Eq. 4: the output layer's weight, of its 1x1 conv where it is separable."""
        return _last_weight(self.unet.conv_out)

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters behind the border, LCG table and embeddings among them."""
        unet = self.unet
        parts = (unet.time_embedding, unet.encoder_hid_proj, unet.conv_in, unet.down_blocks)
        return chain.from_iterable(part.parameters() for part in (self.lcg, *parts))

    def boundary_parameters(self) -> set[str]:
        """Names of what Muon leaves to AdamW: LCG table, first and last convolution."""
        prefixes = ("lcg.", "unet.conv_in.", "unet.conv_out.")
        return {name for name, _ in self.named_parameters() if name.startswith(prefixes)}

    def feature_shapes(self, latent_size: int | None = None) -> dict[str, tuple[int, int, int]]:
        """(C, h, w) of every named feature for a square latent (default: the trained size)."""
        side = latent_size or self.architecture.latent_size
        stages = self.architecture.stages
        sides = [-(-side // 2**level) for level in range(len(stages))]
        shapes = {}
        for i, stage in enumerate(stages):
            below = sides[min(i + 1, len(stages) - 1)]
            shapes[f"down.{i}"] = (stage.width, below, below)
        if self.architecture.middle:
            shapes["mid"] = (self.architecture.middle.width, sides[-1], sides[-1])
        for i, level in enumerate(reversed(range(len(stages)))):
            above = sides[max(level - 1, 0)]
            shapes[f"up.{i}"] = (stages[level].width, above, above)
        return shapes

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> "Denoiser":
        """Loads `config.json` and safetensors weights from a folder or the Hub, strictly."""
        saved = Path(folder) / (options.get("subfolder") or "")
        if (saved / "config.json").is_file():
            check_saved(saved, options.get("variant"))
        options.setdefault("low_cpu_mem_usage", False)
        options.setdefault("use_safetensors", True)
        return load_whole(super().from_pretrained, folder, **options)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Saves `config.json` and safetensors weights to a folder, readable as it is."""
        super().save_pretrained(save_directory, **options)
        let_read(save_directory)


def build(arch: str | Path | Mapping[str, Any] | Architecture, **overrides: Any) -> Denoiser:
    """A freshly initialised denoiser.

    Args:
        arch: a name of the grammar, `pixelhacker`, a YAML file or a mapping with `stages`.
        overrides: `widths`, `depths`, or any field of `moebius.config.Architecture`.
    """
    return Denoiser(**resolve(arch, **overrides).model_dump(by_alias=True))


def check_saved(folder: Path, variant: str | None = None) -> None:
    """Refuses a folder whose `config.json` is not its weights', before anything large is made.

    diffusers itself ignores keys that it does not know, allocates what the file says, and takes
    a file that is a text for a Hub's name.

    Raises:
        ValueError: naming the file, and what is wrong.
    """
    path = folder / "config.json"
    given = {key: value for key, value in load_json(path).items() if not key.startswith("_")}
    architecture = parse(Architecture, given, str(path))
    weights = folder / f"diffusion_pytorch_model{f'.{variant}' if variant else ''}.safetensors"
    if not weights.is_file():  # diffusers says which it looks for
        return
    with safe_open(weights, "pt") as file:
        names = file.keys()
        theirs = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    stages = [*architecture.stages, *([architecture.middle] if architecture.middle else [])]
    if sum(stage.depth for stage in stages) > len(theirs):
        raise ValueError(f"{path} asks for more layers than {weights.name} has tensors")
    try:
        with torch.device("meta"):
            state = build(architecture).state_dict()
    except (ValueError, RuntimeError, OverflowError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} describes nothing that can be built: {reason}") from None
    ours = {key: tuple(tensor.shape) for key, tensor in state.items()}
    differing = {
        "missing": ours.keys() - theirs.keys(),
        "unexpected": theirs.keys() - ours.keys(),
        "of another shape": {k for k in ours.keys() & theirs.keys() if ours[k] != theirs[k]},
    }
    found = [f"{len(keys)} {what}, first {min(keys)}" for what, keys in differing.items() if keys]
    if found:
        raise ValueError(f"the weights in {folder} are not its config.json's: {'; '.join(found)}")


def category_ids(categories: Tensor, context_length: int = 10) -> Tensor:
    """LCG rows of each sample's category.

    Args:
        categories: (B,) integers, 0 background, 1 foreground.

    Returns:
        (B, context_length): 0..9 for background, 10..19 for foreground.
    """
    rows = torch.arange(context_length, device=categories.device)
    return categories.long()[:, None] * context_length + rows


def _last_weight(module: nn.Module) -> nn.Parameter:
    weights = [p for p in module.parameters() if p.ndim >= 2]
    assert weights, f"{type(module).__name__} has no weight of two or more dimensions"
    return weights[-1]  # type: ignore[return-value]
