"""A sweep in one process; what Ray does is tested in tests/test_tune.py."""

import csv
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moebius.distill.occupation import ERROR
from moebius.sweeps.running import trial_errors
from moebius.tune import Options, main

EXPERIMENTS: list[dict[str, Any]] = [
    {"label": "plain", "overrides": {"distill.losses": ["task"]}},
    {"label": "broken", "overrides": {"init_from": __file__}},
]


def test_a_sweep_needs_no_ray(tiny_recipe, write_yaml, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # ImportError when imported
    sweep = {
        "name": "alone",
        "recipe": tiny_recipe,
        "experiments": EXPERIMENTS,
        "promote": {"overrides": {"training.steps": 8}},
    }
    options = Options(write_yaml("alone.yaml", sweep), out=tmp_path / "out", in_process=True)
    main(options)
    first = capsys.readouterr().out
    assert "plain promoted" in first and f"failed: checkpoint {__file__}" in first
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    assert [row["experiment"] for row in rows] == ["plain", "broken", "plain promoted"]
    assert (tmp_path / "out" / "trials" / "broken" / "error.txt").is_file()

    results = sorted((tmp_path / "out").rglob("result.json"))
    stamps = [path.stat().st_mtime_ns for path in results]
    main(options)
    assert [path.stat().st_mtime_ns for path in results] == stamps, "a finished run was repeated"
    assert capsys.readouterr().out == first


def test_what_needs_a_cluster_is_refused_in_one_process(
    tiny_recipe, write_yaml, tmp_path: Path
) -> None:
    sweep = {
        "name": "gang",
        "recipe": tiny_recipe,
        "experiments": EXPERIMENTS,
        "scheduler": {"name": "asha"},
        "workers": 2,
        "stall_s": 60,
    }
    options = Options(write_yaml("gang.yaml", sweep), out=tmp_path / "out", in_process=True)
    with pytest.raises(ValueError, match="without scheduler, workers, stall_s: use Ray"):
        main(options)


def test_more_than_the_cluster_has_is_refused_before_anything_starts(
    tiny_recipe, write_yaml, tmp_path: Path, monkeypatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr("moebius.tune.start_ray", lambda: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "memory": 1e9})
    sweep = {
        "name": "greedy",
        "recipe": tiny_recipe,
        "experiments": EXPERIMENTS,
        "resources": {"gpus": 4, "cpus": 1},
    }
    options = Options(write_yaml("greedy.yaml", sweep), out=tmp_path / "out")
    with pytest.raises(ValueError, match="needs 4 GPU, the cluster has 0"):
        main(options)
    assert not (tmp_path / "out").exists()


def test_a_trial_that_ended_itself_has_its_own_reason(tmp_path: Path) -> None:
    def ended(label: str, **how: Any) -> Any:
        job = {"label": label, "folder": str(tmp_path / label)}
        return SimpleNamespace(config={"job": job}, **{"error": None, "metrics": {}, **how})

    (tmp_path / "hung").mkdir()
    (tmp_path / "hung" / ERROR).write_text("Thread 1:\n  File ...\nno progress in 60 s\n")
    gone = RuntimeError("The actor is dead.\nIts node died.")
    grid = [
        ended("well"),
        ended("hung", error=gone),
        ended("killed", error=gone),
        ended("broken", metrics={"failed": "no model at x"}),
    ]
    assert trial_errors(grid) == {
        "hung": "no progress in 60 s",
        "killed": "Its node died.",
        "broken": "no model at x",
    }
