"""Where a run is kept, and what is refused because it would be lost."""

from pathlib import Path

import pytest

from moebius import runs
from moebius.storage import VARIABLE, kept_folder

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
def test_a_url_is_no_folder(url: str, monkeypatch) -> None:
    with pytest.raises(ValueError, match=r"mount the storage on every node"):
        kept_folder(Path(url), "tiny")
    monkeypatch.setenv(VARIABLE, url)
    with pytest.raises(ValueError, match=r"mount the storage on every node"):
        kept_folder(None, "tiny")


def test_runs_are_listed_where_they_are_kept(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert runs.List().root == Path("runs")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert runs.List().root == runs.Clean().root == tmp_path
