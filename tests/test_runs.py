"""The operations door: what it prints, what it refuses, and that it removes only when told."""

import csv
import io
import json
from pathlib import Path

import pytest
from made_runs import make_evaluation, make_run, make_sweep

from moebius.distill.occupation import occupied
from moebius.runs import Clean, Compare, List, Show, main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_sweep(tmp_path / "a")
    make_run(tmp_path / "b", seed=1, teacher={"path": "t"})
    make_evaluation(tmp_path / "e" / "telea")
    return tmp_path


def test_the_list_shows_how_everything_stands(root: Path, capsys):
    main(List(root))
    lines = capsys.readouterr().out.splitlines()
    (failed,) = [line for line in lines if "trials/2" in line]
    for shown in ("failed", "2/6", "psnr_hole 10", "step_000002", "no teacher [at] all"):
        assert shown in failed
    assert any("sweep" in line and "2 trials: 1 finished, 1 failed" in line for line in lines)
    assert any("evaluation" in line and "psnr 21.5" in line for line in lines)


def test_json_and_csv_hold_the_same_values(root: Path, capsys):
    main(List(root, metric="loss/task", format="json"))
    rows = json.loads(capsys.readouterr().out)
    main(List(root, metric="loss/task", format="csv"))
    read = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows] == read
    run = rows[3]
    assert (run["path"], run["state"], run["step"], run["steps"]) == (
        str(root / "b"),
        "finished",
        6,
        6,
    )
    assert (run["metric"], run["best"], run["best_step"]) == ("loss/task", 1 / 6, 6)
    assert run["checkpoint"] == str(root / "b" / "checkpoints" / "step_000006")


def test_an_empty_folder_is_said_to_be(tmp_path: Path, capsys):
    main(List(tmp_path))
    assert "nothing has run in" in capsys.readouterr().out
    main(List(tmp_path, format="json"))
    assert json.loads(capsys.readouterr().out) == []
    main(Clean(tmp_path))
    assert "nothing to remove" in capsys.readouterr().err


def test_show_checks_checkpoints_and_takes_the_disk_apart(root: Path, capsys):
    (root / "b" / "checkpoints" / "step_000004" / "weights").unlink()
    main(Show(root / "b", format="json"))
    shown = json.loads(capsys.readouterr().out)
    checkpoints = {Path(path).name: problem for path, problem in shown["checkpoints"].items()}
    assert checkpoints == {
        "step_000006": "whole",
        "step_000004": "weights is missing",
        "step_000002": "whole",
    }
    assert sum(shown["disk_by_part"].values()) == shown["disk"]
    assert shown["result"]["step"] == 6 and shown["environment"] is None
    main(Show(root / "b"))
    assert "weights is missing" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["e", "."])
def test_show_wants_one_run(root: Path, folder: str):
    with pytest.raises(ValueError, match="holds no run, sweep or evaluation itself"):
        main(Show(root / folder))


def test_compare_names_what_differs(root: Path, capsys):
    trial = root / "a" / "trials" / "2"
    main(Compare(root / "b", trial, format="json"))
    rows = {row.pop("key"): row for row in json.loads(capsys.readouterr().out)}
    assert rows == {
        "seed": {"first": 1, "second": None},
        "teacher": {"first": {"path": "t"}, "second": None},
        "best": {"first": "psnr_hole 12", "second": "psnr_hole 10"},
    }
    main(Compare(root / "b", trial))
    assert '{"path": "t"}' in capsys.readouterr().out
    config = root / "b" / "config.yaml"
    main(Compare(config, config))
    assert capsys.readouterr().out == "no difference\n"
    with pytest.raises(ValueError, match="no configuration in"):
        main(Compare(root / "a", root / "b"))


def test_clean_shows_first_and_removes_when_told(root: Path, capsys):
    main(Clean(root))
    shown = capsys.readouterr()
    assert "cached latents" in shown.out and "can be freed; --yes removes it" in shown.err
    assert (root / "a" / "ray" / "tune-1" / "state").is_file()
    main(Clean(root, format="json"))
    rows = json.loads(capsys.readouterr().out)
    main(Clean(root, yes=True))
    assert "freed" in capsys.readouterr().err
    assert not any(Path(row["path"]).exists() for row in rows) and len(rows) == 6
    assert (root / "b" / "checkpoints" / "step_000006").is_dir()
    assert (root / "a" / "model").is_dir()


def test_clean_says_what_it_leaves_alone(root: Path, capsys):
    with occupied(root / "b"):
        main(Clean(root, yes=True))
    assert f"left alone: {root / 'b'} is running" in capsys.readouterr().err
    assert (root / "b" / "checkpoints" / "step_000002").is_dir()
