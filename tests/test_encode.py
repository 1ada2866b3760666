"""The encoding door: options, resumed jobs, with and without Ray, training from its latents."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from moebius.assembly import make_samples, provenance, train_run
from moebius.config import Recipe
from moebius.data.photographs import builtin_paths
from moebius.data.shards.index import describe_encoding, read_index
from moebius.data.shards.storage import open_storage
from moebius.encode import Job, Options, RayWorker, describe, encode, main, resolve_options
from moebius.models.codec import load_codec
from moebius.pool import Actor
from moebius.recipes import read_recipe
from moebius.train import Options as TrainingOptions
from moebius.train import missing_inputs
from moebius.train import resolve_options as resolve_training

TASK = {"distill.losses": ["task"], "data.cache": 0, "validation.pictures": 0}


def online(tiny_recipe: dict[str, Any], **changes: Any) -> Recipe:
    return read_recipe(tiny_recipe, {**TASK, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss/task"] for line in lines]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The built-in photographs, three masks each."""
    folder = tmp_path_factory.mktemp("made") / "latents"
    recipe = read_recipe("builtin", {"data.short_side": [64, 96]})
    index, unreadable = encode(recipe, str(folder), masks=3, shard_draws=3)
    assert index.encoding.draws == 21 and unreadable == []
    return folder


def test_training_from_latents_is_training_online(tiny_recipe, made: Path, tmp_path: Path):
    """The same draws, within bf16: losses and scores agree, step by step over 20 samples."""
    common = {"training.steps": 5, "training.log_every": 1}
    stored = {"data.latents": str(made), "data.source": "/not/read"}
    a = train_run(online(tiny_recipe, **common), tmp_path / "a", tmp_path)
    b = train_run(online(tiny_recipe, **common, **stored), tmp_path / "b", tmp_path)
    expected, found = losses(tmp_path / "a"), losses(tmp_path / "b")
    assert found[0] == pytest.approx(expected[0], rel=2e-3)
    assert found == pytest.approx(expected, rel=2e-2)
    assert found != expected  # bf16 rounds: it did read the shards
    assert b["psnr_hole"] == pytest.approx(a["psnr_hole"], abs=0.1)


def test_a_run_that_stops_goes_on_in_its_place(tiny_recipe, made: Path, tmp_path: Path):
    """7 steps of 4 are more than an epoch of 21; loader processes do not matter either."""
    latents = {"data.latents": str(made), "training.log_every": 1, "optimizer.linear_decay": False}
    whole = online(tiny_recipe, **latents, **{"training.steps": 7})
    train_run(whole, tmp_path / "whole", tmp_path)
    half = online(tiny_recipe, **latents, **{"training.steps": 3})
    train_run(half, tmp_path / "parts", tmp_path)
    train_run(
        whole.model_copy(update={"data": whole.data.model_copy(update={"workers": 1})}),
        tmp_path / "parts",
        tmp_path,
    )
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_latents_that_do_not_fit_stop_a_run_in_one_line(tiny_recipe, made: Path, tmp_path: Path):
    changes = {"data.latents": str(made), "data.flip_probability": 0.0}
    with pytest.raises(ValueError, match=r"data.flip_probability: encoded 0.5, recipe 0.0") as e:
        train_run(online(tiny_recipe, **changes), tmp_path / "run", tmp_path)
    assert "\n" not in str(e.value)


def test_latents_and_cache_exclude_each_other(tiny_recipe):
    with pytest.raises(ValueError, match="set data.cache=0 beside data.latents"):
        read_recipe(tiny_recipe, {"data.latents": "somewhere"})


def test_latents_stand_in_for_data_when_training(made: Path):
    assert "--data (folder or manifest) or --latents" in missing_inputs(read_recipe("paper"))
    for given in (str(made), "s3://bucket/set"):
        recipe, _ = resolve_training(TrainingOptions(latents=given))
        assert recipe.data.latents == given and recipe.data.encoded and recipe.data.cache == 0
        assert f"latents {given}" in provenance(recipe)
    recipe = read_recipe("paper", {"data.latents": str(made)})
    assert not any("--data" in name for name in missing_inputs(recipe))


