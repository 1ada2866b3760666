"""Door: fill the holes of photographs, `python -m moebius.inpaint photo.jpg mask.png -o out.png`.

Folders work, too: masks are paired with photographs by their stem, or one mask serves all; what is
there already is skipped, so that the same command again goes on where it was stopped. A photograph
that cannot be filled does not stop the others; the exit code is then 1 and each is listed.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from diffusers.utils.logging import disable_progress_bar

from moebius.console import guard
from moebius.inference.batches import Batch, Item, folder, single
from moebius.inference.blending import Blend
from moebius.inference.files import check_fits, read_picture, write_picture
from moebius.inference.loading import cast
from moebius.inference.masks import Boxes, Mask
from moebius.inference.pipeline import InpaintPipeline
from moebius.inference.strategies import Strategy

PROGRAM = "python -m moebius.inpaint"
SEEDS = range(-(2**63), 2**64)  # what torch takes
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(kw_only=True)
class Options:
    """Fill the white part of a mask in a photograph, or in every photograph of a folder."""

    image: tyro.conf.Positional[Path]
    """Photograph, any size and format that Pillow reads; or a folder of them."""
    mask: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[MASK]")] = None
    """White = fill; one for all, or a folder with masks of the photographs' stems."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Where to write: a file, whose suffix chooses the format, or a folder for a folder. PNG,
    TIFF and WebP (lossless) keep known pixels to the byte."""
    model: str
    """Model folder, or a repository on the Hub."""
    variant: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Of a released repository or folder: ft_places2, ft_celebahq, ft_ffhq, pretrained."""
    arch: str = "lmi_dw_mixffn"
    """Architecture of a released checkpoint."""
    codec: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Latent codec in place of the model's own: builtin, a folder, or a repository on the Hub."""
    box: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="X0,Y0,X1,Y1")
    ] = field(default=())
    """Fill a rectangle, in place of a mask; may be repeated."""
    invert: bool = False
    """Fill what is not white."""
    fit_mask: bool = False
    """Resize masks of another size than their photograph."""
    steps: Annotated[int, tyro.conf.arg(metavar="N")] = 20
    """Steps of the schedule."""
    guidance: Annotated[float | None, tyro.conf.arg(metavar="G")] = None
    """Guidance scale, 1 = none; the model's own by default."""
    strength: float = 1.0
    """Below 1, start from the noised photograph, hidden pixels included; .99 is the release's."""
    strategy: Strategy = "auto"
    """Crop around each hole, resize the whole, refine large holes in tiles, or by hole size."""
    blend: Blend = "feather"
    """How the ring between the mask and the dilated mask is mixed."""
    dilation: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Pixels by which the mask grows, 0 for none; by default 1 % of the window around a hole."""
    num_images: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Results for each photograph, written to out_1.png, out_2.png, ..."""
    seed: int = 0
    """Seed of the noise; the same seed gives the same picture."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to run."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the denoiser; the codec stays in float32."""
    overwrite: bool = False
    """Fill photographs of a folder again whose outputs are there."""


def main(options: Options) -> int:
    """Fills everything; returns 1 if something failed, else 0.

    Raises:
        ValueError: anything wrong before the first photograph is begun, or with the only one.
    """
    _check(options)
    boxes = [_parse_box(box) for box in options.box]
    many = options.image.is_dir()
    collect = folder if many else single
    batch = collect(options.image, options.mask, options.output, options.num_images, options.seed)
    for mask in batch.unused:
        print(f"notice: {mask}: no photograph of this name", file=sys.stderr)
    todo = [item for item in batch.items if not (many and item.finished and not options.overwrite)]
    failed = list(batch.missing)
    if todo:
        pipeline = load(options)
        for number, item in enumerate(todo, 1):
            label = f"{number}/{len(todo)} {item.image.name}" if many else item.image.name
            pipeline.set_progress_bar_config(desc=label, disable=None, leave=not many)
            try:
                fill(pipeline, item, boxes, options)
            except (ValueError, OSError, RuntimeError, ArithmeticError) as error:
                if not many:
                    raise
                failed.append(_named(item.image, error))
    if many:
        _report(batch, len(batch.items) - len(todo), failed)
    return 1 if failed else 0


