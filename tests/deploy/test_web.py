"""The static page in a real browser: open, paint, fill, look, download."""

import io
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from browser import NARROW, WIDE, browser_page
from PIL import Image
from skimage import data

from moebius.deploy import website
from moebius.export import CACHE


@pytest.fixture(scope="module")
def site(exported, tmp_path_factory) -> Iterator[str]:
    """The page's address, served as `--serve` does."""
    try:
        runtime = website.fetch_runtime(CACHE.expanduser())
    except ValueError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(exported, folder, dirs_exist_ok=True)
    website.write_page(folder, runtime)
    with website.make_server(folder, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def photograph(tmp_path_factory) -> Path:
    """Sides that are no multiple of anything, longer than the model's."""
    path = tmp_path_factory.mktemp("photo") / "coffee.png"
    Image.fromarray(data.coffee()[:251, :333]).save(path)
    return path


def paint(page, *points: tuple[float, float]) -> None:
    """A stroke over the photograph; points are shares of its width and height."""
    box = page.locator("#overlay").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=3)
    page.mouse.up()


def fill(page) -> None:
    page.locator("#run").click()
    page.wait_for_function(
        "/Done|did not work/.test(document.querySelector('#status').textContent)", timeout=120_000
    )
    assert page.locator("#status").text_content().startswith("Done")


def downloaded(page) -> np.ndarray:
    with page.expect_download() as event:
        page.locator("#download").click()
    assert event.value.suggested_filename == "coffee-inpainted.png"
    return np.asarray(Image.open(io.BytesIO(Path(event.value.path()).read_bytes())).convert("RGB"))


def test_the_picture_changes_inside_the_mask_only_and_comes_back(site, photograph):
    before = np.asarray(Image.open(photograph))
    with browser_page(WIDE) as page:
        page.goto(site)
        page.locator("#file").set_input_files(photograph)
        page.get_by_text("333 × 251 pixels").wait_for()
        page.locator("#tools summary").click()
        page.locator("#steps").fill("3")
        page.locator("#device").select_option("wasm")
        paint(page, (0.2, 0.3), (0.35, 0.4))
        paint(page, (0.9, 0.9))
        fill(page)
        after = downloaded(page)
        assert after.shape == before.shape
        changed = (after != before).any(axis=-1)
        # Two strokes, far apart: something in each, nothing anywhere else.
        height, width = changed.shape
        rows, columns = np.mgrid[:height, :width]
        # The brush is 36 px of the page wide; both share the photograph's scale.
        radius = 20 * width / page.locator("#overlay").bounding_box()["width"]
        first = distance(columns, rows, (0.2 * width, 0.3 * height), (0.35 * width, 0.4 * height))
        second = np.hypot(columns - 0.9 * width, rows - 0.9 * height)
        assert changed[first < radius - 4].mean() > 0.9
        assert changed[second < radius - 4].mean() > 0.9
        assert not changed[(first > radius) & (second > radius)].any()

        page.locator("#undo").click()
        paint(page, (0.2, 0.35))
        fill(page)
        again = downloaded(page)
        assert not (again == after).all()
        for _ in range(2):
            page.locator("#undo").click()
        page.locator("#steps").fill("1000")
        page.locator("#run").click()
        page.get_by_text("of 1000").wait_for()
        page.locator("#stop").click()
        page.get_by_text("Stopped.").wait_for()
        assert page.locator("#run").is_enabled()  # the mask is still there


def distance(x, y, start, end):
    """Of every pixel to a segment."""
    (x0, y0), (x1, y1) = start, end
    along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2)
    along = np.clip(along, 0, 1)
    return np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0))


def test_the_page_fits_a_telephone_and_refuses_in_words(site, photograph, tmp_path):
    with browser_page(NARROW) as page:
        page.goto(site)
        bad = tmp_path / "notes.txt"
        bad.write_text("no picture")
        page.locator("#file").set_input_files(bad)
        page.get_by_text("notes.txt is not a picture").wait_for()
        page.locator("#file").set_input_files(photograph)
        page.get_by_text("333 × 251 pixels").wait_for()
        assert page.locator("#run").is_disabled()
        paint(page, (0.5, 0.5))
        assert page.locator("#run").is_enabled()
        page.locator("#tools summary").click()
        page.locator("#steps").fill("0")
        page.locator("#run").click()
        page.get_by_text("steps: use 1 to 1000").wait_for()
        widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1]
        for button in page.locator("button:visible").all():
            box = button.bounding_box()
            assert box["height"] >= 44
            assert box["x"] + box["width"] <= 380


def test_the_server_isolates_the_page_and_knows_its_types(site):
    with urlopen(site + "ort/ort.wasm.min.mjs") as answer:
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers.get_content_type() == "text/javascript"
    with urlopen(site + "ort/ort-wasm-simd-threaded.wasm") as answer:
        assert answer.headers.get_content_type() == "application/wasm"


def test_no_npm_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"npm is not installed.*install Node\.js"):
        website.fetch_runtime(tmp_path)
