"""What student and teacher see alike: their feature maps side by side (the paper's Fig. 4)."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from moebius.data.latents import LatentSample, encode_pixels
from moebius.data.manifest import read_records
from moebius.data.sample_spec import SampleSpec
from moebius.data.samples import fixed_pairs
from moebius.distill.taps import join_taps
from moebius.evaluation.plots import grey_hole
from moebius.evaluation.validation import to_levels
from moebius.models.codec import LatentCodec
from moebius.models.denoiser import Denoiser, category_ids
from moebius.models.latents import denoiser_input
from moebius.models.schedule import build_scheduler, draw_noise

Pair = tuple[str, str]
"""Names of a student's and a teacher's feature."""

TIMESTEPS = (250, 500, 750)
RANGE = (1, 99)
"""Percentiles of the teacher's map that the colours span."""

CELL, GROUP_GAP, HEAD, FOOT = 1.4, 0.25, 0.3, 0.3
"""Inches: from one picture to the next, before a timestep's pair, above and below them all."""


def feature_pairs(student: Denoiser, teacher: Denoiser, latent_size: int) -> list[Pair]:
    """Which features correspond, in the student's order.

    The coarse loss's taps, as `join_taps` has them; the other down stages by their number from
    the input, the up stages by theirs from the output, which the two networks share.
    """
    ours, theirs = student.feature_shapes(latent_size), teacher.feature_shapes(latent_size)
    tap, taught, _ = join_taps(student, teacher, latent_size, adapter=True)
    shift = len(teacher.architecture.stages) - len(student.architecture.stages)
    pairs = []
    for name in ours:
        kind, _, number = name.partition(".")
        other = f"up.{int(number) + shift}" if kind == "up" else name
        other = taught if name == tap else other
        if other in theirs:
            pairs.append((name, other))
    return pairs


@torch.no_grad()
def capture_features(
    denoiser: Denoiser, latents: LatentSample, timestep: int, seed: int = 0
) -> dict[str, Tensor]:
    """Named features (B, C, h, w) of photographs noised to a timestep.

    A photograph's noise depends on the seed and its place in the batch alone: both networks, at
    every timestep, see the same.

    Args:
        denoiser: in eval mode.
        latents: a batch, see `encode_pixels`.
        timestep: in [0, 1000).
        seed: of the noise.
    """
    assert not denoiser.training, "BatchNorm would move its statistics"
    clean, masked = latents["clean"][:, 0], latents["masked"][:, 0]
    generators = [torch.Generator().manual_seed(seed * 100_003 + n) for n in range(len(clean))]
    noise = draw_noise(clean.shape, generators).to(clean)
    steps = torch.full((len(clean),), timestep, device=clean.device)
    noisy = build_scheduler().add_noise(clean, noise, steps)
    ids = category_ids(latents["category"], denoiser.architecture.context_length)
    return denoiser(denoiser_input(noisy, latents["mask"], masked), steps, ids).features


