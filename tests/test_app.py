"""The page in a real browser, and what its command refuses."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import NARROW, browser_page
from made_server import free_port, make_model, photo
from PIL import Image

from moebius import app
from moebius.app import Options, main, page_running
from moebius.inference.masks import distance_to_hole, resize_hole
from moebius.serving import model as serving_model
from moebius.serving.uploads import Limits

WIDTH, HEIGHT = 192, 160


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    pytest.importorskip("gradio", reason="pip install 'moebius-inpainting[app]'")
    limits = Limits(megabytes=0.2)
    with page_running(make_model(), "tiny", limits, "127.0.0.1", free_port()) as address:
        yield address


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    photo().resize((WIDTH, HEIGHT)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def show(page: Any, address: str) -> list[str]:
    """Opens the page; the list gathers what it asks of other servers."""
    away: list[str] = []

    def check(request: Any) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            away.append(request.url)

    page.on("request", check)
    page.goto(address)
    page.get_by_role("button", name="Fill").wait_for()
    return away


def upload(page: Any, path: Path) -> None:
    page.set_input_files("#upload input[type=file]", path)


def paint(page: Any) -> None:
    """One stroke through the middle of the photograph."""
    canvas = page.locator("#editor canvas").first
    canvas.wait_for()
    page.get_by_text("select the draw tool").wait_for(state="hidden")
    canvas.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)  # the photograph glides into its place
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 10, y)
    page.mouse.down()
    page.mouse.move(x + 10, y, steps=3)
    page.mouse.up()
    page.locator("#editor [aria-label=Undo]:enabled").wait_for()


def fill(page: Any, steps: int) -> None:
    page.get_by_text("Advanced").click()
    number = page.get_by_label("number input for Steps")
    number.fill(str(steps))
    number.press("Tab")
    page.click("#fill")


def test_paint_and_fill_changes_the_photograph_inside_the_paint_alone(
    address: str, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    holes = []
    original = app.fill_photograph

    def spy(pipeline, path, hole, *arguments):
        holes.append(hole)
        return original(pipeline, path, hole, *arguments)

    monkeypatch.setattr(app, "fill_photograph", spy)
    (tmp_path / "text.png").write_text("no picture")
    with browser_page(accept_downloads=True) as page:
        away = show(page, address)
        upload(page, tmp_path / "text.png")
        page.get_by_text("the image is no picture that can be read").wait_for()
        page.locator("#upload button").first.click()
        upload(page, picture)
        paint(page)
        fill(page, steps=1)
        page.locator("#download:enabled").wait_for()
        with page.expect_download() as event:
            page.click("#download")
        event.value.save_as(tmp_path / "filled.png")
        assert event.value.suggested_filename == "photo_filled.png"
    assert away == []
    before, after = (Image.open(path) for path in (picture, tmp_path / "filled.png"))
    assert (after.size, after.mode) == (before.size, before.mode)
    hole = resize_hole(holes[0], before.size)
    ys, xs = np.nonzero(hole)
    assert abs(xs.mean() - WIDTH / 2) < 5 and abs(ys.mean() - HEIGHT / 2) < 5
    assert 0.001 < hole.mean() < 0.2
    changed = (np.asarray(before) != np.asarray(after)).any(-1)
    assert changed[hole].mean() > 0.9
    assert not changed[distance_to_hole(hole) > 3].any()


def test_on_a_telephone_nothing_is_cut_off_and_an_empty_mask_is_said(address: str, picture: Path):
    with browser_page(NARROW, has_touch=True) as page:
        show(page, address)
        upload(page, picture)
        page.locator("#editor canvas").first.wait_for()
        page.click("#fill")
        page.get_by_text("nothing is painted: paint over what should be filled").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == NARROW[0]
        for name in ("#upload", "#editor", "#fill", "#slider", "#download"):
            box = page.locator(name).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= NARROW[0]


def test_a_file_that_is_too_long_is_not_taken(address: str):
    import requests

    def send(size: int) -> int:
        files = {"files": ("photo.png", bytes(size))}
        return requests.post(f"{address}/gradio_api/upload", files=files, timeout=60).status_code

    assert (send(199_000), send(201_000)) == (200, 413)


def test_an_uploads_name_leads_nowhere_and_is_short(address: str):
    import requests

    for name in (
        "../../up.png",
        "/etc/up.png",
        "a\r\nb/c\0.png",
        "x" * 5_000 + ".png",
        "..\\up.png",
    ):
        files = {"files": (name, b"text")}
        answer = requests.post(f"{address}/gradio_api/upload", files=files, timeout=60)
        assert answer.status_code in (200, 400, 413), answer.text
        for kept in map(Path, answer.json() if answer.status_code == 200 else ()):
            assert Path(os.environ["GRADIO_TEMP_DIR"]) in kept.resolve().parents
            assert len(os.fsencode(kept.name)) <= 200 and kept.name.isprintable()


def test_uploads_are_gone_when_the_page_is_closed():
    pytest.importorskip("gradio", reason="pip install 'moebius-inpainting[app]'")
    with page_running(make_model(), "tiny", Limits(), "127.0.0.1", free_port()):
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert folder.is_dir()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_megabytes": 0}, "--max-megabytes is 0"),
        ({"replicas": 0}, "--replicas is 0"),
        (
            {"model": "nothing/in/here", "port": free_port()},
            "model folder nothing/in/here not found",
        ),
        ({"model": "x", "port": 0}, "--port is 0: use 1 to 65535"),
        ({"model": "x", "port": 70_000}, "--port is 70000"),
        ({"port": free_port()}, "no built-in model in .*: name one with --model"),
    ],
)
def test_what_cannot_work_is_one_line(
    options: dict[str, Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(serving_model, "BUILTIN", tmp_path)
    with pytest.raises(ValueError, match=f"^{reason}"):
        main(Options(**options))


def test_a_port_in_use_is_said():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ValueError, match="use another --host or --port"):
            app.check_address("127.0.0.1", other.getsockname()[1])


def test_without_gradio_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r"pip install 'moebius-inpainting\[app\]'"):
        app.import_gradio()
