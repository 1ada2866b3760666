"""What happens to runs and sweeps that are killed, run out of disk, or find damage; without Ray."""

import logging
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from killing import (
    KILLED,
    QUICKSTART,
    SHRUNKEN,
    logged,
    outcome,
    run_apart,
    start_apart,
    sweep,
    train,
    weights,
)

from moebius.assembly import train_run
from moebius.data import copies, origins
from moebius.data.copies import open_place
from moebius.distill import run_folder
from moebius.distill.checkpoints import NotSaved, newest_checkpoint
from moebius.distill.run_folder import RunFolder
from moebius.recipes import read_recipe
from moebius.restarts import whole_there


@pytest.fixture
def recipe(tiny_recipe: dict[str, Any]) -> dict[str, Any]:
    """Six steps, a checkpoint every second one, no teacher."""
    return {**tiny_recipe, "distill": {"losses": ["task"]}}


@pytest.fixture
def undisturbed(recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that nothing has happened to; made once."""
    folder = tmp_path_factory.getbasetemp() / "undisturbed"
    if not folder.exists():
        assert run_apart(train, recipe, folder) == 0
    return folder


def steps_taken(folder: Path) -> list[int]:
    """Every step that a run has taken, those that were lost and taken again too."""
    return [int(n) for n in (folder.parent / f"{folder.name}-steps.txt").read_text().split()]


def test_killed_in_steps_it_loses_what_was_not_saved_and_ends_the_same(
    recipe, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    for step in (1, 4, 6):
        assert run_apart(train, recipe, run, step) == KILLED
    assert run_apart(train, recipe, run) == 0
    assert steps_taken(run) == [1, 1, 2, 3, 4, 3, 4, 5, 6, 5, 6]
    assert weights(run) == weights(undisturbed)
    losses = [
        [line["loss/total"] for line in RunFolder(folder).read_metrics()]
        for folder in (undisturbed, run)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_killed_anywhere_in_a_checkpoint_it_goes_on_from_the_one_before(
    recipe, undisturbed: Path, tmp_path: Path
) -> None:
    """Four files, their manifest, the folder, and the folder of folders are brought to the disk."""
    run = tmp_path / "killed"
    for sync in range(1, 8):
        assert run_apart(train, recipe, run, None, sync) == KILLED
        saved = newest_checkpoint(run / "checkpoints")
        assert (saved is not None) == (sync == 7), "only what is whole counts"
    assert run_apart(train, recipe, run) == 0
    assert steps_taken(run) == [1, 2] * 7 + [3, 4, 5, 6]
    assert weights(run) == weights(undisturbed)


def test_a_damaged_checkpoint_costs_its_steps_and_one_line(
    recipe, undisturbed: Path, tmp_path: Path, caplog
) -> None:
    run = tmp_path / "run"
    assert run_apart(train, recipe, run, 5) == KILLED
    (run / "checkpoints" / "step_000004" / "optimizer.pt").unlink()
    with caplog.at_level(logging.WARNING):
        train_run(read_recipe(recipe), run, tmp_path)
    refused = [r.getMessage() for r in caplog.records if "refused" in r.getMessage()]
    assert len(refused) == 1 and "step_000004 is refused: optimizer.pt is missing" in refused[0]
    assert weights(run) == weights(undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that holds one checkpoint and a half."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if mount("-t", "tmpfs", "-o", "size=1600k", "tmpfs", disk):
        pytest.skip("mounting needs root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def mount(*arguments: str | Path) -> int:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode


def test_a_full_disk_stops_the_run_and_keeps_the_checkpoint_before(
    recipe, small_disk: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = small_disk / "run"
    with pytest.raises(NotSaved) as caught:
        train_run(read_recipe(recipe), run, tmp_path)
    (line,) = str(caught.value).splitlines()
    assert "step_000004 cannot be written" in line and "No space left on device" in line
    saved = newest_checkpoint(run / "checkpoints")
    assert saved is not None and [saved] == list((run / "checkpoints").iterdir())
    assert saved.name == "step_000002"
    assert mount("-o", "remount,size=64m", small_disk) == 0
    train_run(read_recipe(recipe), run, tmp_path)
    assert weights(run) == weights(undisturbed)


def test_a_bucket_that_takes_no_checkpoint_stops_the_run_and_keeps_the_one_before(
    recipe, bucket: str, undisturbed: Path, tmp_path: Path, monkeypatch, caplog
) -> None:
    """Metrics between checkpoints may wait; what the store does not know of is taken again."""
    monkeypatch.setenv(copies.VARIABLE, str(tmp_path / "copies"))
    monkeypatch.setattr(origins, "WAITS_S", (0.0,))
    monkeypatch.setattr(run_folder, "PUBLISH_EVERY_S", 0.0)
    run, plain = open_place(bucket.format("refused/run"), "worker"), origins.Origin.send

    refuses = ["metrics.jsonl"]

    def send(self: origins.Origin, path: Path) -> None:
        if path.name in refuses[:1]:
            raise OSError(f"no room for {refuses.pop()}")
        if path.parent.name == "step_000004":
            raise OSError("quota exceeded")
        plain(self, path)

    monkeypatch.setattr(origins.Origin, "send", send)
    with pytest.raises(NotSaved) as caught:
        train_run(read_recipe(recipe), run, tmp_path)
    (line,) = str(caught.value).splitlines()
    assert "refused/run/checkpoints/step_000004" in line and "(quota exceeded)" in line
    (behind,) = [r.getMessage() for r in caplog.records if "is behind" in r.getMessage()]
    assert behind.endswith("is behind: no room for metrics.jsonl")
    monkeypatch.setattr(origins.Origin, "send", plain)
    result = train_run(read_recipe(recipe), run, tmp_path)
    assert result["step"] == 6 and weights(run) == weights(undisturbed)
    whole = {path.name for path in whole_there(run / "checkpoints")}
    assert whole == {"step_000004", "step_000006"}


@pytest.fixture
def undisturbed_sweep(tmp_path: Path) -> Path:
    """Folder of the quickstart sweep, shrunken and let alone."""
    out = tmp_path / "undisturbed"
    assert run_apart(sweep, QUICKSTART, SHRUNKEN, out) == 0
    return out


def test_a_sweep_that_is_killed_again_and_again_ends_with_the_same_table(
    undisturbed_sweep: Path, tmp_path: Path
) -> None:
    """Before random changes to its files, and while it promotes."""
    changes, kills = int((tmp_path / "changes.txt").read_text()), 4
    rng, out = random.Random(0), tmp_path / "killed"
    for _ in range(kills):
        # So few that the sweep cannot end before the last of them.
        change = rng.randint(1, changes // kills)
        assert run_apart(sweep, QUICKSTART, SHRUNKEN, out, change) == KILLED
    for text in ("promoted/checkpoints/step_000008", "/.model.partial", "/.results.tex"):
        assert run_apart(sweep, QUICKSTART, SHRUNKEN, out, text) == KILLED
    assert run_apart(sweep, QUICKSTART, SHRUNKEN, out) == 0
    assert outcome(out) == outcome(undisturbed_sweep)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_sweep_that_is_killed_at_twenty_random_moments_ends_with_the_same_table(
    undisturbed_sweep: Path, tmp_path: Path
) -> None:
    """Each a random while after a random line of its logs."""
    out, rng = tmp_path / "killed", random.Random(0)
    assert logged(undisturbed_sweep) == 16
    stages = []
    for line in sorted(rng.randint(0, 15) for _ in range(20)):
        process = start_apart(sweep, QUICKSTART, SHRUNKEN, out)
        while logged(out) < line and process.is_alive():
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 2))
        process.kill()
        process.join()
        stages.append((line, process.exitcode))
    assert run_apart(sweep, QUICKSTART, SHRUNKEN, out) == 0
    print(f"(line, exit code) of each kill: {stages}")
    assert sum(code == KILLED for _, code in stages) >= 10, "the sweep was too fast for the kills"
    assert outcome(out) == outcome(undisturbed_sweep)
