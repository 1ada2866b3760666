"""Holes filled by a denoiser: the steps that run, what leaks, and noise that belongs to an id."""

import numpy as np
import pytest
import torch
from skimage import data

from moebius.config import Sampling
from moebius.evaluation.benchmark import Item
from moebius.evaluation.denoising import DenoiserFill
from moebius.models.codec import load_codec
from moebius.models.denoiser import Denoiser, build

SIDE = 64


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    sizes = {"widths": [8, 8, 16], "norm_groups": 8, "heads": 4, "lcg_dim": 16, "context_dim": 8}
    return build("lmi_dw_mixffn", latent_size=8, **sizes).eval()


@pytest.fixture(scope="module")
def codec():
    return load_codec("builtin")


@pytest.fixture
def items() -> list[Item]:
    hole = np.zeros((SIDE, SIDE), bool)
    hole[16:48, 8:40] = True
    return [
        Item(f"picture{n}", data.coffee()[n * 70 :][:SIDE, 100 : 100 + SIDE].copy(), hole)
        for n in range(3)
    ]


def fill(denoiser, codec, items, offset=0.0357, **sampling):
    settings = Sampling(**{"side": SIDE, "steps": 2, "guidance": 1.0, **sampling})
    return DenoiserFill(denoiser, codec, settings, offset)(items)


def changed_in_the_hole(item: Item) -> Item:
    return Item(item.name, np.where(item.hole[..., None], 255 - item.image, item.image), item.hole)


@pytest.mark.parametrize(
    ("start", "expected"),
    [("noise", list(range(950, -1, -50))), ("release", list(range(900, -1, -50)))],
)
def test_the_headline_runs_20_steps_and_the_release_19(denoiser, codec, items, start, expected):
    """Protocols, section 3 and trap 1."""
    seen: list[int] = []
    hook = denoiser.register_forward_pre_hook(lambda _, args: seen.append(int(args[1])))
    fill(denoiser, codec, items[:1], steps=20, start=start)
    hook.remove()
    assert seen == expected


def test_the_hole_leaks_only_as_released(denoiser, codec, items):
    for start, leaks in (("noise", False), ("release", True)):
        [own] = fill(denoiser, codec, items[:1], start=start)
        [other] = fill(denoiser, codec, [changed_in_the_hole(items[0])], start=start)
        assert np.array_equal(own, other) != leaks, start


def test_noise_belongs_to_the_id(denoiser, codec, items):
    forward, backward = fill(denoiser, codec, items), fill(denoiser, codec, items[::-1])
    for a, b in zip(forward, backward[::-1], strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1
    alone = [fill(denoiser, codec, [item])[0] for item in items]
    for a, b in zip(forward, alone, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1
    renamed = Item("another", items[0].image, items[0].hole)
    assert np.abs(fill(denoiser, codec, [renamed])[0].astype(int) - alone[0]).max() > 10


def test_guidance_and_noise_offset_are_obeyed(denoiser, codec, items):
    [plain] = fill(denoiser, codec, items[:1])
    for changed in ({"guidance": 2.5}, {"offset": 0.5}, {"steps": 3}):
        assert not np.array_equal(plain, fill(denoiser, codec, items[:1], **changed)[0]), changed


def test_smaller_pictures_are_enlarged_for_the_model_and_come_back(denoiser, codec, items):
    small = Item("a", items[0].image[::2, ::2].copy(), items[0].hole[::2, ::2].copy())
    [made] = fill(denoiser, codec, [small])
    assert made.shape == (SIDE // 2, SIDE // 2, 3) and made.dtype == np.uint8


def test_a_model_of_another_side_is_refused(denoiser, codec):
    with pytest.raises(ValueError, match="trained at 64 px and the protocol runs it at 512 px"):
        DenoiserFill(denoiser, codec, Sampling(), 0.0357)