def test_a_killed_job_makes_exactly_what_is_missing(made: Path, tmp_path: Path):
    """SIGKILL somewhere in the middle of a process; the end is the same to the byte."""
    out = tmp_path / "latents"
    command = [sys.executable, "-m", "moebius.encode", "data.short_side=[64,96]", "--in-process"]
    command += ["--masks", "3", "--shard-draws", "3", "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list(out.glob("*-*.safetensors")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    times = {path: path.stat().st_mtime_ns for path in out.glob("*-*.safetensors")}
    assert times and not (out / "index.json").exists()
    counted = list[int]()
    recipe = read_recipe("builtin", {"data.short_side": [64, 96]})
    encode(recipe, str(out), 3, 3, begin=lambda title, total: counted.append)
    assert len(counted) == 7 - len(times)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert contents(out) == contents(made)
    encode(recipe, str(out), 3, 3, begin=lambda title, total: counted.append)
    assert len(counted) == 7 - len(times)


@pytest.mark.ray
def test_ray_makes_what_is_missing_and_the_same_bytes(made: Path, tmp_path: Path):
    import ray

    ray.init(
        "local", num_cpus=3, log_to_driver=False, logging_level="ERROR", include_dashboard=False
    )
    try:
        recipe = read_recipe("builtin", {"data.short_side": [64, 96]})
        out, counted = Path(shutil.copytree(made, tmp_path / "latents")), list[int]()
        for number in (1, 4, 5, 6):
            next(out.glob(f"{number:06d}-*")).unlink()
        encode(recipe, str(out), 3, 3, 2, begin=lambda title, total: counted.append)
        assert contents(out) == contents(made) and counted == [3, 3, 3, 3]
        with pytest.raises(ValueError, match="use at most --workers 2"):
            encode(recipe, str(tmp_path / "other"), 3, 3, workers=3)
        manifest = tmp_path / "photographs.jsonl"
        manifest.write_text('{"image": "pipe.png", "category": "background"}')
        os.mkfifo(tmp_path / "pipe.png")
        hung = {"data.source": str(manifest), "data.timeout_s": 2}
        with pytest.raises(TimeoutError) as caught:
            encode(read_recipe("builtin", hung), str(tmp_path / "hung"), 3, 3, workers=1)
        (line,) = str(caught.value).splitlines()
        assert line.startswith("reading pipe.png (") and line.endswith("takes longer than 2 s")
    finally:
        ray.shutdown()


def test_a_worker_passes_on_what_it_refuses(tmp_path: Path):
    """Ray would wrap it into pages; here it comes back as it was said."""
    (tmp_path / "photo.png").write_bytes(b"none")
    recipe = read_recipe("builtin", {"data.source": str(tmp_path)})
    encoding = describe_encoding(make_samples(recipe), load_codec("builtin"), "here", 1, 4)
    job = Job(recipe.model_dump(mode="json"), str(tmp_path / "out"), encoding, "cpu")
    row = Actor(RayWorker, job)({"shard": 0})
    assert "1 of 1 images are unreadable" in row["refused"] and not row["hangs"]


def test_unreadable_photographs_are_named(tmp_path: Path, capsys):
    for path in builtin_paths("train"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "broken.png").write_bytes(b"none")
    options = Options(
        overrides=("data.max_unreadable=0.5",),
        data=str(tmp_path),
        out=str(tmp_path / "out"),
        in_process=True,
    )
    main(options)
    said = capsys.readouterr().err
    assert "1 unreadable photographs, others stand in for them: broken.png" in said
    assert "8 draws in 1 shards" in said
    assert f"train with --latents {tmp_path / 'out'}" in said
    assert read_index(open_storage(str(tmp_path / "out"))).encoding.draws == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(recipe="paper"), "needs --data and --codec"),
        (Options(masks=0), "--masks must be 1 or more"),
        (Options(shard_draws=-1), "--shard-draws must be 1 or more"),
        (Options(workers=0), "--workers must be 1 or more"),
        (Options(overrides=("data.sizes=64",)), "did you mean 'size'"),
    ],
)
def test_bad_options_are_one_line(options: Options, message: str):
    with pytest.raises(ValueError, match=message):
        resolve_options(options)


def test_a_recipe_says_where_its_latents_lie(tmp_path: Path):
    named = ("data.cache=0", "data.latents=s3://bucket/set")
    assert resolve_options(Options(overrides=named))[1] == "s3://bucket/set"
    assert resolve_options(Options(overrides=named, out="gs://b/c"))[1] == "gs://b/c"
    assert resolve_options(Options())[1] == str(Path("runs/latents").absolute())


def test_a_dry_run_says_what_it_takes(capsys, tmp_path: Path):
    codec, recipe = (
        load_codec("builtin"),
        read_recipe("builtin", {"data.size": 512, "data.short_side": 512}),
    )
    encoding = describe_encoding(make_samples(recipe), codec, "here", 2000, 1024)
    console = Console(record=True, width=100)
    console.print(describe(recipe, encoding, codec, 3))
    text = console.export_text()
    assert "14,000 draws of 512 px" in text.replace("draws  │ 14,000", "14,000 draws")
    assert "14 of 138 MB, 3 to make" in text and "1.89 GB" in text
    assert "on one L40S (estimate)" in text
    main(Options(out=str(tmp_path / "set"), dry_run=True))
    assert "1 to make" in capsys.readouterr().out and not (tmp_path / "set").exists()
