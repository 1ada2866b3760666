"""The page hides everything, and the key tells it."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_evaluation import filled, make_evaluation
from PIL import Image

from moebius.evaluation.evaluated import EvaluatedFolder
from moebius.evaluation.study.build import Scenario, build_study, key_path
from moebius.evaluation.study.files import Key, read

METHODS = ["zebra", "yak", "xenon"]
IDS = [f"photo_{n}" for n in range(8)]


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    folder = make_evaluation(tmp_path / "fjord", METHODS, IDS)
    return Scenario("landscape", EvaluatedFolder(folder))


def page_data(page: Path) -> dict[str, Any]:
    [text] = re.findall(r'type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(text)


def test_the_page_tells_neither_methods_nor_files_nor_seed(scenario: Scenario, tmp_path: Path):
    page = tmp_path / "study.html"
    build_study([scenario], page, METHODS, count=4, seed=123456789)
    without_pictures = re.sub(r"base64,[^\"]*", "", page.read_text())
    for word in [*METHODS, *IDS, "photo_", "landscape", "fjord", "results", "123456789"]:
        assert word not in without_pictures


def test_the_key_says_which_picture_is_whose(scenario: Scenario, tmp_path: Path):
    page = tmp_path / "study.html"
    key = build_study([scenario], page, METHODS, count=6, quality=100)
    assert read(Key, key_path(page)) == key
    data = page_data(page)
    assert data["study"] == key.study
    assert {case["case"] for case in data["cases"]} == set(key.cases)
    assert len({case.id for case in key.cases.values()}) == 6
    for case in data["cases"]:
        hidden = key.cases[case["case"]]
        assert hidden.scenario == "landscape" and case["size"] == [32, 32]
        for option in case["options"]:
            content = base64.b64decode(option["picture"].partition(",")[2])
            picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
            method = METHODS.index(hidden.options[option["option"]])
            assert np.array_equal(picture, filled(IDS.index(hidden.id), method))


def test_the_order_in_the_page_tells_nothing(scenario: Scenario, tmp_path: Path):
    page = tmp_path / "study.html"
    key = build_study([scenario], page, METHODS, count=8, seed=0)
    cases = page_data(page)["cases"]
    assert [key.cases[case["case"]].id for case in cases] != IDS
    firsts = {key.cases[case["case"]].options[case["options"][0]["option"]] for case in cases}
    assert firsts == set(METHODS)


def test_a_seed_repeats_the_study_and_another_hides_anew(scenario: Scenario, tmp_path: Path):
    pages = [tmp_path / f"{name}.html" for name in "abcd"]
    keys = [
        build_study([scenario], page, METHODS, count=4, seed=seed)
        for page, seed in zip(pages, (5, 5, 6, None), strict=True)
    ]
    assert pages[0].read_bytes() == pages[1].read_bytes() and keys[0] == keys[1]
    assert len({key.study for key in keys}) == 3
    assert not set(keys[0].cases) & set(keys[2].cases)
    assert keys[3].seed not in (0, 5, 6)


def test_each_scenario_and_seed_has_its_own_draw(scenario: Scenario, tmp_path: Path):
    other = Scenario("other", scenario.folder)
    drawn = set()
    for seed in range(3):
        page = tmp_path / f"{seed}.html"
        key = build_study([scenario, other], page, METHODS, count=4, seed=seed)
        for name in key.scenarios:
            drawn.add(frozenset(c.id for c in key.cases.values() if c.scenario == name))
    # Of 70 possible draws, six by chance are hardly fewer than five different ones.
    assert len(drawn) >= 5


def test_the_same_ids_in_two_scenarios_are_different_cases(scenario: Scenario, tmp_path: Path):
    key = build_study(
        [scenario, Scenario("other", scenario.folder)], tmp_path / "study.html", METHODS, count=8
    )
    assert len(key.cases) == 16 and key.scenarios == ["landscape", "other"]


def test_lossy_pictures_are_smaller(scenario: Scenario, tmp_path: Path):
    sizes = []
    for quality in (50, 100):
        page = tmp_path / f"{quality}.html"
        build_study([scenario], page, METHODS, count=4, quality=quality, seed=0)
        sizes.append(page.stat().st_size)
    assert sizes[0] < sizes[1]


def test_a_key_with_answers_to_come_is_never_overwritten(scenario: Scenario, tmp_path: Path):
    page = tmp_path / "study.html"
    build_study([scenario], page, METHODS, count=4, seed=1)
    before = page.read_bytes()
    build_study([scenario], page, METHODS, count=4, seed=1)
    with pytest.raises(ValueError, match=r"study.key.json is the key of another study"):
        build_study([scenario], page, METHODS, count=4, seed=2)
    assert page.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 9}, "scenario landscape: 8 pictures .* 9 cases are asked for"),
        ({"count": 0}, "0 cases are asked for"),
        ({"methods": ["yak"]}, "1 methods: a choice needs 2 to 9"),
        ({"methods": ["yak", "gnu"]}, "method 'gnu'"),
        ({"quality": 0}, "quality is 0"),
        ({"quality": 101}, "quality is 101"),
    ],
)
def test_what_makes_no_study_is_refused(scenario: Scenario, tmp_path: Path, options, message):
    page = tmp_path / "study.html"
    with pytest.raises(ValueError, match=message):
        build_study([scenario], page, **({"methods": METHODS, "count": 4} | options))
    assert not page.exists() and not key_path(page).exists()


def test_scenarios_need_their_own_names(scenario: Scenario, tmp_path: Path):
    with pytest.raises(ValueError, match="landscape, landscape"):
        build_study([scenario, scenario], tmp_path / "study.html", METHODS, count=4)
