"""How runs stand: every state, the best score, and folders with broken files."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import make_evaluation, make_run, make_sweep

from moebius.distill.occupation import occupied
from moebius.operations.cleaning import plan_cleaning
from moebius.operations.finding import Found
from moebius.operations.records import Best, Record, best_of, read_record, read_records, rises


def one(path: Path, metric: str = "psnr_hole") -> Record:
    (record,) = read_records(path, metric)
    return record


def test_a_finished_run(tmp_path: Path):
    record = one(make_run(tmp_path / "b"))
    assert (record.state, record.step, record.steps) == ("finished", 6, 6)
    assert record.best == Best("psnr_hole", 12.0, 4)
    assert record.checkpoint == tmp_path / "b" / "checkpoints" / "step_000006"
    assert record.disk == sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())
    assert record.arch == "lmi_dw_mixffn" and record.note == ""


def test_a_prolonged_run_is_not_finished(tmp_path: Path):
    run = make_run(tmp_path / "b")
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("6", "60"))
    assert one(run).state == "interrupted"


def test_running_ends_with_the_process(tmp_path: Path):
    run = make_run(tmp_path / "b", result=False)
    with occupied(run):
        assert one(run).state == "running"
    assert one(run).state == "interrupted"


def test_a_failure_counts_until_the_run_begins_again(tmp_path: Path):
    run = make_run(tmp_path / "b", result=False)
    with pytest.raises(FloatingPointError), occupied(run):
        raise FloatingPointError("step 3: the task loss is nan")
    record = one(run)
    assert record.state == "failed"
    assert record.note == "FloatingPointError: step 3: the task loss is nan"
    os.utime(run / "error.txt", (1, 1))
    assert one(run).state == "interrupted"


def test_a_stopped_trial(tmp_path: Path):
    run = make_run(tmp_path / "b", done=2, result=False)
    (run / "stopped.json").write_text('{"step": 2}')
    assert one(run).state == "stopped"


def test_a_sweep_sums_up_its_trials(tmp_path: Path):
    sweep, *trials = read_records(make_sweep(tmp_path / "a"))
    assert sweep.state == "finished" and sweep.note == "2 trials: 1 finished, 1 failed"
    assert sweep.best == Best("psnr_hole", 12.0, 4)
    assert sweep.disk > sum(trial.disk for trial in trials)
    assert [t.note for t in trials] == ["", "ValueError: no teacher [at] all"]


def test_a_sweep_runs_while_a_trial_does(tmp_path: Path):
    make_sweep(tmp_path / "a")
    (tmp_path / "a" / "model" / "weights").unlink()
    (tmp_path / "a" / "model").rmdir()
    assert read_records(tmp_path)[0].state == "interrupted"
    with occupied(tmp_path / "a" / "trials" / "2"):
        assert [r.state for r in read_records(tmp_path)] == ["running", "finished", "running"]


@pytest.mark.parametrize(
    ("metric", "best"), [("fid", Best("fid", 30.0)), ("psnr_hole", Best("psnr", 21.5))]
)
def test_an_evaluation_shows_what_is_asked_for_or_its_first_score(tmp_path: Path, metric, best):
    record = one(make_evaluation(tmp_path / "telea"), metric)
    assert record.state == "finished" and record.best == best


def test_an_unfinished_evaluation(tmp_path: Path):
    record = one(make_evaluation(tmp_path / "telea", finished=False))
    assert record.state == "interrupted" and record.best is None


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.yaml", "training: [", "config.yaml is not valid YAML"),
        ("config.yaml", "- 1", "config.yaml must hold a mapping"),
        ("config.yaml", "arch: x", "'training'"),
        ("config.yaml", "training: 5", "not subscriptable"),
        ("config.yaml", "arch: 7\ntraining: {steps: 6}", "has no attribute"),
        ("config.yaml", "\0", "config.yaml is not valid YAML"),
        ("config.yaml", None, "no configuration in"),
        ("result.json", "{", "cannot read"),
        ("result.json", "[]", "holds no mapping"),
        ("result.json", "{}", "'step'"),
        ("metrics.jsonl", '{"step": "x"}\n', "invalid literal"),
        ("metrics.jsonl", b"\xff\xfe", "codec can't decode"),
    ],
)
def test_broken_files_are_one_line_in_the_list(tmp_path: Path, name: str, text, said: str):
    make_run(tmp_path / "a" / "good")
    path = make_run(tmp_path / "bad") / name
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    good, bad = read_records(tmp_path)
    assert good.state == "finished"
    assert bad.state == "broken" and said in bad.note and "\n" not in bad.note
    assert str(tmp_path / "bad") in bad.note and bad.disk > 0


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["step", "steps", "training", "arch", "metrics", "psnr_hole"]), inner
        )
    ),
    max_leaves=6,
)


@given(config=JSON, result=JSON, line=JSON)
@settings(max_examples=150, deadline=None)
def test_whatever_the_files_hold_is_a_record(tmp_path_factory, config, result, line):
    root = tmp_path_factory.mktemp("any")
    run = make_run(root / "b", done=0, result=False)
    for folder in (run, make_evaluation(root / "e")):
        (folder / "config.yaml").write_text(json.dumps(config))
        (folder / "result.json").write_text(json.dumps(result))
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    for record in read_records(root):
        assert record.state in ("finished", "interrupted", "broken")
        assert "\n" not in record.note
    plan_cleaning(root)


def test_lines_of_metrics_that_are_none_are_passed_over(tmp_path: Path):
    run = make_run(tmp_path / "b")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('7\n[1]\n{"other": 1}\n{"step": 8, "psn')
    assert one(run).step == 6


def test_a_folder_that_goes_away_meanwhile_is_no_crash(tmp_path: Path):
    assert read_record(Found(tmp_path / "gone", "run")).state == "broken"


def test_the_best_is_finite_and_of_the_right_direction():
    lines = [
        {"step": 1, "psnr_hole": 9.0, "loss/task": 0.5},
        {"step": 2, "psnr_hole": float("nan"), "loss/task": 0.1},
        {"step": 3, "psnr_hole": 8.0, "loss/task": 0.3, "psnr": "high"},
    ]
    assert best_of(lines, "psnr_hole") == Best("psnr_hole", 9.0, 1)
    assert best_of(lines, "loss/task") == Best("loss/task", 0.1, 2)
    assert best_of(lines, "psnr") == Best("loss/task", 0.3, 3)
    assert best_of([], "psnr") is None
    assert rises("ssim_hole") and not rises("fid") and not rises("loss/total")


def test_json_that_is_read_names_its_file(tmp_path: Path):
    run = make_run(tmp_path / "b")
    (run / "result.json").write_text(json.dumps({"step": 6, "psnr_hole": None}))
    assert one(run).best == Best("psnr_hole", 12.0, 4)
