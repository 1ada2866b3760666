"""The schema of architectures: stages and what surrounds them."""

from typing import Any

from pydantic import Field, PositiveInt, model_validator

from moebius.config.schema import Strict

Operator = str | dict[str, Any]
"""An operator's registered name, or `{name: ..., option: ...}`."""


class Stage(Strict):
    """One resolution of the U-Net; the way up mirrors the way down with one layer more."""

    width: PositiveInt
    """Channels."""
    depth: PositiveInt = 2
    """Layers (residual block, then mixing block) going down; one more going up."""
    mixing: bool = True
    """False: residual blocks only."""
    self_mixer: Operator = Field("local_lambda", alias="self")
    cross_mixer: Operator = Field("interactive_lambda", alias="cross")
    feed_forward: Operator = Field("mix_ffn", alias="ffn")
    conv: Operator = "dw_conv"


class Architecture(Strict):
    """A denoiser: stages from the highest resolution down, and what surrounds them."""

    name: str = "unnamed"
    stages: list[Stage] = Field(min_length=1)
    middle: Stage | None = None
    """A block (conv, mixing, conv) below the last stage; `None` in students."""
    latent_size: PositiveInt = 64
    """Side of the latent that position tables are trained at (64 for 512 px)."""
    heads: PositiveInt = 8
    lcg_dim: PositiveInt = 3072
    """Width of the LCG table's embeddings."""
    context_dim: PositiveInt = 768
    """Width that the context is projected to."""
    context_length: PositiveInt = 10
    """LCG rows a sample."""
    norm_groups: PositiveInt = 32
    in_channels: PositiveInt = 9
    out_channels: PositiveInt = 4

    @model_validator(mode="after")
    def _widths_divide(self) -> "Architecture":
        stages = [*self.stages, *([self.middle] if self.middle else [])]
        for stage in stages:
            for what, divisor in (("norm_groups", self.norm_groups), ("heads", self.heads)):
                if stage.width % divisor:
                    raise ValueError(f"width {stage.width} is not a multiple of {what} {divisor}")
        return self
