"""The whole study: two participants in a real browser, then the report."""

import base64
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro
from browser import NARROW, browser_page
from made_evaluation import COLOURS, HOLE, make_evaluation
from PIL import Image

from moebius import study
from moebius.console import guard
from moebius.evaluation.study.files import Key, read

METHODS = ["red <script>document.title='hit'</script>".replace("/", ":"), "green", "blue"]
IDS = [f"photo_{n}" for n in range(4)]


def command(*arguments: str | Path) -> None:
    options: Any = study.Options
    study.main(tyro.cli(options, args=[str(a) for a in arguments]))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A study of two scenarios, two cases each."""
    folder = tmp_path_factory.mktemp("study")
    runs = [make_evaluation(folder / name, METHODS, IDS) for name in ("fjord", "faces")]
    command("build", *runs, "--methods", *METHODS, "--cases", "2", "--scenario", "natural",
            "portrait", "--quality", "100", "-o", folder / "study.html")  # fmt: skip
    return folder


def shown_method(image: Any) -> int:
    """Number of the method whose colour fills a picture of the page."""
    content = base64.b64decode(image.get_attribute("src").partition(",")[2])
    picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    return COLOURS.index(tuple(picture[HOLE][0, 0].tolist()))


def options(page: Any) -> list[int]:
    """Methods by place, as their pictures show."""
    return [shown_method(image) for image in page.locator("button.tile img").all()]


def start(page: Any, built: Path, participant: str) -> None:
    page.goto((built / "study.html").as_uri())
    page.get_by_label("Your number").fill(participant)
    page.get_by_role("button", name="Start").click()


def save(page: Any, folder: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save answers").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_two_participants_and_their_report(built: Path, tmp_path: Path, capsys):
    with browser_page(accept_downloads=True) as page:
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        # With the keyboard, always blue.
        start(page, built, "p/1")
        orders = []
        for number in range(1, 5):
            assert page.locator("#top h2").inner_text() == f"{number} of 4"
            orders.append(options(page))
            page.keyboard.press(str(orders[-1].index(2) + 1))
        by_keyboard = save(page, tmp_path)
        assert by_keyboard.name == "answers-p_1.json"
        copied = page.locator("#copy").input_value()
        assert json.loads(copied) == json.loads(by_keyboard.read_text())

        # With the mouse: red, then back and green, a reload, red to the end.
        page.get_by_role("button", name="Another participant").click()
        start(page, built, "p2")
        page.locator("button.tile").nth(options(page).index(0)).dblclick()
        assert page.locator("#top h2").inner_text() == "2 of 4"  # one answer for a double click
        page.get_by_role("button", name="Back").click()
        chosen = page.locator("button.tile.is-chosen")
        assert shown_method(chosen.locator("img")) == 0
        page.locator("button.tile").nth(options(page).index(1)).click()
        before = options(page)
        page.reload()
        assert page.locator("#top h2").inner_text() == "2 of 4" and options(page) == before
        for _ in range(3):
            page.locator("button.tile").nth(options(page).index(0)).click()
        by_mouse = save(page, tmp_path)

        # Again under the first name, elsewhere: the same order.
        page.evaluate("localStorage.clear()")
        start(page, built, "p/1")
        assert options(page) == orders[0]
        assert page.title() == "Which picture is best?"
        assert {url.partition(":")[0] for url in requests} <= {"file", "data", "blob"}

    capsys.readouterr()
    (tmp_path / "torn.json").write_text(copied[:100])
    out = tmp_path / "report"
    command(
        "report", built / "study.key.json", by_keyboard, by_mouse, tmp_path / "torn.json", "-o", out
    )
    printed = capsys.readouterr()
    assert "2 participants" in printed.out and "37.50" in printed.out
    assert printed.err.startswith("refused: ") and "torn.json is not JSON" in printed.err
    text = (out / "report.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| average")]
    counts = {row[1].split()[0]: row[5] for row in rows}
    # Blue four times by the keyboard; by the mouse green once and red three times.
    assert counts == {"red": "3 of 8", "green": "1 of 8", "blue": "4 of 8"}
    key = read(Key, built / "study.key.json")
    answers = json.loads(by_mouse.read_text())["answers"]
    chosen_by_mouse = [key.cases[a["case"]].options[a["choice"]] for a in answers]
    assert chosen_by_mouse == ["green", *[METHODS[0]] * 3]
    assert {a["case"] for a in answers} == set(key.cases)
    assert all(a["ms"] > 0 for a in answers)


def page_hash(text: str) -> int:
    """FNV-1a, then MurmurHash3's last steps, as the page's script has it."""
    h = 0x811C9DC5
    for byte in text.encode():
        h = (h ^ byte) * 0x01000193 & 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = (h ^ h >> shift) * factor & 0xFFFFFFFF
    return h


def test_orders_follow_from_the_participant_and_favour_no_method(built: Path):
    key = read(Key, built / "study.key.json")
    with browser_page(NARROW) as page:
        start(page, built, "ünal")
        assert page.evaluate("document.documentElement.scrollWidth") == NARROW[0]
        arranged = page.evaluate(
            "[...Array(300).keys()].map((n) => { const a = arrange(`ünal${n}`); return ["
            "a.seed, a.order.map((c) => [c.case, c.options.map((o) => o.option)])]; })"
        )
    seed, order = arranged[7]
    assert seed == page_hash(f"{key.study}/ünal7")

    def rank(name: str) -> int:
        return page_hash(f"{seed}/{name}")

    assert [case for case, _ in order] == sorted(key.cases, key=rank)
    assert all(shown == sorted(key.cases[case].options, key=rank) for case, shown in order)
    first_cases = Counter(order[0][0] for _, order in arranged)
    first_methods = Counter(
        key.cases[case].options[shown[0]] for _, order in arranged for case, shown in order
    )
    # 300 draws of 4 cases and 1,200 of 3 methods; four deviations of chance are 30 and 65.
    assert all(abs(count - 75) < 30 for count in first_cases.values()) and len(first_cases) == 4
    assert all(abs(count - 400) < 65 for count in first_methods.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "nowhere", "-o", "x.html"], "no folder at nowhere"),
        (["build", "-o", "x.html"], "name at least one folder"),
        (["build", ".", "--scenario", "a", "b", "-o", "x.html"], "2 --scenario names for 1 folder"),
        (["report", "no.json", "a.json", "-o", "out"], "cannot read no.json"),
        (["report", "no.json", "-o", "out"], "cannot read no.json"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        guard(lambda: command(*arguments))
    assert caught.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert list(tmp_path.iterdir()) == []