def load(options: Options) -> InpaintPipeline:
    """The model on its device."""
    device = pick_device(options.device)
    disable_progress_bar()  # diffusers' own, for loading
    pipeline = InpaintPipeline.from_pretrained(
        options.model, codec=options.codec, variant=options.variant, arch=options.arch
    )
    cast(pipeline.denoiser, DTYPES[options.dtype])
    return pipeline.to(device)


def fill(pipeline: InpaintPipeline, item: Item, boxes: Boxes, options: Options) -> None:
    """One photograph, from its file to its outputs."""
    image = read_picture(item.image)
    check_fits(image, item.outputs[0])
    mask: Mask = boxes if item.mask is None else read_picture(item.mask, "mask")
    results = pipeline(
        image,
        mask,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance,
        strength=options.strength,
        generator=[torch.Generator().manual_seed(seed) for seed in item.seeds],
        num_images_per_prompt=len(item.seeds),
        strategy=options.strategy,
        blend=options.blend,
        dilation=options.dilation,
        invert_mask=options.invert,
        fit_mask=options.fit_mask,
    ).images
    for result, path in zip(results, item.outputs, strict=True):
        write_picture(result, path)
        print(f"Wrote {path}")


def pick_device(name: str) -> torch.device:
    """Resolve `auto` to CUDA, Apple's MPS or the CPU, and refuse a device that is not there."""
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, there in present.items() if there)
    if not present[name]:
        raise ValueError(f"device {name} is not available on this machine: use --device auto")
    return torch.device(name)


def _check(options: Options) -> None:
    if not 1 <= options.steps <= 1000:
        raise ValueError(f"--steps is {options.steps}: use 1 to 1000")
    if not SEEDS.start <= options.seed < SEEDS.stop - options.num_images:
        raise ValueError(f"--seed is {options.seed}: use one from -2^63 to 2^64 - --num-images")
    if options.num_images < 1:
        raise ValueError(f"--num-images is {options.num_images}: use at least 1")
    if (options.mask is None) == (not options.box):
        raise ValueError("what is to be filled? Give a mask, or --box x0,y0,x1,y1, not both")
    for path in (options.image, options.mask):
        if path is not None and not path.exists():
            raise ValueError(f"{path}: no such file")
    if options.mask is not None and options.mask.is_dir() and not options.image.is_dir():
        raise ValueError(f"{options.mask}: a folder of masks needs a folder of photographs")
    if options.image.is_dir() and options.output.is_file():
        raise ValueError(f"{options.output}: is a file, a folder of photographs needs a folder")


def _parse_box(text: str) -> tuple[int, int, int, int]:
    try:
        left, top, right, bottom = map(int, text.split(","))
    except ValueError:
        raise ValueError(f"--box {text}: give four integers, x0,y0,x1,y1") from None
    return left, top, right, bottom


def _named(path: Path, error: Exception) -> str:
    reason = str(error).partition("\n")[0]
    return reason if reason.startswith(str(path)) else f"{path}: {reason}"


def _report(batch: Batch, skipped: int, failed: Sequence[str]) -> None:
    """What became of a folder: a line for each failure, and the sum."""
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    total = len(batch.items) + len(batch.missing)
    print(
        f"{total - skipped - len(failed)} of {total} photographs filled, "
        f"{skipped} were there already, {len(failed)} failed"
    )


if __name__ == "__main__":
    guard(
        lambda: sys.exit(
            main(tyro.cli(Options, prog=PROGRAM, config=(tyro.conf.FlagCreatePairsOff,)))
        )
    )