def feature_similarity(
    student: Denoiser,
    teacher: Denoiser,
    latents: LatentSample,
    timesteps: Sequence[int] = TIMESTEPS,
    pairs: Sequence[Pair] | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """How alike features are: `cka/down.2/t500` and, where widths are equal, `cosine/down.2/t500`.

    Args:
        student, teacher: in eval mode.
        latents: a batch of photographs, on the networks' device.
        timesteps: at which to compare.
        pairs: what to compare; see `feature_pairs`.
        seed: of the noise.

    Raises:
        ValueError: a feature that one of the networks does not have.
    """
    side = latents["mask"].shape[-1]
    pairs = feature_pairs(student, teacher, side) if pairs is None else pairs
    for pair in pairs:
        join_taps(student, teacher, side, *pair, adapter=True)  # refuses unknown names
    found = {}
    for t in timesteps:
        ours = capture_features(student, latents, t, seed)
        theirs = capture_features(teacher, latents, t, seed)
        for name, other in pairs:
            for measure, value in compare_maps(ours[name], theirs[other]).items():
                found[f"{measure}/{name}/t{t}"] = value
    return found


def compare_maps(ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """`cka` of two maps (B, C, h, w) and, where C is equal, `cosine`; 1 = alike.

    Every cell of every photograph is one observation; the larger map is averaged to the smaller.
    The channels' means are taken away first: shared by all cells, they alone would look alike.

    `cka` needs no matching of channels: it does not change when either network's features are
    rotated or scaled. `cosine` is the mean over cells with the channels matched by number, as the
    coarse loss matches them. A matching fitted to the data is not tried: with as many channels
    as cells it would find likeness in noise.
    """
    x, y = _cells(ours, theirs)
    found = {"cka": linear_cka(x, y)}
    if x.shape[1] == y.shape[1]:
        found["cosine"] = F.cosine_similarity(x, y, dim=1).mean().item()
    return found


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear CKA of features (N, C1) and (N, C2), unbiased.

    CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = x x', L = y y' (Kornblith et al.
    2019, arXiv 1905.00414). HSIC is estimated without bias (Song et al. 2012, Eq. 5; for CKA
    Nguyen et al. 2021, arXiv 2010.15327), for the plain estimate calls independent features
    alike where channels outnumber observations, as 1280 do the 256 cells of a map. Independent
    features give 0 on average, now and then a little less.

    Raises:
        ValueError: less than four observations, or features without variation.
    """
    if len(x) < 4:
        raise ValueError(f"CKA of {len(x)} cells: four are the least, use more photographs")
    scale = (_hsic(x, x) * _hsic(y, y)).clamp(min=0).sqrt()
    if not scale > 0:
        raise ValueError("CKA of features that do not vary: is a network's output constant?")
    return (_hsic(x, y) / scale).item()


def _hsic(x: Tensor, y: Tensor) -> Tensor:
    """Song et al. 2012, Eq. 5, from the features: the N x N kernels are never formed."""
    n = len(x)
    # Diagonals of the kernels, and the sums of their rows without them.
    xx, yy = (x * x).sum(1), (y * y).sum(1)
    a, b = x @ x.sum(0) - xx, y @ y.sum(0) - yy
    trace = (x.T @ y).square().sum() - xx @ yy
    return (trace + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * (a @ b) / (n - 2)) / (n * (n - 3))


def _cells(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps as (B h w, C) doubles on the smaller grid, without their channels' means."""
    height, width = min(ours.shape[-2:], theirs.shape[-2:])
    pooled = [F.adaptive_avg_pool2d(m.double(), (height, width)) for m in (ours, theirs)]
    flat = [m.movedim(1, -1).flatten(0, 2) for m in pooled]
    return flat[0] - flat[0].mean(0), flat[1] - flat[1].mean(0)


def project(ours: Tensor, theirs: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both maps (B, C, h, w) on the first principal component of the teacher's, (B, h, w).

    The component, its sign and the mean are the teacher's for both, so that equal features have
    equal colours.

    Raises:
        ValueError: the maps have different widths.
    """
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(
            f"feature maps of {ours.shape[1]} and {theirs.shape[1]} channels have no common "
            "component to draw: choose features of equal width"
        )
    cells = theirs.double().movedim(1, -1).flatten(0, 2)
    mean = cells.mean(0)
    component = torch.linalg.svd(cells - mean, full_matrices=False).Vh[0]
    maps = [(m.double().movedim(1, -1) - mean) @ component for m in (ours, theirs)]
    return maps[0].cpu().numpy(), maps[1].cpu().numpy()


def draw_features(
    inputs: Sequence[np.ndarray],
    maps: Mapping[int, tuple[np.ndarray, np.ndarray]],
    similarity: Mapping[int, Mapping[str, float]],
    path: Path,
) -> None:
    """Draws a row a photograph, and a pair of maps a timestep, teacher first.

    Args:
        inputs: photographs with grey holes, (H, W, 3) uint8.
        maps: student's and teacher's maps by timestep, (B, h, w), B at least the photographs
            drawn; both share their colours.
        similarity: measures of each timestep, written under its pair.
        path: PNG to write.
    """
    rows = len(inputs)
    width = CELL * (1 + 2 * len(maps)) + GROUP_GAP * len(maps)
    height = CELL * rows + HEAD + FOOT
    figure = Figure(figsize=(width, height), dpi=150)

    def draw(left: float, title: str, pictures: Iterable[np.ndarray], **colours: Any) -> None:
        for row, picture in enumerate(pictures):
            bottom = FOOT + CELL * (rows - 1 - row)
            side = 0.95 * CELL
            box = (left / width, bottom / height, side / width, side / height)
            axes = figure.add_axes(box)
            axes.imshow(picture, interpolation="nearest", **colours)
            axes.set_axis_off()
            axes.set_title(title if row == 0 else "", fontsize=8)

    draw(0.03, "input", inputs)
    for n, (timestep, (ours, theirs)) in enumerate(maps.items()):
        left = CELL * (1 + 2 * n) + GROUP_GAP * (1 + n)
        low, high = np.percentile(theirs, RANGE)
        draw(left, f"teacher, t = {timestep}", theirs[:rows], vmin=low, vmax=high)
        draw(left + CELL, f"student, t = {timestep}", ours[:rows], vmin=low, vmax=high)
        text = ", ".join(f"{name} {value:.2f}" for name, value in similarity[timestep].items())
        figure.text((left + CELL) / width, FOOT / 2 / height, text, ha="center", fontsize=8)
    figure.savefig(path)


def features_figure(
    student: Denoiser,
    teacher: Denoiser,
    codec: LatentCodec,
    images: Tensor,
    masks: Tensor,
    out: Path,
    timesteps: Sequence[int] = TIMESTEPS,
    pair: Pair | None = None,
    seed: int = 0,
    rows: int = 4,
) -> dict[str, float]:
    """Draws the feature maps of two models on photographs and returns their similarity.

    Args:
        student, teacher: in eval mode.
        codec: of both.
        images: (B, 3, H, W) in [-1, 1].
        masks: (B, 1, H, W), 1 = hole.
        out: PNG to write.
        timesteps: noise levels to draw.
        pair: the features; by default the coarse loss's taps.
        seed: of the noise.
        rows: photographs to draw; similarity is measured over all of them.

    Returns:
        See `feature_similarity`.

    Raises:
        ValueError: no such feature, or features of different width.
    """
    device = codec.vae.device
    ours, theirs = student.to(device), teacher.to(device)
    latents = encode_pixels(codec, images, masks, torch.zeros(len(images)))
    side = latents["mask"].shape[-1]
    name, other, _ = join_taps(ours, theirs, side, *(pair or ()), adapter=True)  # type: ignore[misc]
    maps, captions = {}, {}
    for t in timesteps:
        taken = capture_features(ours, latents, t, seed)[name]
        taught = capture_features(theirs, latents, t, seed)[other]
        maps[t], captions[t] = project(taken, taught), compare_maps(taken, taught)
    shown, holes = to_levels(images[:rows]), masks[:rows, 0].cpu().numpy().astype(bool)
    inputs = [grey_hole(image, hole) for image, hole in zip(shown, holes, strict=True)]
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_features(inputs, maps, captions, out)
    return {f"{key}/{name}/t{t}": v for t, row in captions.items() for key, v in row.items()}


def builtin_pairs(size: int, count: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Crops of the built-in validation photographs, (B, 3, size, size), and masks, 1 channel."""
    pairs = fixed_pairs(read_records("builtin:validation"), SampleSpec(size=size), count, seed)
    return torch.stack([p["image"] for p in pairs]), torch.stack([p["mask"] for p in pairs])
