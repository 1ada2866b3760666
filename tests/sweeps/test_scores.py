"""Scores by a protocol in a sweep: of its trials, and of one model run in many ways."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from moebius.assembly import train_run
from moebius.config import Sweep, parse
from moebius.sweeps import scores as sweep_scores
from moebius.sweeps.report import Report
from moebius.sweeps.scores import missing_images, prepare_scores, score_trials, scorings
from moebius.sweeps.trials import plan_trials
from moebius.tune import Options, main

SCORE = {"protocol": "builtin", "limit": 3, "steps": 2, "metrics": ["psnr", "psnr_hole"]}


@pytest.fixture
def sweep(tiny_recipe: dict[str, Any]) -> Sweep:
    tiny_recipe["distill"] = {"losses": ["task"]}
    tiny_recipe["training"] |= {"steps": 2, "log_every": 1}
    data = {"name": "s", "recipe": tiny_recipe, "grid": {"seed": [0, 1]}, "score": SCORE}
    return parse(Sweep, data, "sweep")


def test_every_finished_trial_is_scored_once(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = plan_trials(sweep, tmp_path)
    trained = train_run(trials[0].recipe, trials[0].folder, tmp_path)
    assert sweep.score is not None
    prepare_scores(sweep.score, tmp_path)
    scores, notes = score_trials(sweep.score, trials, tmp_path, 0)
    assert scores.keys() == {"seed=0"} and scores["seed=0"].keys() == {"psnr", "psnr_hole"}
    assert notes == ["3 of the protocol's 64 pictures."]
    report = Report(sweep, tmp_path)
    report.take((scores, notes))
    row, unfinished = report.rows(trials, {})
    assert row.metrics["psnr"] == scores["seed=0"]["psnr"] and unfinished.error
    # The protocol's number stands where the run has one of its own, too.
    assert row.metrics["psnr_hole"] == scores["seed=0"]["psnr_hole"] != trained["psnr_hole"]
    report.write(trials, {})
    first = json.loads((tmp_path / "results.json").read_text())[0]
    assert first["psnr"] == scores["seed=0"]["psnr"]
    assert "3 of the protocol's 64 pictures" in (tmp_path / "results.md").read_text()
    monkeypatch.setattr(sweep_scores, "evaluate", lambda *_: pytest.fail("scored twice"))
    assert score_trials(sweep.score, trials, tmp_path, 0) == (scores, notes)
    again = sweep.score.model_copy(update={"steps": 3})
    with pytest.raises(pytest.fail.Exception, match="scored twice"):
        score_trials(again, trials, tmp_path, 0)


def test_a_model_is_scored_in_every_way_without_training(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (trial, _) = plan_trials(sweep, tmp_path)
    train_run(trial.recipe, trial.folder, tmp_path)
    path, out = tmp_path / "guidance.yaml", tmp_path / "out"
    data = {
        "name": "guidance",
        "model": "",
        "grid": {"score.guidance": [1.0, 2.5]},
        "score": SCORE,
        "objective": {"metric": "psnr"},
        "published": "table6/places2_test",
    }
    path.write_text(yaml.safe_dump(data))
    for name in ("start_ray", "scoring_workers"):
        monkeypatch.setattr(f"moebius.tune.{name}", lambda: 0)
    with pytest.raises(ValueError, match="still needs model=FOLDER"):
        main(Options(path, out=out))
    main(Options(path, (f"model={trial.folder / 'model'}",), out=out))
    table = capsys.readouterr().out
    assert "guidance=1.0" in table and "9.48" in table
    text = (out / "results.md").read_text()
    assert "| guidance=2.5 | lmi_dw_mixffn | ✗ |" in text and "the paper" in text
    assert (out / "results.png").is_file() and (out / "results.tex").is_file()


def test_a_protocol_without_its_pictures_says_what_to_name() -> None:
    data = {"name": "s", "recipe": "builtin", "grid": {"seed": [0]}}
    score = {"protocol": "places2_test"}
    sweep = parse(Sweep, {**data, "score": score}, "sweep")
    (missing,) = missing_images(sweep.score)
    assert missing.startswith("score.images=FOLDER (Places365")
    given = parse(Sweep, {**data, "score": {**score, "images": "photos"}}, "sweep")
    assert missing_images(given.score) == [] == missing_images(None)


def test_points_of_a_model_change_its_scoring() -> None:
    grid = {"score.guidance": [1.0, 2.0], "score.steps": [5]}
    sweep = parse(Sweep, {"name": "s", "model": "m", "grid": grid, "score": SCORE}, "sweep")
    found = scorings(sweep)
    assert {label: (s.guidance, s.steps, s.limit) for label, s in found.items()} == {
        "guidance=1.0, steps=5": (1.0, 5, 3),
        "guidance=2.0, steps=5": (2.0, 5, 3),
    }
    wrong = parse(Sweep, {"name": "s", "model": "m", "grid": {"score.guide": [1]}, "score": {}}, "")
    with pytest.raises(ValueError, match="unknown key 'guide'; did you mean 'guidance'"):
        scorings(wrong)
