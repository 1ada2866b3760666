"""Where a run is kept, and what is refused because it would be lost."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import moebius
from moebius import runs
from moebius.data import copies
from moebius.data.copies import bring, open_place, place_of, publish
from moebius.data.urls import join
from moebius.distill.run_folder import RunFolder
from moebius.storage import VARIABLE, kept_folder, run_folder

COPY = "session/runtime_resources/working_dir_files/_ray_pkg_0"


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a cluster's job; its home is `tmp_path/home`."""
    copy = tmp_path / COPY
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv(VARIABLE, raising=False)
    return copy


def test_runs_lie_here_unless_a_place_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert kept_folder(None, "tiny") == Path("runs/tiny")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert kept_folder(None, "tiny") == tmp_path / "tiny"
    assert kept_folder(Path("here"), "tiny") == Path("here")


def test_a_job_keeps_its_runs_outside_its_temporary_copy(job, tmp_path, caplog, monkeypatch):
    home = tmp_path / "home" / "moebius" / "runs" / "tiny"
    assert kept_folder(None, "tiny") == home
    assert [record.getMessage() for record in caplog.records] == [
        f"this job's working folder is a temporary copy: the run is kept in {home}"
    ]
    monkeypatch.setenv(VARIABLE, str(tmp_path / "shared"))
    assert kept_folder(None, "tiny") == tmp_path / "shared" / "tiny"
    assert kept_folder(tmp_path / "out", "tiny") == tmp_path / "out"


def test_a_named_place_inside_the_copy_is_refused(job, monkeypatch) -> None:
    with pytest.raises(ValueError, match=r"^out would vanish .* in --out or MOEBIUS_STORAGE$"):
        kept_folder(Path("out"), "tiny")
    with pytest.raises(ValueError, match="would vanish"):
        kept_folder(job / "out", "tiny")
    monkeypatch.setenv(VARIABLE, "storage")
    with pytest.raises(ValueError, match=r"^storage/tiny would vanish"):
        kept_folder(None, "tiny")


@pytest.mark.parametrize("url", ["s3://bucket/runs", "gs://bucket", "hdfs://host:1/runs"])
def test_what_needs_a_folder_takes_no_url(url: str, monkeypatch) -> None:
    with pytest.raises(ValueError, match=r"kept in a folder, not under"):
        kept_folder(Path(url), "tiny")
    monkeypatch.setenv(VARIABLE, url)
    with pytest.raises(ValueError, match=r"kept in a folder, not under"):
        kept_folder(None, "tiny")


def test_runs_are_listed_where_they_are_kept(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert runs.List().root == Path("runs")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert runs.List().root == runs.Clean().root == tmp_path


# --- in an object store -----------------------------------------------------------------------


@pytest.fixture
def own_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(copies.VARIABLE, str(tmp_path / "copies"))
    return tmp_path / "copies"


def test_a_run_in_a_bucket_is_a_copy_with_what_a_driver_needs(bucket, own_copies, monkeypatch):
    place = bucket.format("storage/tiny")
    worker = open_place(place, "worker")
    for name in ("metrics.jsonl", "checkpoints/step_000002/manifest.json", "model/model.bin"):
        (worker / name).parent.mkdir(parents=True, exist_ok=True)
        (worker / name).write_text(name)
    publish(worker)
    folder = run_folder(place, "unused")
    assert [p.name for p in folder.iterdir()] == ["metrics.jsonl"]
    assert place_of(folder) == place
    assert place_of(folder.parent / "teacher") == bucket.format("storage/teacher")
    monkeypatch.setenv(VARIABLE, bucket.format("storage"))
    assert run_folder(None, "tiny") == folder


def test_a_folder_stays_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert run_folder(None, "tiny") == tmp_path / "tiny"
    assert run_folder("here", "tiny") == run_folder(Path("here"), "tiny") == Path("here")


def test_a_bucket_that_does_not_answer_is_one_line(bucket, own_copies) -> None:
    place = bucket.format("run").replace("photos", "no-such-bucket")
    with pytest.raises(ValueError, match=r"^s3://no-such-bucket/run\?.* cannot be reached: .*$"):
        run_folder(place, "tiny")


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_sweep_in_a_bucket_goes_on_from_any_machine(
    bucket, own_copies: Path, tiny_recipe, write_yaml
) -> None:
    """What was copied here goes in between, as when the next driver runs elsewhere."""
    place = bucket.format("sweeps/tiny")
    sweep = {
        "name": "tiny",
        "recipe": {**tiny_recipe, "distill": {"losses": ["task", "fine"]}},
        "grid": {"arch": ["lmi_dw_mixffn"]},
        "promote": {"overrides": {"training.steps": 8}, "warm_start": True},
        "score": {"protocol": "builtin", "limit": 2, "steps": 2, "metrics": ["psnr"]},
    }
    command = [sys.executable, "-m", "moebius.tune", write_yaml("tiny.yaml", sweep), "--out", place]
    trained, logged = [], []
    for steps in (8, 10):
        done = subprocess.run(
            [*command, f"promote.overrides={{training.steps: {steps}}}"],
            capture_output=True,
            text=True,
            timeout=400,
            env={**os.environ, "RAY_memory_monitor_refresh_ms": "0"},
        )
        assert done.returncode == 0, done.stderr
        assert f"model, table and pictures in {place}" in done.stderr
        assert not list((own_copies / "worker").rglob("metrics.jsonl")), "a copy was left"
        shutil.rmtree(own_copies)
        seen = bring(open_place(place, "driver"))
        rows = [*csv.DictReader((seen / "results.csv").open())]
        assert len(rows) == 2 and all(float(row["psnr"]) > 0 for row in rows)
        assert moebius.InpaintPipeline.from_pretrained(join(place, "model"))
        logged.append(RunFolder(seen / "promoted").read_metrics())
        trained.append((seen / "trials" / "lmi_dw_mixffn" / "metrics.jsonl").stat().st_mtime_ns)
    assert trained[0] == trained[1], "a finished trial was repeated"
    assert [[line["step"] for line in lines] for lines in logged] == [[8], [8, 10]]
    assert logged[0][0] == logged[1][0], "the promotion did not go on from its checkpoint"
