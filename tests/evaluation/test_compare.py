"""Methods side by side: the grid, and the page in a real browser."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import NARROW, browser_page
from made_evaluation import COLOURS, HOLE, filled, make_evaluation, truth
from PIL import Image

from moebius.evaluation import compare
from moebius.evaluation.compare import write_comparison

IDS = ["a", "b", "c", "d"]
HOSTILE = "<img src=x onerror=document.title='hit'>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_evaluation(tmp_path / "run", ["one", "two"], IDS)


def page_data(page: Path) -> dict:
    [text] = re.findall(r'type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(text)


def decode(uri: str) -> np.ndarray:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


def test_the_page_holds_every_picture_without_loss(folder: Path, tmp_path: Path):
    write_comparison(folder, tmp_path, ["two", "one"], ["c", "a"])
    data = page_data(tmp_path / "compare.html")
    assert data["titles"] == ["input", "two", "one", "truth"]
    assert [case["id"] for case in data["cases"]] == ["c", "a"]
    for number, case in zip((2, 0), data["cases"], strict=True):
        grey = truth(number)
        grey[HOLE] = 128
        wanted = [grey, filled(number, 1), filled(number, 0), truth(number)]
        for uri, picture in zip(case["pictures"], wanted, strict=True):
            assert np.array_equal(decode(uri), picture)
    assert data["cases"][0]["scores"] == [{}, {"psnr_hole": "12.00"}, {"psnr_hole": "2.000"}, {}]


def test_the_grid_has_a_column_each_and_a_row_each(folder: Path, tmp_path: Path, monkeypatch):
    drawn = []
    monkeypatch.setattr(compare, "picture_grid", lambda columns, path: drawn.append(columns))
    write_comparison(folder, tmp_path, ids=["b", "d"])
    [columns] = drawn
    assert [title for title, _ in columns] == ["input", "one", "two", "truth"]
    assert [len(pictures) for _, pictures in columns] == [2] * 4
    assert np.array_equal(columns[2][1][1], filled(3, 1))


def test_the_grid_is_a_picture(folder: Path, tmp_path: Path):
    write_comparison(folder, tmp_path / "new", count=2)
    with Image.open(tmp_path / "new" / "compare.png") as image:
        assert image.format == "PNG" and image.width > image.height


def test_the_draw_follows_the_seed_and_the_manifests_order(
    folder: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(compare, "picture_grid", lambda columns, path: None)

    def drawn(**options: int) -> list[str]:
        write_comparison(folder, tmp_path, **options)
        return [case["id"] for case in page_data(tmp_path / "compare.html")["cases"]]

    assert drawn(count=99) == IDS
    assert drawn(count=2) == drawn(count=2)
    draws = [drawn(count=2, seed=seed) for seed in range(5)]
    assert all(len(ids) == 2 and ids == sorted(ids) for ids in draws)
    assert len({tuple(ids) for ids in draws}) > 1


def test_what_cannot_be_shown_is_refused(folder: Path, tmp_path: Path):
    (folder / "one" / "results" / "c.png").unlink()
    with pytest.raises(ValueError, match="every method has a result for c, zz"):
        write_comparison(folder, tmp_path, ids=["a", "c", "zz"])
    with pytest.raises(ValueError, match="no picture"):
        write_comparison(folder, tmp_path, count=0)
    assert not (tmp_path / "compare.html").exists()


def test_page_in_a_browser(tmp_path: Path):
    ids = ["a", "</script><script>document.title='hit'</script>"]
    folder = make_evaluation(tmp_path / "run", ["one", HOSTILE], ids)
    write_comparison(folder, tmp_path, ["one", HOSTILE])
    with browser_page() as page:
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto((tmp_path / "compare.html").as_uri())
        assert page.title() == "Comparison: run"
        assert ids[1] in page.locator("figcaption").all_inner_texts()
        page.keyboard.press("Shift+Digit2")
        page.keyboard.press("Digit3")
        stage = page.locator(".stage").first
        assert stage.locator("b").all_inner_texts() == ["one", HOSTILE]

        def colours() -> list[list[int]]:
            """Of the hole at a quarter and at three quarters of the picture's width."""
            shot = np.asarray(Image.open(io.BytesIO(stage.screenshot())).convert("RGB"))
            row, width = int(shot.shape[0] * 0.4), shot.shape[1]
            return [shot[row, int(width * part)].tolist() for part in (0.25, 0.75)]

        one, other = (list(colour) for colour in COLOURS[:2])
        assert colours() == [one, other]
        page.keyboard.press("x")
        assert colours() == [other, one]
        box = stage.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 50, steps=3)
        page.mouse.up()
        assert colours() == [other, other]
        stage.locator("input").focus()
        page.keyboard.press("Home")
        assert colours() == [one, one]
        assert stage.locator("input").get_attribute("aria-valuetext") == f"0 % {HOSTILE}"
        page.get_by_label("truth").nth(1).check()
        assert stage.locator("img").first.get_attribute("alt") == "truth, a"
        assert page.get_by_role("table").first.inner_text().split() == [
            "psnr_hole", "one", "0.000", *HOSTILE.split(), "10.00",
        ]  # fmt: skip
        assert page.title() == "Comparison: run"
        assert {url.partition(":")[0] for url in requests} <= {"file", "data"}


def test_page_on_a_telephone(folder: Path, tmp_path: Path):
    write_comparison(folder, tmp_path)
    with browser_page(NARROW, has_touch=True) as page:
        page.goto((tmp_path / "compare.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == NARROW[0]
        stage = page.locator(".stage").first
        box = stage.bounding_box()
        page.touchscreen.tap(box["x"] + box["width"] * 0.8, box["y"] + 50)
        assert 78 <= int(stage.locator("input").input_value()) <= 82
