"""What lies below a folder, by the files that it leaves."""

from pathlib import Path

import pytest
from made_runs import make_evaluation, make_run, make_sweep

from moebius.operations.finding import find


def test_everything_is_found_once_and_sweeps_come_before_their_trials(tmp_path: Path):
    make_sweep(tmp_path / "a")
    make_run(tmp_path / "b")
    make_evaluation(tmp_path / "c" / "builtin" / "telea")
    found = [(str(one.path.relative_to(tmp_path)), one.kind) for one in find(tmp_path)]
    assert found == [
        ("a", "sweep"),
        ("a/trials/1", "run"),
        ("a/trials/2", "run"),
        ("b", "run"),
        ("c/builtin/telea", "evaluation"),
    ]


def test_a_run_is_found_by_its_own_folder(tmp_path: Path):
    assert [one.path for one in find(make_run(tmp_path / "b"))] == [tmp_path / "b"]


def test_links_are_not_followed(tmp_path: Path):
    make_run(tmp_path / "runs" / "b")
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs")
    assert len(find(tmp_path / "runs")) == 1


def test_what_a_run_keeps_inside_is_no_run(tmp_path: Path):
    run = make_run(tmp_path / "b")
    make_run(run / "ray" / "inner")
    make_run(run / ".hidden")
    assert len(find(tmp_path)) == 1


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no folder at .*nowhere"):
        find(tmp_path / "nowhere")
