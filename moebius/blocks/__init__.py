"""Operators of the U-Net's four slots (self, cross, ffn, conv) and their registry."""

import moebius.torchvision_schemas  # noqa: F401  (before diffusers, which may import torchvision)
from moebius.blocks.convolution import DenseConv, DepthwiseSeparableConv, ResidualBlock
from moebius.blocks.cross_attention import CrossAttention
from moebius.blocks.feed_forward import GegluFeedForward, MixFeedForward
from moebius.blocks.gated_linear_attention import GatedLinearAttention
from moebius.blocks.interactive_lambda import InteractiveLambda
from moebius.blocks.local_lambda import LocalLambda
from moebius.blocks.mixing import LambdaMixBlock, MixingBlock, SpatialMixer
from moebius.blocks.registry import SLOTS, create, lookup, names, register

__all__ = [
    "SLOTS",
    "CrossAttention",
    "DenseConv",
    "DepthwiseSeparableConv",
    "GatedLinearAttention",
    "GegluFeedForward",
    "InteractiveLambda",
    "LambdaMixBlock",
    "LocalLambda",
    "MixFeedForward",
    "MixingBlock",
    "ResidualBlock",
    "SpatialMixer",
    "create",
    "lookup",
    "names",
    "register",
]
