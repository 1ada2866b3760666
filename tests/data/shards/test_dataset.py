"""The stream over a set: the draws that were encoded, in any process, with bounded memory."""

import os
import threading
from pathlib import Path

import pytest
import torch
from made_latents import SPEC, make_set
from torch.utils.data import DataLoader

from moebius.data.latents import Numbers, encode_pixels
from moebius.data.shards.dataset import StoredLatents
from moebius.data.shards.files import KEPT_GROUPS
from moebius.data.shards.order import GROUP
from moebius.distill.batch import Noising


def test_with_the_sets_seed_the_first_epoch_is_the_stream(latents: Path, samples, codec):
    stored = StoredLatents(str(latents), SPEC.seed)
    assert len(stored) == 30 and stored.start_method is None
    for n in range(30):
        sample = samples[n]
        one = torch.tensor([int(sample["category"])])
        expected = encode_pixels(codec, sample["image"][None], sample["mask"][None], one)
        for key in ("clean", "masked", "mask", "category"):
            # bf16 keeps eight bits.
            torch.testing.assert_close(
                stored[n][key].float(), expected[key][0].float(), rtol=2**-8, atol=1e-5
            )
    masks = {n: stored[n]["mask"] for n in range(30)}
    again = [n for n in range(30, 60) if torch.equal(stored[n]["mask"], masks[n - 30])]
    assert len(again) < 20  # the second epoch has its own order


def test_a_batch_is_noised_as_online_ones_are(latents: Path, samples, codec):
    """What a loss sees: the same noise and timesteps, the same targets, inputs to bf16."""
    noising, numbers = Noising(0, "logit_normal", 0.0357), [2, 3, 17]
    device = torch.device("cpu")
    online = next(iter(DataLoader(samples, batch_sampler=[numbers])))
    encoded = encode_pixels(codec, online["image"], online["mask"], online["category"])
    stored = next(iter(DataLoader(StoredLatents(str(latents), SPEC.seed), batch_sampler=[numbers])))
    a, b = (noising(batch, numbers, device) for batch in (encoded, stored))
    assert a.clean.dtype == b.clean.dtype == a.sample.dtype == b.sample.dtype == torch.float32
    assert torch.equal(a.noise, b.noise) and torch.equal(a.timesteps, b.timesteps)
    assert torch.equal(a.category_ids, b.category_ids)
    torch.testing.assert_close(a.sample, b.sample, rtol=2**-6, atol=2**-6)
    torch.testing.assert_close(a.clean, b.clean, rtol=2**-6, atol=2**-6)


def test_loader_processes_read_what_one_process_reads(latents: Path):
    numbers = Numbers(1, 5, 8, 4, 0, 1)
    batches = [
        list(DataLoader(StoredLatents(str(latents), 0), batch_sampler=numbers, num_workers=n))
        for n in (0, 2)
    ]
    assert len(batches[0]) == 8
    for alone, shared in zip(*batches, strict=True):
        assert all(torch.equal(alone[key], shared[key]) for key in alone)


def test_what_is_kept_open_does_not_grow_with_the_set(samples, codec, tmp_path: Path):
    make_set(str(tmp_path / "set"), samples, codec, masks=3, shard_draws=1)
    stored = StoredLatents(str(tmp_path / "set"), 0)
    assert len(stored.index.shards) == 30
    for n in range(60):
        _ = stored[n]
        maps = Path("/proc/self/maps").read_text()
        open_ = {line.split()[-1] for line in maps.splitlines() if str(tmp_path / "set") in line}
        assert len(open_) <= KEPT_GROUPS * GROUP
    assert len(open_) == KEPT_GROUPS * GROUP


def test_an_object_store_is_read_as_a_folder_is(latents: Path, samples, codec, bucket, tmp_path):
    place = bucket.format("dataset")
    make_set(place, samples, codec, 3, 4)
    here = StoredLatents(str(latents), 0)
    there = StoredLatents(place, 0, copies=tmp_path / "copies")
    for n in range(35):
        assert torch.equal(here[n]["clean"], there[n]["clean"])
    assert there.start_method == "spawn"
    loader = DataLoader(
        there, batch_sampler=[[40, 41]], num_workers=1, multiprocessing_context="spawn"
    )
    (batch,) = loader
    assert torch.equal(batch["clean"][0], here[40]["clean"])


def test_the_next_shards_are_fetched_ahead(samples, codec, bucket, tmp_path: Path):
    place = bucket.format("ahead")
    make_set(place, samples, codec, 3, 4)
    stored = StoredLatents(place, SPEC.seed, copies=tmp_path / "copies")
    _ = stored[0]
    for thread in threading.enumerate():
        if thread.name.startswith("ahead"):
            thread.join(60)
    copies = {name for name in os.listdir(tmp_path / "copies") if name.endswith(".safetensors")}
    following = {stored.index.shards[n].name for n in (4, 5, 6, 7)}
    assert copies == following | {stored.index.shards[0].name}


def test_a_damaged_shard_stops_the_stream_by_name(latents: Path):
    stored = StoredLatents(str(latents), SPEC.seed)
    (path,) = latents.glob("000003-*")
    path.write_bytes(path.read_bytes()[:-1])
    _ = stored[11]
    with pytest.raises(ValueError, match=f"^shard {path.name} at .* does not match its checksum"):
        _ = stored[12]
