"""The evaluation door: whole runs, resumed ones, with and without Ray, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import moebius
from moebius.config import Scoring
from moebius.evaluate import (
    Options,
    RayWorker,
    default_name,
    evaluate,
    main,
    make_method,
    make_scoring,
)
from moebius.evaluation.benchmark import Benchmark
from moebius.evaluation.evaluated import EvaluatedFolder
from moebius.evaluation.methods import DenoiserMethod, MeanMethod, ResultsMethod
from moebius.evaluation.pixels import read_picture
from moebius.pool import Actor
from moebius.scoring import Job, Sent, make_shards, open_folder, read_protocol
from moebius.storage import run_folder

SIZES = {"widths": [8, 8, 16], "norm_groups": 8, "heads": 4, "lcg_dim": 16, "context_dim": 8}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A tiny denoiser, never trained, saved alone."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    moebius.build("lmi_dw_mixffn", latent_size=8, **SIZES).save_pretrained(folder)
    return str(folder)


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "results").iterdir())}


def changed(before: dict[Path, int]) -> set[str]:
    return {p.name for p, time in before.items() if p.exists() and p.stat().st_mtime_ns != time}


def times(*folders: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for f in folders for p in f.rglob("*") if p.is_file()}


def test_a_model_is_filled_scored_and_described(model, tmp_path):
    scoring = Scoring(limit=3, steps=2)
    result = evaluate(DenoiserMethod("tiny", model, codec="builtin"), scoring, tmp_path)
    assert result == json.loads((tmp_path / "tiny" / "result.json").read_text())
    assert result["metrics"].keys() == {"psnr_hole", "ssim_hole", "psnr", "ssim"}
    assert 3 < result["metrics"]["psnr_hole"] < 30
    assert (result["images"], result["of"], result["compositing"]) == (3, 64, "hard")
    assert result["sampling"]["executed_steps"] == 2 and result["sampling"]["strength"] == 1
    assert len(result["method"]["denoiser_sha256"]) == 64
    assert result["notes"] == ["3 of the protocol's 64 pictures"]
    source = EvaluatedFolder(tmp_path)
    assert source.methods == ["tiny"] and source.finished(["tiny"]) == source.ids
    scores = source.scores("tiny")
    mean = np.mean([scores[name]["psnr_hole"] for name in source.ids])
    assert mean == pytest.approx(result["metrics"]["psnr_hole"])
    benchmark = Benchmark(tmp_path / "benchmark")
    for name in source.ids:
        item = benchmark.read(name)
        made = read_picture(tmp_path / "tiny" / "results" / f"{name}.png")
        assert np.array_equal(made[~item.hole], item.image[~item.hole])


def test_what_is_finished_is_not_made_anew(model, tmp_path):
    method, scoring = DenoiserMethod("tiny", model, codec="builtin"), Scoring(limit=3, steps=1)
    first, before = evaluate(method, scoring, tmp_path), pictures(tmp_path / "tiny")
    folders = (tmp_path / "benchmark", tmp_path / "tiny" / "results", tmp_path / "tiny" / "shards")
    made = times(*folders)
    assert evaluate(method, scoring, tmp_path) == first
    assert changed(made) == set()
    (tmp_path / "tiny" / "shards" / "000001.json").unlink()
    made = times(*folders)
    assert evaluate(method, scoring, tmp_path) == first
    assert {name for name in changed(made) if name.endswith(".png")} == {"coffee-001.png"}
    assert pictures(tmp_path / "tiny") == before
    other = evaluate(method, scoring.model_copy(update={"metrics": ["psnr"]}), tmp_path)
    assert other["metrics"] == {"psnr": first["metrics"]["psnr"]}
    assert pictures(tmp_path / "tiny") == before


@pytest.mark.parametrize(
    ("change", "named"), [({"steps": 2}, "sampling"), ({"parity": True}, "sampling")]
)
def test_other_settings_in_the_same_folder_are_refused(model, tmp_path, change, named):
    method, scoring = DenoiserMethod("tiny", model, codec="builtin"), Scoring(limit=2, steps=3)
    evaluate(method, scoring, tmp_path)
    with pytest.raises(ValueError, match=rf"tiny was made with other settings \({named}\)"):
        evaluate(method, scoring.model_copy(update=change), tmp_path)


def test_results_of_anything_else(tmp_path):
    """The truth scores perfectly; a wrong known pixel counts only as it is."""
    scoring = Scoring(limit=3)
    evaluate(MeanMethod("mean"), scoring, tmp_path)
    theirs = tmp_path / "theirs"
    shutil.copytree(tmp_path / "mean" / "results", theirs)
    for path in theirs.iterdir():
        mask = np.asarray(Image.open(tmp_path / "benchmark" / "masks" / path.name)) > 0
        pixels = np.array(Image.open(path))
        pixels[~mask] = 0
        Image.fromarray(pixels).save(path)
    pasted = evaluate(ResultsMethod("pasted", str(theirs)), scoring, tmp_path)
    mean = json.loads((tmp_path / "mean" / "result.json").read_text())
    assert pasted["metrics"] == mean["metrics"]
    as_is = evaluate(ResultsMethod("as_is", str(theirs), as_is=True), scoring, tmp_path)
    assert as_is["metrics"]["psnr"] < pasted["metrics"]["psnr"] - 5
    assert as_is["compositing"] == "none"
    assert "scored without pasting the known pixels back" in as_is["notes"]
    perfect = evaluate(
        ResultsMethod("truth", str(tmp_path / "benchmark" / "images")), scoring, tmp_path
    )
    assert perfect["metrics"]["psnr"] == float("inf")


@pytest.mark.ray
def test_pictures_are_the_same_to_the_byte_for_any_number_of_workers(
    model, tmp_path, bucket, monkeypatch
):
    """In a bucket, too, of which no worker sees the driver's copy."""
    monkeypatch.setenv("MOEBIUS_COPIES", str(tmp_path / "copies"))
    import ray

    ray.init(
        "local", num_cpus=4, log_to_driver=False, logging_level="ERROR", include_dashboard=False
    )
    try:
        method, scoring = DenoiserMethod("tiny", model, codec="builtin"), Scoring(limit=6, steps=1)
        results = {n: evaluate(method, scoring, tmp_path / str(n), n) for n in (0, 2)}
        made = {n: pictures(tmp_path / str(n) / "tiny") for n in results}
        assert len(made[0]) == 6 and made[0] == made[2]
        assert results[0]["metrics"] == results[2]["metrics"]
        kept = run_folder(bucket.format(f"{tmp_path.name}/scored"), "unused")
        again = evaluate(method, scoring, kept, 2)
        assert again["metrics"] == results[0]["metrics"] and pictures(kept / "tiny") == made[0]
        assert (tmp_path / "copies" / "worker").is_dir(), "workers worked in the driver's copy"
        with pytest.raises(ValueError, match="use at most --workers 3"):
            evaluate(MeanMethod("mean"), scoring, tmp_path / "2", 4)
    finally:
        ray.shutdown()


