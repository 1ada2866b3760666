"""Copies of folders in an object store, by an S3 server in this process."""

import json
import os
from pathlib import Path

import pytest

from moebius.data import copies, origins
from moebius.data.copies import (
    bring,
    discard,
    forget,
    glance,
    here,
    is_copy,
    names_there,
    open_place,
    outline,
    place_of,
    publish,
    shown,
)
from moebius.data.origins import probe
from moebius.data.urls import join, parent_of

pytest.importorskip("pyarrow")


@pytest.fixture(autouse=True)
def own_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(copies.VARIABLE, str(tmp_path / "copies"))
    monkeypatch.setattr(origins, "WAITS_S", (0.0, 0.0))


@pytest.fixture
def place(bucket: str, tmp_path: Path) -> str:
    """A run's URL, another for each test."""
    return bucket.format(f"{tmp_path.name}/run")


@pytest.fixture
def run(place: str) -> Path:
    """A worker's copy with a checkpoint, metrics and a file in the middle of being written."""
    folder = open_place(place, "worker")
    write(folder / "metrics.jsonl", "one\n")
    write(folder / "checkpoints" / "step_000002" / "student.safetensors", "weights")
    write(folder / "checkpoints" / "step_000002" / "manifest.json", "{}")
    write(folder / ".process.json", "{}")
    write(folder / ".result.json.123", "half")
    return folder


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def files(folder: Path) -> dict[str, str]:
    """Texts of a copy's files, without what is its own."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    own = (origins.ORIGIN, origins.LOCK)
    return {str(p.relative_to(folder)): p.read_text() for p in found if p.name not in own}


def test_places_keep_their_query() -> None:
    url = "s3://bucket/runs?region=x"
    assert join(url, "a", "b") == "s3://bucket/runs/a/b?region=x"
    assert join("s3://bucket", "a") == "s3://bucket/a"
    assert parent_of(join(url, "a")) == url
    with pytest.raises(ValueError, match="names no folder in its bucket"):
        parent_of("s3://bucket")


def test_a_copy_knows_where_it_comes_from(place: str, tmp_path: Path) -> None:
    worker, driver = open_place(place, "worker"), open_place(place, "driver")
    assert worker != driver and is_copy(worker / "any" / "file")
    assert place_of(worker / "model") == shown(worker / "model") == join(place, "model")
    assert open_place(join(place, "trials", "1"), "worker") == worker / "trials" / "1"
    assert open_place(place.replace("run?", "run/?"), "worker") == worker
    assert not (worker / "trials").exists(), "what lies in a copy is one"
    plain = tmp_path / "plain"
    assert open_place(str(plain), "worker") == plain and not is_copy(plain)
    assert place_of(Path("plain")) == str(Path.cwd() / "plain") and shown(Path("p")) == "p"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("s3://key:secret@bucket/run", "keep credentials out of the URL"),
        ("nothing://bucket/run", "cannot be reached"),
        ("s3://bucket/../../etc", "must not hold '..'"),
    ],
)
def test_a_url_that_cannot_be_taken_is_one_line(url: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        open_place(url, "worker")
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "copies").exists()


def test_what_is_published_comes_back_elsewhere(run: Path, place: str) -> None:
    publish(run)
    whole = {name: text for name, text in files(run).items() if name != ".result.json.123"}
    assert files(bring(open_place(place, "driver"))) == whole
    assert "checkpoints/step_000002/manifest.json" in names_there(run)


def test_a_driver_leaves_checkpoints_where_they_are(run: Path, place: str) -> None:
    publish(run)
    driver = bring(open_place(place, "driver"), without=("checkpoints",))
    assert set(files(driver)) == {"metrics.jsonl", ".process.json"}
    write(driver / "checkpoints" / "mine", "")
    bring(driver, without=("checkpoints",))
    assert "checkpoints/mine" in files(driver)


def test_only_what_changed_travels(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(run)
    sent, plain = [], origins.Origin.send

    def send(self: origins.Origin, path: Path) -> None:
        sent.append(path.name)
        plain(self, path)

    monkeypatch.setattr(origins.Origin, "send", send)
    publish(run)
    assert sent == []
    (run / "metrics.jsonl").write_text("two\n")  # as long as before
    publish(run)
    assert sent == ["metrics.jsonl"]
    before = (run / "metrics.jsonl").stat().st_ino
    bring(run)
    assert (run / "metrics.jsonl").stat().st_ino == before, "it was fetched again"


def test_the_store_is_what_counts(run: Path, place: str) -> None:
    """A node that comes back has steps that another has taken again since."""
    publish(run)
    write(run / "checkpoints" / "step_000004" / "manifest.json", "never published")
    write(run / "metrics.jsonl", "other\n")
    os.rename(run / "checkpoints" / "step_000002", run / "away")
    bring(run)
    assert set(files(run)) == {
        "metrics.jsonl",
        "checkpoints/step_000002/manifest.json",
        "checkpoints/step_000002/student.safetensors",
        ".process.json",
        ".result.json.123",  # not a run's file yet: left to who writes it
    }
    assert (run / "metrics.jsonl").read_text() == "one\n"
    assert not (run / "checkpoints" / "step_000004").exists(), "an empty checkpoint is left"


def test_what_others_are_about_to_publish_is_kept(run: Path) -> None:
    publish(run)
    write(run / "latents", "new")
    bring(run, keep=True)
    assert (run / "latents").exists()


def test_signs_of_being_whole_go_last_and_leave_first(run: Path, monkeypatch) -> None:
    """A process that is killed in between leaves nothing that looks whole and is not."""
    order = []
    for verb in ("send", "delete"):
        plain = getattr(origins.Origin, verb)

        def noted(self, path: Path, verb=verb, plain=plain) -> None:
            order.append((verb, path.name))
            plain(self, path)

        monkeypatch.setattr(origins.Origin, verb, noted)
    monkeypatch.setattr(copies, "AT_ONCE", 1)
    write(run / "result.json", "{}")
    publish(run)
    assert {name for _, name in order[-2:]} == {"manifest.json", "result.json"}
    order.clear()
    for path in (run / "checkpoints" / "step_000002").iterdir():
        path.unlink()
    (run / "metrics.jsonl").unlink()
    publish(run, exactly=("checkpoints",))
    assert order == [("delete", "manifest.json"), ("delete", "student.safetensors")]
    assert "metrics.jsonl" in names_there(run), "only of checkpoints is the rest removed"


def test_a_store_that_refuses_is_asked_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries, plain = [], origins.shutil.copyfileobj

    def fails_twice(*args) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("busy\nmore")
        plain(*args)

    monkeypatch.setattr(origins.shutil, "copyfileobj", fails_twice)
    publish(run / "metrics.jsonl")
    assert len(tries) == 3 and names_there(run) == ["metrics.jsonl"]
    tries[:] = []
    write(run / "metrics.jsonl", "more\n")

    def fails(*args) -> None:
        raise OSError("busy\nmore")

    monkeypatch.setattr(origins.shutil, "copyfileobj", fails)
    with pytest.raises(OSError, match=r"^busy$"):
        publish(run / "metrics.jsonl")


def test_one_file_is_glanced_at_now_and_then(run: Path, place: str, monkeypatch) -> None:
    publish(run)
    seen = open_place(place, "driver") / "metrics.jsonl"
    glance(seen)
    assert seen.read_text() == "one\n"
    write(run / "metrics.jsonl", "one\ntwo\n")
    publish(run)
    glance(seen)
    assert seen.read_text() == "one\n", "it was looked at twice in five seconds"
    monkeypatch.setattr(copies, "GLANCE_S", 0.0)
    glance(seen)
    assert seen.read_text() == "one\ntwo\n"
    monkeypatch.setattr(origins.Origin, "listing", lambda *_: (_ for _ in ()).throw(OSError("x")))
    glance(seen)
    assert seen.read_text() == "one\ntwo\n"


def test_a_name_stands_for_what_is_here(run: Path, place: str) -> None:
    publish(run)
    assert (Path(here(place)) / "metrics.jsonl").read_text() == "one\n"
    assert here("hustvl/Moebius") == "hustvl/Moebius"
    with pytest.raises(ValueError, match=r"^nothing is at s3://photos/.*/none\?"):
        here(join(parent_of(place), "none"))


def test_an_outline_has_what_is_large_by_name_and_size(run: Path, place: str, monkeypatch) -> None:
    monkeypatch.setattr(copies, "OUTLINED", 5)
    publish(run)
    seen = outline(place)
    assert (seen / "metrics.jsonl").read_text() == "one\n"
    weights = seen / "checkpoints" / "step_000002" / "student.safetensors"
    assert weights.read_bytes() == b"\0" * len("weights")
    assert outline("runs") == Path("runs")
    assert (bring(open_place(place, "reader")) / weights.relative_to(seen)).read_text() == "weights"


def test_files_and_copies_can_go(run: Path, place: str) -> None:
    write(run / "error.txt", "why")
    publish(run)
    discard(run / "error.txt")
    discard(run / "error.txt")
    assert "error.txt" not in names_there(run) and not (run / "error.txt").exists()
    names = names_there(run)
    forget(run)
    assert not run.exists()
    assert names_there(open_place(place, "worker")) == names


def test_a_store_is_tried_before_it_is_needed(place: str) -> None:
    probe(place, ".seen")
    assert names_there(open_place(place, "worker")) == []
    with pytest.raises(OSError):
        probe(place.replace("photos", "no-such-bucket"), ".seen")


def test_what_is_no_copy_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write(path, json.dumps({}))
    for act in (bring, publish, glance, forget):
        act(path)
    assert path.read_text() == "{}"
    discard(path)
    assert not path.exists()
