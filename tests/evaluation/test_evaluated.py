"""The folder that an evaluation leaves, as pictures and studies read it."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_evaluation import HOLE, filled, make_evaluation, truth
from PIL import Image

from moebius.evaluation.evaluated import EvaluatedFolder

IDS = ["a", "deep/b", "c"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_evaluation(tmp_path / "run", ["two", "one"], IDS)


def test_what_it_holds(folder: Path):
    source = EvaluatedFolder(folder)
    (folder / "refused" / "results").mkdir(parents=True)
    assert source.ids == IDS
    assert source.methods == ["one", "two"]
    assert source.choose_methods() == ["one", "two"]
    assert source.choose_methods(["two"]) == ["two"]
    assert source.scores("one")["deep/b"] == {"psnr_hole": 11.0}


def test_pictures_are_input_methods_truth(folder: Path):
    pictures = EvaluatedFolder(folder).pictures(["one", "two"], "deep/b")
    grey = truth(1)
    grey[HOLE] = 128
    # `make_evaluation` was given "two" first.
    wanted = [grey, filled(1, 1), filled(1, 0), truth(1)]
    assert all(np.array_equal(a, b) for a, b in zip(pictures, wanted, strict=True))


def test_only_what_every_method_has_finished_counts(folder: Path):
    (folder / "one" / "results" / "a.png").unlink()
    source = EvaluatedFolder(folder)
    assert source.finished(["two"]) == IDS
    assert source.finished(["one", "two"]) == ["deep/b", "c"]


def test_scores_may_be_absent_and_hold_other_things_than_numbers(folder: Path):
    (folder / "two" / "scores.jsonl").unlink()
    row = {"id": "a", "lpips": 0.5, "made_up": True, "source": "x"}
    (folder / "one" / "scores.jsonl").write_text(json.dumps(row))
    source = EvaluatedFolder(folder)
    assert source.scores("two") == {}
    assert source.scores("one") == {"a": {"lpips": 0.5}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no json", "manifest.jsonl:1: not JSON"),
        ("[]", "manifest.jsonl:1: not a JSON object"),
        ("{}", "manifest.jsonl:1: no id"),
        ('{"id": 3}', "manifest.jsonl:1: no id"),
        ('{"id": "../../secret"}', "leads out of the folder"),
        ('{"id": "/etc/secret"}', "leads out of the folder"),
    ],
)
def test_a_bad_manifest_is_named_by_its_line(folder: Path, line: str, message: str):
    (folder / "benchmark" / "manifest.jsonl").write_text(line)
    with pytest.raises(ValueError, match=message):
        _ = EvaluatedFolder(folder).ids


@pytest.mark.parametrize("names", [["three"], ["one", "one"], ["benchmark"]])
def test_unknown_and_repeated_methods_are_refused(folder: Path, names: list[str]):
    with pytest.raises(ValueError, match="has one, two"):
        EvaluatedFolder(folder).choose_methods(names)


def test_folders_that_no_evaluation_wrote_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="moebius.evaluate"):
        _ = EvaluatedFolder(tmp_path).ids
    with pytest.raises(ValueError, match="no method"):
        EvaluatedFolder(tmp_path).choose_methods()
    with pytest.raises(ValueError, match="no folder at"):
        EvaluatedFolder(tmp_path / "missing").choose_methods()


def test_a_result_of_another_size_is_refused(folder: Path):
    Image.new("RGB", (40, 32)).save(folder / "one" / "results" / "c.png")
    with pytest.raises(ValueError, match="one has c at 40x32 pixels, the truth at 32x32"):
        EvaluatedFolder(folder).pictures(["one"], "c")


def test_a_broken_result_is_refused(folder: Path):
    (folder / "one" / "results" / "c.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="c.png"):
        EvaluatedFolder(folder).pictures(["one"], "c")
