"""The report of a study: words, numbers, a plot."""

import csv
from pathlib import Path

import pytest
from made_study import make_answers, make_key, save
from matplotlib.figure import Figure
from PIL import Image

from moebius.evaluation.study import report
from moebius.evaluation.study.files import Key
from moebius.evaluation.study.report import published_averages, write_report


def study(folder: Path, key: Key, people: int = 12) -> tuple[Path, list[Path]]:
    """Everyone chooses method 0 in the first half of the cases, and then any."""
    half = len(key.cases) // 2
    paths = [
        save(
            folder,
            f"p{p}.json",
            make_answers(
                key, f"p{p}", lambda n, case, p=p: 0 if n < half else p % len(key.methods)
            ),
        )
        for p in range(people)
    ]
    return save(folder, "key.json", key.model_dump_json()), paths


def table(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_report_in_words_and_numbers(tmp_path: Path):
    key = make_key(("natural", "portrait"))
    key_file, paths = study(tmp_path, key)
    paths.append(save(tmp_path, "bad.json", "{"))
    made = write_report(key_file, paths, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "12 participants, 4 cases in each of 2 scenarios" in text
    assert "chance is 33.3 %" in text and "took 0.4 minutes (median)" in text
    assert "## Refused: 1" in text and "bad.json is not JSON" in text
    assert made.participants == 12 and len(made.refused) == 1
    rows = table(text)
    assert [row[0] for row in rows] == ["natural"] * 3 + ["portrait"] * 3 + ["average"] * 3
    assert rows[0][1:3] == ["red", "100.00"] and rows[0][3] == "100.0 to 100.0"
    assert rows[6][1:3] == ["red", "66.67"] and rows[6][5] == "64 of 96"
    with (tmp_path / "out" / "report.csv").open() as file:
        numbers = list(csv.DictReader(file))
    assert [float(row["share"]) for row in numbers] == [p.share for p in made.preferences]
    assert all(float(row["low"]) <= float(row["share"]) <= float(row["high"]) for row in numbers)
    assert numbers[6]["choices"] == "64" and numbers[6]["participants"] == "12"


def test_the_papers_averages_stand_beside_its_methods_only_on_the_average(
    tmp_path: Path, monkeypatch
):
    drawn: list[Figure] = []
    save_figure = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, path: (drawn.append(self), save_figure(self, path))
    )
    key = make_key(("natural", "portrait"), methods=["moebius", "mine"])
    write_report(*study(tmp_path, key), tmp_path / "out")
    rows = table((tmp_path / "out" / "report.md").read_text())
    assert [row[6] for row in rows] == ["–"] * 4 + ["31.76", "–"]
    [figure] = drawn
    [axes] = figure.axes
    heights = [bar.get_height() for bars in axes.containers for bar in bars]
    shares = [float(row[2]) for row in rows]
    assert heights == pytest.approx([shares[i] for i in (0, 2, 4, 1, 3, 5)], abs=0.005)
    markers = [line for line in axes.lines if line.get_marker() == "D" and len(line.get_xdata())]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in markers] == [
        (pytest.approx(1.8), 31.76)
    ]
    with Image.open(tmp_path / "out" / "report.png") as image:
        assert image.format == "PNG"


def test_published_averages_are_found_whatever_the_case():
    assert published_averages(["MOEBIUS", "flux.1-fill-dev", "mine"]) == {
        "MOEBIUS": 31.76,
        "flux.1-fill-dev": 23.70,
    }


def test_names_cannot_break_the_table_or_bring_html_and_are_no_formulas(tmp_path: Path):
    key = make_key(methods=["<script>alert(1)</script>", "a|b", r"$\nope{$"])
    write_report(*study(tmp_path, key), tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert r"a\|b" in text


@pytest.mark.parametrize(("people", "note"), [(1, "with one there is none"), (3, "too narrow.")])
def test_few_participants_are_said_to_be_few(tmp_path: Path, people: int, note: str):
    write_report(*study(tmp_path, make_key(), people), tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert f"fewer than {report.FEW} participants" in text and note in text


def test_without_answers_that_count_there_is_no_report(tmp_path: Path):
    key_file, [path] = study(tmp_path, make_key(), 1)
    foreign = save(tmp_path, "foreign.json", path.read_text().replace('"s1"', '"s2"'))
    with pytest.raises(ValueError, match=r"study s1 that count; .*foreign.json: answers study s2"):
        write_report(key_file, [foreign], tmp_path / "out")
    with pytest.raises(ValueError, match="Field required"):
        write_report(path, [path], tmp_path / "out")
    assert not (tmp_path / "out").exists()
