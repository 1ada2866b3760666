"""One graph from a picture and its mask to the filled picture, the sampling loop inside.

It is glue around the three graphs, and refers to their weight files. DDIM with leading spacing
(protocols, section 3): the number of steps is an input.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from moebius.deploy.onnx_files import OPSET

REQUIRED = {"prediction_type": "epsilon", "timestep_spacing": "leading", "clip_sample": False}

GLUE = """
<ir_version: 8, opset_import: ["": {opset}]>
pipeline (uint8[batch, height, width, 3] image, uint8[batch, height, width] mask,
          float[batch, {channels}, rows, columns] noise, int64 steps, float guidance_scale)
    => (uint8[batch, height, width, 3] result)
{{
    size = Shape <start = 1, end = 3> (image)
    negative = Neg (size)
    unit = Constant <value_ints = [{unit}, {unit}]> ()
    over = Mod (negative, unit)
    none = Constant <value_ints = [0]> ()
    front = Constant <value_ints = [0, 0, 0, 0, 0]> ()
    image_pads = Concat <axis = 0> (front, over, none)
    mask_front = Constant <value_ints = [0, 0, 0, 0]> ()
    mask_pads = Concat <axis = 0> (mask_front, over)
    padded = Pad <mode = "reflect"> (image, image_pads)
    padded_mask = Pad (mask, mask_pads)

    pixels = Cast <to = 1> (padded)
    half = Constant <value_float = 127.5> ()
    one = Constant <value_float = 1.0> ()
    divided = Div (pixels, half)
    signed = Sub (divided, one)
    encoder_image = Transpose <perm = [0, 3, 1, 2]> (signed)
    threshold = Constant <value_int = 127> ()
    threshold_byte = Cast <to = 2> (threshold)
    is_hole = Greater (padded_mask, threshold_byte)
    hole = Cast <to = 1> (is_hole)
    axis = Constant <value_ints = [1]> ()
    encoder_mask = Unsqueeze (hole, axis)
    from = Constant <value_ints = [0, 0]> ()
    to = Constant <value_ints = [9223372036854775807, 9223372036854775807]> ()
    axes = Constant <value_ints = [2, 3]> ()
    each = Constant <value_ints = [{factor}, {factor}]> ()
    denoiser_mask = Slice (encoder_mask, from, to, axes, each)

    train_steps = Constant <value_int = {train_steps}> ()
    stride = Div (train_steps, steps)
    offset = Constant <value_int = {offset}> ()
    zero = Constant <value_int = 0> ()
    one_step = Constant <value_int = 1> ()
    denoiser_masked_latents = Identity (encoder_masked_latents)
    denoiser_guidance_scale = Identity (guidance_scale)
    true = Constant <value_int = 1> ()
    go = Cast <to = 9> (true)
    decoder_latents = Loop (steps, go, noise) <body = step
        (int64 index, bool going, float[batch, {channels}, rows, columns] denoiser_latents)
        => (bool go_on, float[batch, {channels}, rows, columns] next)
    {{
        go_on = Identity (going)
        last = Sub (steps, one_step)
        left = Sub (last, index)
        grid = Mul (left, stride)
        now = Add (grid, offset)
        denoiser_timestep = Cast <to = 1> (now)
        then = Sub (now, stride)
        then_index = Max (then, zero)
        abar = Gather (alphas, now)
        abar_table = Gather (alphas, then_index)
        is_last = Less (then, zero)
        abar_then = Where (is_last, final_alpha, abar_table)
        variance = Sub (one, abar)
        sigma = Sqrt (variance)
        scale = Sqrt (abar)
        variance_then = Sub (one, abar_then)
        sigma_then = Sqrt (variance_then)
        scale_then = Sqrt (abar_then)
        noise_part = Mul (sigma, denoiser_noise)
        clean_scaled = Sub (denoiser_latents, noise_part)
        clean = Div (clean_scaled, scale)
        clean_then = Mul (scale_then, clean)
        noise_then = Mul (sigma_then, denoiser_noise)
        next = Add (clean_then, noise_then)
    }}>

    shifted = Add (decoder_image, one)
    scaled = Mul (shifted, half)
    rounded = Round (scaled)
    low = Constant <value_float = 0.0> ()
    high = Constant <value_float = 255.0> ()
    clipped = Clip (rounded, low, high)
    bytes = Cast <to = 2> (clipped)
    painted = Transpose <perm = [0, 2, 3, 1]> (bytes)
    image_axes = Constant <value_ints = [1, 2]> ()
    cropped = Slice (painted, from, size, image_axes)
    whole_hole = Greater (mask, threshold_byte)
    last_axis = Constant <value_ints = [-1]> ()
    hole_of_colours = Unsqueeze (whole_hole, last_axis)
    result = Where (hole_of_colours, cropped, image)
}}
"""


@dataclass(frozen=True)
class Schedule:
    """What DDIM needs to know of the noise.

    Attributes:
        alphas: cumulative products, one a training step.
        final_alpha: stands for the step before the first.
        offset: added to every timestep.
    """

    alphas: np.ndarray
    final_alpha: float
    offset: int


def read_schedule(scheduler: Any) -> Schedule:
    """The constants of a pipeline's scheduler, as DDIM uses them.

    Raises:
        ValueError: it predicts something else than noise, or spaces its steps otherwise.
    """
    ddim = DDIMScheduler.from_config(scheduler.config)
    for key, value in REQUIRED.items():
        if ddim.config[key] != value:
            raise ValueError(
                f"scheduler with {key} {ddim.config[key]!r}: the export knows {value!r} only"
            )
    return Schedule(
        ddim.alphas_cumprod.numpy().astype(np.float32),
        float(ddim.final_alpha_cumprod),
        int(ddim.config["steps_offset"]),
    )


def pipeline_onnx(
    models: Mapping[str, Any], schedule: Schedule, *, factor: int, multiple: int, channels: int
) -> Any:
    """Joins the graphs `encoder`, `denoiser` and `decoder`, as `write_onnx` returned them.

    Inputs: `image` (B, H, W, 3) and `mask` (B, H, W) uint8, 128 or more = hole; `noise`
    (B, 4, h, w), H and W rounded up to multiples of `factor * multiple` and divided by `factor`;
    `steps`; `guidance_scale`. Sides must be longer than half that multiple. The result equals
    the image outside the hole, to the byte.
    """
    from onnx import checker, compose, numpy_helper, parser

    glue = parser.parse_model(
        GLUE.format(
            opset=OPSET,
            channels=channels,
            unit=factor * multiple,
            factor=factor,
            train_steps=len(schedule.alphas),
            offset=schedule.offset,
        )
    )
    graph = glue.graph
    parts = {name: compose.add_prefix(m, f"{name}_").graph for name, m in models.items()}
    loop = next(node for node in graph.node if node.op_type == "Loop")
    # Weights are widened outside the loop, once.
    inside, outside = _split(parts["denoiser"])
    _insert(loop.attribute[0].g, inside, before="noise_part")
    _insert(graph, outside, before="denoiser_masked_latents")
    _insert(graph, parts["encoder"].node, before="denoiser_masked_latents")
    _insert(graph, parts["decoder"].node, before="shifted")
    constants = {"alphas": schedule.alphas, "final_alpha": np.float32(schedule.final_alpha)}
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()
    )
    for part in parts.values():
        graph.initializer.extend(part.initializer)
    checker.check_model(_without_weights(glue))
    return glue


def _split(graph: Any) -> tuple[list[Any], list[Any]]:
    """Nodes that depend on the graph's inputs, and casts of its weights."""
    weights = {tensor.name for tensor in graph.initializer}
    casts = [n for n in graph.node if n.op_type == "Cast" and n.input[0] in weights]
    names = {n.output[0] for n in casts}
    return [n for n in graph.node if n.output[0] not in names], casts


def _insert(graph: Any, nodes: Any, before: str) -> None:
    """Puts nodes in front of the one that computes `before`."""
    kept = list(graph.node)
    place = next(i for i, node in enumerate(kept) if before in node.output)
    del graph.node[:]
    graph.node.extend([*kept[:place], *nodes, *kept[place:]])


def _without_weights(model: Any) -> Any:
    """A copy in which weights are inputs: the checker would look for their files."""
    from onnx import ModelProto, helper

    bare = ModelProto()
    bare.CopyFrom(model)
    for tensor in model.graph.initializer:
        bare.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    del bare.graph.initializer[:]
    return bare
