"""Latents of samples: what is stored, when a stored file is taken, who reads which number."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_latents import SPEC, make_codec, make_samples
from torch.utils.data import DataLoader

from moebius.data import latents
from moebius.data.latents import CachedLatents, Numbers, cache_latents, encode_pixels
from moebius.data.samples import InpaintingSamples
from moebius.models.codec import LatentCodec


@pytest.fixture(scope="module")
def codec() -> LatentCodec:
    return make_codec()


@pytest.fixture
def samples(tmp_path: Path) -> InpaintingSamples:
    return make_samples(tmp_path)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_moments_are_those_of_the_crop_and_of_its_known_part(codec: LatentCodec):
    image, mask = torch.rand(2, 3, 32, 48) * 2 - 1, torch.zeros(2, 1, 32, 48)
    mask[:, :, 8:24, 16:32] = 1
    encoded = encode_pixels(codec, image, mask, torch.tensor([0, 1]))
    assert encoded["clean"].shape == encoded["masked"].shape == (2, 2, 4, 4, 6)
    for key, pixels in (("clean", image), ("masked", image * (1 - mask))):
        mean, std = codec.moments(pixels)
        torch.testing.assert_close(encoded[key][:, 0], mean)  # type: ignore[literal-required]
        torch.testing.assert_close(encoded[key][:, 1], std)  # type: ignore[literal-required]
    expected = torch.zeros(2, 1, 4, 6)
    expected[:, :, 1:3, 2:4] = 1
    assert torch.equal(encoded["mask"], expected)
    assert encoded["category"].tolist() == [0, 1]
    assert not encoded["clean"].requires_grad


def test_the_cache_holds_the_first_draws_and_repeats_them(samples, codec, tmp_path: Path):
    cached = cache_latents(samples, codec, 20, tmp_path / "latents")  # more than one batch
    assert len(cached) == 20
    for n in (0, 17, 19):
        sample = samples[n]
        alone = encode_pixels(codec, sample["image"][None], sample["mask"][None], torch.zeros(1))
        for key in ("clean", "masked", "mask"):
            torch.testing.assert_close(cached[n][key], alone[key][0], atol=1e-5, rtol=1e-5)
            assert torch.equal(cached[n + 20][key], cached[n][key])
    batch = next(iter(DataLoader(cached, batch_sampler=[[3, 23]])))
    assert batch["clean"].shape == (2, 2, 4, 4, 4) and batch["mask"].shape == (2, 1, 4, 4)
    assert torch.equal(batch["clean"][0], batch["clean"][1])


def test_a_stored_file_is_read_and_not_made_again(samples, codec, tmp_path, monkeypatch):
    folder = tmp_path / "latents"
    first = cache_latents(samples, codec, 5, folder)
    assert len(files(folder)) == 1

    def fail(*arguments: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(latents, "encode_pixels", fail)
    again = cache_latents(samples, make_codec(name="the same weights elsewhere"), 5, folder)
    assert isinstance(again, CachedLatents)
    assert all(torch.equal(again.tensors[key], first.tensors[key]) for key in first.tensors)


def test_what_the_draws_depend_on_names_the_file(samples, codec, tmp_path: Path):
    folder = tmp_path / "latents"
    records = samples.records
    cache_latents(samples, codec, 4, folder)
    variants = [
        (samples, make_codec(seed=1), 4),  # retrained under the same name
        (samples, make_codec(scaling_factor=0.5), 4),
        (samples, codec, 5),
        (InpaintingSamples(records, replace(SPEC, seed=4)), codec, 4),
        (InpaintingSamples(records, replace(SPEC, flip_probability=0.0)), codec, 4),
        (InpaintingSamples(records[:3], SPEC), codec, 4),
    ]
    for n, variant in enumerate(variants, start=2):
        cache_latents(*variant, folder)
        assert len(files(folder)) == n


def test_a_failure_leaves_nothing_that_would_be_taken(samples, codec, tmp_path, monkeypatch):
    def fail(tensors: dict, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(latents, "save_file", fail)
        cache_latents(samples, codec, 4, tmp_path / "latents")
    assert len(cache_latents(samples, codec, 4, tmp_path / "latents")) == 4


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("parts", [1, 2])
def test_workers_share_the_numbers_that_one_takes(workers: int, parts: int):
    total, first, steps = 24, 2, 5
    share = total // workers
    streams = [
        list(Numbers(first, steps, total, share // parts, rank, workers)) for rank in range(workers)
    ]
    (alone,) = [list(Numbers(first, steps, total, total, 0, 1))]
    for step in range(steps - first):
        taken = [
            number
            for stream in streams
            for batch in stream[step * parts : (step + 1) * parts]
            for number in batch
        ]
        assert (
            taken == alone[step] == list(range((first + step) * total, (first + step + 1) * total))
        )
    for stream, rank in zip(streams, range(workers), strict=True):
        numbers = Numbers(first, steps, total, share // parts, rank, workers)
        assert len(stream) == len(numbers) == (steps - first) * parts
        assert {len(batch) for batch in stream} == {share // parts}


def test_numbers_of_a_finished_run_are_none():
    assert list(Numbers(5, 5, 8, 4, 0, 1)) == [] and len(Numbers(5, 5, 8, 4, 0, 1)) == 0
