"""Any manifest, folder of results, study file or line of scores is read, or refused in a line."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from fuzzing import (
    KEYS,
    RUNS,
    STRANGE_TEXTS,
    Choices,
    answer,
    cases,
    mutated_texts,
    spliced_bytes,
)
from hypothesis import given
from made_study import make_answers, make_key

from moebius.data.manifest import parse_line, read_records
from moebius.evaluation.benchmark import Benchmark, check_settings
from moebius.evaluation.evaluated import EvaluatedFolder
from moebius.evaluation.mask_sets import pair_masks
from moebius.evaluation.methods import ResultsMethod
from moebius.evaluation.study.files import Answers, Key, read, read_answers

ITEMS: list[dict[str, Any]] = [
    {"image": "a.png", "category": "background"},
    {"image": "/there/b.png", "mask": "masks/b.png", "category": "foreground"},
    {"image": "x/../c.jpg", "mask": None, "prompt": "background"},
]
LINE: dict[str, Any] = {
    "id": "a",
    "source": "a.png",
    "mask": "drawn",
    "image_sha256": "0" * 64,
    "mask_sha256": "0" * 64,
    "hole": 0.25,
}


@RUNS
def test_any_line_of_a_manifest(fuzz):
    folder = Path("/data")

    @fuzz
    @given(mutated_texts(*ITEMS))
    def check(text: str):
        record = answer(lambda: parse_line(text, folder))
        for path in () if record is None else filter(None, (record.image, record.mask)):
            assert ".." not in path.parts or not path.is_relative_to(folder)

    check()


@RUNS
def test_any_manifest(fuzz, tmp_path: Path):
    path = tmp_path / "set.jsonl"
    text = "".join(json.dumps(item) + "\n" for item in ITEMS).encode()

    @fuzz
    @given(spliced_bytes(text, text.decode().encode("utf-16"), b"\xef\xbb\xbf" + text))
    def check(data: bytes):
        path.write_bytes(data)
        answer(lambda: read_records(path), str(path))

    check()


KEY = make_key(cases=1)
KEY_DATA = KEY.model_dump(mode="json")
ANSWERS_DATA = make_answers(KEY, "p", lambda n, case: 0)


@RUNS
def test_any_answers_to_a_study(fuzz, tmp_path: Path):
    path = tmp_path / "answers.json"

    @fuzz
    @given(mutated_texts(ANSWERS_DATA))
    def check(text: str):
        path.write_text(text, "utf-8", "surrogatepass")
        answer(lambda: read(Answers, path), str(path))
        counted, refused = read_answers([path], KEY)
        assert len(counted) + len(refused) == 1
        assert all(str(path) in line and len(line.splitlines()) == 1 for line in refused)

    check()


@RUNS
def test_any_key_of_a_study(fuzz, tmp_path: Path):
    path = tmp_path / "key.json"

    @fuzz
    @given(mutated_texts(KEY_DATA))
    def check(text: str):
        path.write_text(text, "utf-8", "surrogatepass")
        answer(lambda: read(Key, path), str(path))

    check()


@RUNS
def test_any_manifest_of_a_benchmark(fuzz, tmp_path: Path):
    path = tmp_path / "manifest.jsonl"

    @fuzz
    @given(mutated_texts(LINE))
    def check(text: str):
        path.write_text(json.dumps(LINE) + "\n" + text, "utf-8", "surrogatepass")
        benchmark = Benchmark(tmp_path)
        names = answer(lambda: benchmark.names, str(path))
        if names is not None:
            assert all("/" not in name for name in names)
            answer(lambda: benchmark.read(names[-1]))
            assert 0 <= benchmark.mean_hole <= 1

    check()


@RUNS
def test_any_settings_of_a_benchmark(fuzz, tmp_path: Path):
    path, settings = tmp_path / "settings.json", {"images": {"count": 3}, "source": "x", "limit": 2}

    @fuzz
    @given(mutated_texts(settings))
    def check(text: str):
        path.write_text(text, "utf-8", "surrogatepass")
        answer(lambda: check_settings(path, settings), str(tmp_path))

    check()


@RUNS
def test_any_scores_of_an_evaluation(fuzz, tmp_path: Path):
    (tmp_path / "m").mkdir()
    path = tmp_path / "m" / "scores.jsonl"

    @fuzz
    @given(mutated_texts({"id": "a", "psnr": 20.5, "ssim": 1, "name": "x"}))
    def check(text: str):
        path.write_text(text, "utf-8", "surrogatepass")
        answer(lambda: EvaluatedFolder(tmp_path).scores("m"), str(path))

    check()


NAMES = ("a", "b", "c.d", "é", " ")
SUFFIXES = (".png", ".PNG", ".jpg", ".txt", "", ".webp")


@RUNS
def test_any_folder_of_results_or_masks(fuzz, tmp_path: Path):
    made: list[Path] = []

    def fill(choices: Choices) -> tuple[list[str], list[str]]:
        files = [choices.one_of(NAMES) + choices.one_of(SUFFIXES) for _ in range(choices.number(5))]
        folders = [choices.one_of(("", "", "sub/", ".hidden/")) for _ in files]
        wanted = [choices.one_of((*NAMES, *STRANGE_TEXTS)) for _ in range(choices.number(4))]
        return [f"{folder}{file}" for folder, file in zip(folders, files, strict=True)], wanted

    @fuzz
    @given(cases(fill))
    def check(case: tuple[list[str], list[str]]):
        files, wanted = case
        folder = tmp_path / f"{len(made)}"
        made.append(folder)
        folder.mkdir()
        for name in files:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"x")
        for by_order in (False, True):
            paths = answer(partial(pair_masks, folder, wanted, by_order), str(folder))
            if paths is not None:
                assert all(path.is_relative_to(folder) for path in paths.values())
        answer(lambda: ResultsMethod("m", str(folder)).provenance(wanted), str(folder))

    check()


@RUNS
def test_any_source(fuzz):
    @fuzz
    @given(
        cases(
            lambda choices: "".join(
                choices.one_of((*KEYS, ":", ".jsonl", "builtin:")) for _ in range(3)
            )
        )
    )
    def check(source: str):
        answer(lambda: read_records(source))

    check()
