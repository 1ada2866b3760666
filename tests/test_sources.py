"""What a recipe names and is not there: one line that names the key, before anything starts."""

from pathlib import Path
from typing import Any

import pytest

from moebius import train, tune
from moebius.recipes import read_recipe
from moebius.sources import check_sources

PERCEPTUAL = {"distill.losses": ["task", "perceptual"]}


def test_what_is_there_or_elsewhere_passes(tiny_recipe: dict[str, Any]) -> None:
    for overrides in (
        {},
        {"teacher": {"path": "owner/name/folder"}, "codec": "owner/name", "init_from": "a/b"},
        {"data.latents": "s3://bucket/latents", "data.cache": 0},
        {"teacher": {"path": "s3://bucket/teacher"}},
        {**PERCEPTUAL, "distill.perceptual_weights": "random"},
        # What is not used is not asked for.
        {"distill.losses": ["task"], "teacher": {"path": "/nowhere"}},
    ):
        check_sources(read_recipe(tiny_recipe, overrides))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"teacher": {"path": "/nowhere"}}, "teacher.path: no model at /nowhere"),
        ({"teacher": {"path": "teacher.bin"}}, "teacher.path: no model at teacher.bin"),
        ({"init_from": "/nowhere"}, "init_from: no model at /nowhere"),
        ({"codec": "./vae"}, "codec: codec './vae' is no folder here"),
        (
            {**PERCEPTUAL, "distill.perceptual_weights": "weights.safetensors"},
            "distill.perceptual_weights: No E-LatentLPIPS weights at weights.safetensors",
        ),
        ({"data.source": "photos.jsonl"}, "data.source: no data at 'photos.jsonl'"),
        ({"validation.source": "/nowhere"}, "validation.source: no data at '/nowhere'"),
        ({"data.latents": "/nowhere", "data.cache": 0}, "data.latents: no latents to train on"),
        (
            {"teacher": {"train": {"codec": "/nowhere"}}},
            "codec: codec '/nowhere' is no folder here",
        ),
    ],
)
def test_what_is_not_there_is_named_with_its_key(
    tiny_recipe: dict[str, Any], overrides: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError) as caught:
        check_sources(read_recipe(tiny_recipe, overrides))
    (line,) = str(caught.value).splitlines()
    assert line.startswith(said)


def test_an_empty_folder_is_no_model(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"teacher.path: no model at {tmp_path}"):
        check_sources(read_recipe(tiny_recipe, {"teacher": {"path": str(tmp_path)}}))


def test_doors_ask_before_they_start(
    tiny_recipe: dict[str, Any], write_yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start() -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(train, "start_ray", start)
    monkeypatch.setattr(tune, "start_ray", start)
    recipe, out = write_yaml("recipe.yaml", tiny_recipe), tmp_path / "out"
    with pytest.raises(ValueError, match=r"teacher\.path: no model at /nowhere"):
        train.main(train.Options(recipe=str(recipe), teacher="/nowhere", out=out))
    grid = {"teacher": [{"path": "/nowhere"}]}
    sweep = write_yaml("sweep.yaml", {"name": "x", "recipe": tiny_recipe, "grid": grid})
    for in_process in (True, False):
        with pytest.raises(ValueError, match=r"teacher\.path: no model at /nowhere"):
            tune.main(tune.Options(sweep, out=out, in_process=in_process))
    assert not out.exists()
