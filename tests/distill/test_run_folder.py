"""A run's folder: its settings are kept, its metrics survive a kill."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from moebius.config import Recipe, parse
from moebius.distill.run_folder import RunFolder, environment, slug, write_text
from moebius.recipes import read_recipe

BASE: dict[str, Any] = {
    "training": {"steps": 10, "global_batch": 4},
    "data": {"short_side": [512, 600]},
    "optimizer": {"lr": 1e-5},
    "distill": {
        "balance": "static",
        "static_weights": dict.fromkeys(("task",), 1.5),
        "losses": ["task"],
    },
}


def recipe(**changes: Any) -> Recipe:
    return read_recipe({**BASE}, changes)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.prepare(recipe())
    return folder


def test_the_configuration_is_stored_whole(run: RunFolder):
    stored = run.read_config()
    assert stored is not None and parse(Recipe, stored, "stored") == recipe()
    run.check(recipe())
    run.prepare(recipe())


def test_a_new_folder_holds_nothing(tmp_path: Path):
    run = RunFolder(tmp_path / "new")
    assert run.read_config() is None and run.read_metrics() == []
    assert run.read_result(10) is None
    run.check(recipe())
    run.rewind(0)
    assert not run.path.exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"arch": {"base": "lmi_dw_ffn"}}, "arch"),
        ({"optimizer.lr": 1e-4, "data.size": 256}, "data.size, optimizer.lr"),
        ({"teacher": {"path": "x"}}, "teacher"),
        ({"model": {"heads": 4}}, "model.heads"),
    ],
)
def test_other_settings_are_refused_by_name(run: RunFolder, changes, named: str):
    for refuse in (run.check, run.prepare):
        with pytest.raises(ValueError, match=rf"other settings \({named}\); choose another --out"):
            refuse(recipe(**changes))
    run.check(recipe())


def test_a_run_may_be_prolonged_and_watched_differently(run: RunFolder):
    longer = recipe(**{"training.steps": 99, "training.log_every": 1, "validation.every": 5})
    run.prepare(longer)
    stored = run.read_config()
    assert stored is not None and stored["training"]["steps"] == 99


def test_metrics_survive_a_cut_line(run: RunFolder):
    for step in (1, 2, 3):
        run.log({"step": step, "loss/total": 1 / step})
    with run.metrics.open("a") as file:
        file.write('{"step": 4, "loss/to')
    assert [line["step"] for line in run.read_metrics()] == [1, 2, 3]
    run.rewind(2)
    assert run.read_metrics() == [{"step": 1, "loss/total": 1.0}, {"step": 2, "loss/total": 0.5}]
    run.log({"step": 3})
    assert [line["step"] for line in run.read_metrics()] == [1, 2, 3]


def test_metrics_keep_every_digit(run: RunFolder):
    run.log({"step": 1, "loss/total": 0.1 + 0.2})
    assert run.read_metrics()[0]["loss/total"] == 0.1 + 0.2


def test_a_result_counts_for_its_own_length_only(run: RunFolder):
    run.write_result({"step": 10, "psnr_hole": 20.5})
    assert run.read_result(10) == {"step": 10, "psnr_hole": 20.5}
    assert run.read_result(20) is None


def test_text_is_replaced_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail(*paths: object) -> None:
        raise OSError("no rename")

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr("os.replace", fail)
        write_text(path, "new")
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"


def test_the_environment_is_described(run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    stored = json.loads((run.path / "environment.json").read_text())
    assert stored["packages"]["torch"] and stored["machine"]["cpus"] >= 1

    def absent(*arguments: object, **options: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", absent)
    assert environment()["git"] is None


def test_slugs_are_plain_folder_names():
    assert slug("lmi_dw_ffn, losses=task+fine") == "lmi_dw_ffn_losses_task_fine"
    assert slug("../../etc") == "etc" and slug("λ") == "trial" and slug("1.5") == "1.5"