def test_a_worker_passes_on_what_it_refuses(tmp_path):
    """Ray would wrap it into pages; here it comes back as it was said."""
    scoring = Scoring(limit=2)
    evaluate(MeanMethod("mean"), scoring, tmp_path)
    theirs = tmp_path / "mean" / "results"
    broken = theirs / "coffee-001.png"
    broken.write_bytes(broken.read_bytes()[:200])
    benchmark, folder = Benchmark(tmp_path / "benchmark"), tmp_path / "theirs"
    open_folder(folder, {})
    method = ResultsMethod("theirs", str(theirs))
    sampling = read_protocol("builtin").sampling
    job = Job(method, sampling, benchmark, folder, ["psnr"], None, False, "cpu")
    actor = Actor(RayWorker, Sent.of(job))
    good, bad = (actor(shard.row()) for shard in make_shards(benchmark, folder, 1, {}))
    assert good["count"] == 1 and not good["refused"]
    assert "cannot read" in bad["refused"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(model="x", method="mean"), "name one thing to score, not --model and --method"),
        (Options(method="mean", name="a/b"), "cannot be a folder"),
        (Options(method="mean", name="benchmark"), "cannot be a folder"),
        (Options(method="mean", as_is=True), "--as-is is for --results"),
        (Options(method="mean", steps=5, parity=True), "--parity, --steps: for --model alone"),
        (Options(peer="nobody"), "unknown peer 'nobody'"),
    ],
)
def test_a_command_line_that_contradicts_itself_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_method(options)


def test_the_command_line_becomes_a_scoring_and_a_method():
    options = Options(protocol="ffhq_256", model="hustvl/Moebius/ft_ffhq", metrics=("psnr",))
    options.codec, options.limit, options.guidance = "hustvl/PixelHacker/vae", 7, 0.0
    scoring, method = make_scoring(options), make_method(options)
    assert isinstance(method, DenoiserMethod)
    assert (method.name, method.source) == ("hustvl_Moebius_ft_ffhq", "hustvl/Moebius/ft_ffhq")
    assert method.codec == "hustvl/PixelHacker/vae"
    assert (scoring.protocol, scoring.metrics, scoring.limit) == ("ffhq_256", ["psnr"], 7)
    assert scoring.guidance == 0
    assert default_name(options) == "evaluate/ffhq_256-first7"
    assert make_method(Options()) is None
    with pytest.raises(ValueError, match="command line: limit"):
        make_scoring(Options(limit=0))


def test_without_a_method_the_benchmark_is_prepared_for_others(tmp_path, capsys):
    main(Options(limit=2, out=tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmark"]
    assert len(EvaluatedFolder(tmp_path).ids) == 2
    assert "name what to score by --model" in " ".join(capsys.readouterr().err.split())


def test_the_table_shows_every_method_and_the_paper(tmp_path, capsys, monkeypatch):
    scoring = {"limit": 2, "out": tmp_path / "out", "metrics": ("psnr",)}
    main(Options(method="mean", **scoring))
    capsys.readouterr()
    images = tmp_path / "images"
    images.mkdir()
    for n in range(2):
        noise = np.random.default_rng(n).integers(256, size=(520, 530, 3), dtype=np.uint8)
        Image.fromarray(noise).save(images / f"{n}.png")
    scoring |= {"protocol": "places2_large", "images": str(images), "out": tmp_path / "places"}
    main(Options(method="mean", **scoring))
    main(Options(method="telea", **scoring))
    shown = capsys.readouterr()
    table = shown.out[shown.out.rindex("Places2 (Large), 2 pictures") :]
    for row in ("mean", "telea", "paper: Moebius", "paper: FLUX.1-Fill-Dev"):
        assert row in table
    notes = " ".join(shown.err.split())
    assert "2 of the protocol's 36,500 pictures" in notes
    assert "masks drawn here, not MAT's large 512 px masks" in notes


def test_protocols_are_listed(capsys):
    main(Options(list=True))
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 1 + 9, "one line each"
    assert any("places2_large" in line and "36,500" in line for line in listed)
