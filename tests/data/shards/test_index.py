"""The index: what fits a recipe, and what is not taken for an index."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_latents import SPEC, make_codec, make_samples

from moebius.data.shards.index import check_fit, describe_encoding, differing, read_index
from moebius.data.shards.storage import open_storage


def read(folder: Path):
    return read_index(open_storage(str(folder)))


def test_a_set_fits_its_own_recipe_with_any_seed(latents: Path, codec):
    index = read(latents)
    assert index.encoding.draws == 30 and [shard.draws for shard in index.shards] == [4] * 7 + [2]
    for spec in (SPEC, replace(SPEC, seed=9), replace(SPEC, short_side=32)):
        check_fit(index, spec, codec, "here")
    check_fit(index, SPEC, make_codec(name="the same weights elsewhere"), "here")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": 64}, r"data.short_side: encoded \[32, 32\], recipe \[64, 64\]; data.size: "),
        ({"background_mask": "lama_thin_512"}, "data.background_mask: encoded lama_medium_512"),
        ({"max_hole": 0.5}, "data.max_hole: encoded 0.6, recipe 0.5"),
        ({"flip_probability": 0.0}, "data.flip_probability"),
    ],
)
def test_other_draws_are_refused_by_name(latents: Path, codec, change, said: str):
    with pytest.raises(ValueError, match=f"^latents at here do not fit the recipe .*{said}") as e:
        check_fit(read(latents), replace(SPEC, **change), codec, "here")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("other", [{"seed": 1}, {"scaling_factor": 0.5}])
def test_another_codec_is_refused(latents: Path, other):
    with pytest.raises(ValueError, match="codec: encoded by tiny, recipe tiny: other weights"):
        check_fit(read(latents), SPEC, make_codec(**other), "here")


def test_a_set_without_its_index_is_not_finished(latents: Path):
    (latents / "index.json").unlink()
    with pytest.raises(ValueError, match=r"index.json is missing at .*moebius.encode` writes it"):
        read(latents)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"shards": []}', "\0\xff", "[" * 100_000])
def test_a_damaged_index_is_one_line(latents: Path, text: str):
    (latents / "index.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=r"index.json at ") as caught:
        read(latents)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../../secret", "/etc/passwd", "000000-" + "0" * 63 + ".safetensors", "x.safetensors"]
)
def test_a_name_that_is_no_shards_is_refused(latents: Path, name: str):
    data = json.loads((latents / "index.json").read_text())
    data["shards"][3]["name"] = name
    (latents / "index.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"shards.3.name: String should match pattern"):
        read(latents)


def test_an_index_that_lacks_a_shard_is_refused(latents: Path):
    data = json.loads((latents / "index.json").read_text())
    del data["shards"][3]
    (latents / "index.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match="lists other shards than its settings ask for"):
        read(latents)


def test_what_sets_differ_in_is_named(samples, codec, tmp_path: Path):
    known = describe_encoding(samples, codec, "here", 3, 4)
    moved = make_samples(tmp_path / "moved", 10)
    assert differing(known, describe_encoding(moved, codec, "there", 3, 4)) == []
    fewer = make_samples(tmp_path / "fewer", 9)
    assert differing(known, describe_encoding(fewer, codec, "here", 3, 4)) == [
        "records_sha256",
        "draws",
    ]
    other = make_samples(tmp_path / "moved", 10, replace(SPEC, seed=4, max_hole=0.5))
    assert differing(known, describe_encoding(other, make_codec(1), "here", 3, 5)) == [
        "codec_sha256",
        "shard_draws",
        "max_hole",
        "seed",
    ]
