"""What a client asks for: a picture, a mask, and settings; many are filled in one call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from moebius.inference.photograph import upright
from moebius.inference.pipeline import InpaintPipeline
from moebius.serving.uploads import Limits, decode_upload, encode_png

FILES = ("image", "mask")
SHOWN = 60
"""Most characters of a client's text that an answer repeats."""


@dataclass(frozen=True)
class Settings:
    """What requests that go through the model together have in common."""

    steps: int = 20
    guidance: float | None = None


@dataclass(frozen=True)
class Order:
    """One request; both files are read and known to fit each other."""

    image: Image.Image
    mask: Image.Image
    settings: Settings
    seed: int = 0


def read_order(
    files: Mapping[str, bytes], fields: Mapping[str, str], limits: Limits, max_steps: int
) -> Order:
    """Check a request as a whole.

    Raises:
        ValueError: a part that is missing, unknown, too large or wrong.
    """
    for name in FILES:
        if name not in files:
            raise ValueError(f"{name} is missing: send it as a file of multipart/form-data")
    unknown = sorted({*files, *fields} - {*FILES, "seed", "steps", "guidance"})
    if unknown:
        raise ValueError(f"{_shown(unknown[0])} unknown: use image, mask, seed, steps, guidance")
    steps = _number(fields, "steps", int, 20, (1, max_steps))
    seed = _number(fields, "seed", int, 0, (0, 2**63 - 1))
    guidance = _number(fields, "guidance", float, None, (0, 30))
    image, mask = (decode_upload(files[name], limits, name) for name in FILES)
    image, mask = upright(image, "image"), upright(mask, "mask")
    if image.size != mask.size:
        raise ValueError(
            f"the mask is {mask.width}x{mask.height} pixels and the image "
            f"{image.width}x{image.height}: send both in one size"
        )
    return Order(image, mask, Settings(steps, guidance), seed)


def fill_orders(pipeline: InpaintPipeline, orders: Sequence[Order]) -> list[bytes | str]:
    """PNG files, or what is wrong with an order; one that fails does not fail the others.

    Orders of the same settings go through the model together, as far as the pipeline's
    `batch_size` lets them: one at a time on a CPU, so that each result is that of a call alone.
    """
    results: list[bytes | str] = [""] * len(orders)
    groups: dict[Settings, list[int]] = {}
    for n, order in enumerate(orders):
        groups.setdefault(order.settings, []).append(n)
    for rows in groups.values():
        try:
            filled: list[bytes | str] = _fill(pipeline, [orders[n] for n in rows])
        except (ValueError, ArithmeticError, RuntimeError) as error:
            if len(rows) == 1:
                filled = [str(error).partition("\n")[0]]
            else:
                filled = [fill_orders(pipeline, [orders[n]])[0] for n in rows]
        for n, one in zip(rows, filled, strict=True):
            results[n] = one
    return results


def _fill(pipeline: InpaintPipeline, orders: Sequence[Order]) -> list[bytes | str]:
    settings = orders[0].settings
    filled = pipeline(
        [order.image for order in orders],
        [order.mask for order in orders],
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        generator=[torch.Generator().manual_seed(order.seed) for order in orders],
    ).images
    return [encode_png(image) for image in filled]


def _number(
    fields: Mapping[str, str], name: str, kind: type, default: Any, bounds: tuple[int, int]
) -> Any:
    if name not in fields:
        return default
    try:
        value = kind(fields[name])
    except ValueError:
        value = None
    low, high = bounds
    if value is None or not low <= value <= high:
        raise ValueError(f"{name} is {_shown(fields[name])}: use a number from {low} to {high}")
    return value


def _shown(text: str) -> str:
    """A client's text in one line, and not all of it."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
