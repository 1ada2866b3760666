"""Trackers of a run: on rank 0 alone, ended as the run ended, never a reason to stop."""

from pathlib import Path
from typing import Any

import pytest
import torch

from moebius.config import Recipe
from moebius.distill.run_folder import RunFolder
from moebius.distill.tracking import check_trackers, tracked
from moebius.distill.tracking import tracker as module
from moebius.distill.world import World
from moebius.recipes import read_recipe, teacher_folder


class Recorder:
    """A tracker that keeps what it is told, and fails where it is asked to."""

    def __init__(self, recipe: Recipe, folder: RunFolder) -> None:
        self.told: list[Any] = []

    def log(self, metrics: dict[str, float]) -> None:
        self.told.append(metrics["step"])
        if metrics["step"] == 13:
            raise ConnectionError("server is gone")

    def close(self, finished: bool) -> None:
        self.told.append(finished)


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    made: list[Recorder] = []

    def make(*arguments: Any) -> Recorder:
        made.append(Recorder(*arguments))
        return made[-1]

    monkeypatch.setitem(module.TRACKERS, "tensorboard", make)
    return made


@pytest.fixture
def recipe(tiny_recipe) -> Recipe:
    return read_recipe(tiny_recipe)


def world(rank: int = 0) -> World:
    return World(rank, 2, torch.device("cpu"))


def test_a_run_is_told_and_ended(recorders, recipe: Recipe, tmp_path: Path):
    with tracked(recipe, RunFolder(tmp_path), world()) as track:
        track({"step": 2})
    assert [recorder.told for recorder in recorders] == [[2, True]]


def test_other_ranks_track_nothing(recorders, recipe: Recipe, tmp_path: Path):
    with tracked(recipe, RunFolder(tmp_path), world(rank=1)) as track:
        track({"step": 2})
    assert recorders == []


def test_a_failed_run_is_ended_as_such(recorders, recipe: Recipe, tmp_path: Path):
    with pytest.raises(FloatingPointError), tracked(recipe, RunFolder(tmp_path), world()):
        raise FloatingPointError
    assert recorders[0].told == [False]


def test_a_tracker_that_fails_later_is_told_in_the_log(recorders, recipe, tmp_path: Path, caplog):
    with tracked(recipe, RunFolder(tmp_path), world()) as track:
        track({"step": 13})
        track({"step": 14})
    assert recorders[0].told == [13, 14, True]
    assert "tracker tensorboard: ConnectionError: server is gone" in caplog.text


def test_what_is_not_installed_is_said_before_anything_starts(tiny_recipe, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "wandb" else name)
    check_trackers(["tensorboard", "mlflow"])
    with pytest.raises(ValueError, match=r"wandb is not installed: pip install '.*\[trackers\]'"):
        read_recipe(tiny_recipe, ["trackers=[tensorboard,wandb]"])


def test_unknown_trackers_are_refused(tiny_recipe):
    with pytest.raises(ValueError, match=r"trackers.0: .*'tensorboard', 'wandb' or 'mlflow'"):
        read_recipe(tiny_recipe, ["trackers=[comet]"])


def test_who_watches_a_run_does_not_change_it(tiny_recipe, recipe: Recipe, tmp_path: Path):
    other = read_recipe(tiny_recipe, ["trackers=[]"])
    assert teacher_folder(recipe, tmp_path) == teacher_folder(other, tmp_path)
    RunFolder(tmp_path).prepare(recipe)
    RunFolder(tmp_path).check(other)
