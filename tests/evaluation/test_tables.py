import csv
import io

import pytest
from rich.console import Console

from moebius.evaluation.tables import (
    PLANNED,
    Metric,
    Row,
    best_row,
    change,
    format_count,
    to_csv,
    to_latex,
    to_markdown,
    to_rich,
)

PSNR = Metric("hole_psnr", "hole PSNR")
FID = Metric("fid", "FID", higher_is_better=False, digits=1)
ROWS = [
    Row("10", "lmi_dw_mixffn", False, {"hole_psnr": 18.0, "fid": 12.5}, 225_980_091, 154.0),
    Row("9", "lmi_dw_mixffn", True, {"hole_psnr": 20.0, "fid": 10.0}, 225_980_091, 154.0),
    Row("11", "gla_ca_conv_ffn", True, {"hole_psnr": float("nan")}, 525_856_668, 314.3),
]
FAILED = Row("8", "lmi_dw_ffn", True, {"hole_psnr": 99.0}, error="ValueError: loss|task\nis NaN")


def test_best_row_and_change_know_the_direction():
    assert best_row(ROWS, PSNR) is ROWS[1] and best_row(ROWS, FID) is ROWS[1]
    assert best_row([*ROWS, FAILED], PSNR) is ROWS[1]  # a failed trial is never the best
    assert best_row(ROWS[2:], PSNR) is None
    assert change(ROWS[0], ROWS[1], PSNR) == pytest.approx(-10)
    assert change(ROWS[0], ROWS[1], FID) == pytest.approx(25)
    assert change(ROWS[2], ROWS[1], PSNR) is None
    negative = [Row("a", "x", False, {"fid": value}) for value in (-3.0, -4.0)]
    assert change(negative[0], negative[1], FID) == pytest.approx(25)


def test_markdown_is_the_papers_table():
    assert to_markdown(ROWS, [PSNR, FID]).splitlines() == [
        "| Exp. | Arch. | KD | hole PSNR ↑ | FID ↓ | Params | GMACs |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
        "| 10 | lmi_dw_mixffn | ✗ | 18.00 ↓10.0% | 12.5 ↑25.0% | 226M | 154.00 |",
        "| 9 | lmi_dw_mixffn | ✓ | **20.00** | **10.0** | 226M | 154.00 |",
        "| 11 | gla_ca_conv_ffn | ✓ | – | – | 526M | 314.30 |",
    ]


def test_failed_trials_appear_with_their_reason():
    lines = to_markdown([*ROWS, FAILED], [PSNR]).splitlines()
    assert lines[0].endswith("| Status |") and lines[2].endswith("| ok |")
    assert lines[-1] == (
        r"| 8 | lmi_dw_ffn | ✓ | – | – | – | failed: ValueError: loss\|task is NaN |"
    )


def test_what_has_not_begun_is_no_failure():
    lines = to_markdown([Row("1", "lmi_dw_ffn", True, error=PLANNED)], [PSNR]).splitlines()
    assert lines[-1] == "| 1 | lmi_dw_ffn | ✓ | – | – | – | planned |"


def test_rich_table_shows_the_same_cells():
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(to_rich([*ROWS, FAILED], [PSNR, FID], title="[quick]"))
    text = console.export_text()
    for cell in ("18.00 ↓10.0%", "12.5 ↑25.0%", "226M", "failed: ValueError: loss|task is NaN"):
        assert cell in text


def test_csv_has_plain_numbers():
    rows = list(csv.DictReader(io.StringIO(to_csv([*ROWS, FAILED], [PSNR, FID]))))
    assert [row["experiment"] for row in rows] == ["10", "9", "11", "8"]
    assert float(rows[0]["hole_psnr"]) == 18 and float(rows[0]["fid_change_percent"]) == 25
    assert rows[0]["params"] == "225980091" and rows[0]["error"] == ""
    assert rows[2]["hole_psnr"] == rows[3]["hole_psnr"] == ""
    assert rows[3]["error"] == FAILED.error


@pytest.mark.parametrize(
    ("count", "text"),
    [(12, "12"), (61_440, "61.4K"), (999_700, "1M"), (225_980_091, "226M"), (1.5e9, "1.5G")],
)
def test_counts_are_short(count, text):
    assert format_count(count) == text


SEEDED = [
    Row(
        "9",
        "lmi_dw_mixffn",
        True,
        {"fid": 26.5},
        deviations={"fid": 0.125},
        seeds=3,
        published={"fid": 26.43, "lpips": 0.258},
        latency_ms=26.01,
    ),
    Row("x", "a_b", False, {"fid": 30.0}, stopped=1200),
]
LPIPS = Metric("lpips", "LPIPS", higher_is_better=False, digits=3)


def test_deviations_published_numbers_and_what_else_a_row_has_get_columns():
    fid = Metric("fid", "FID", higher_is_better=False)
    assert to_markdown(SEEDED, [fid, LPIPS], notes=["First.", "Second."]).splitlines() == [
        "| Exp. | Arch. | KD | Seeds | FID ↓ | FID ↓ (paper) | LPIPS ↓ (paper) | Params | GMACs "
        "| ms/step | Status |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        "| 9 | lmi_dw_mixffn | ✓ | 3 | **26.50 ± 0.12** | 26.43 | 0.258 | – | – | 26.0 | ok |",
        "| x | a_b | ✗ | 1 | 30.00 ↑13.2% | – | – | – | – | – | stopped at step 1,200 |",
        "",
        "- First.",
        "- Second.",
    ]


def test_a_metric_that_nobody_has_keeps_its_empty_column():
    assert "| LPIPS ↓ |" in to_markdown(ROWS, [PSNR, LPIPS])


def test_csv_of_deviations_and_published_numbers():
    rows = list(csv.DictReader(io.StringIO(to_csv(SEEDED, [FID]))))
    assert rows[0]["fid"] == "26.5" and rows[0]["fid_deviation"] == "0.125"
    assert rows[0]["fid_published"] == "26.43" and rows[0]["latency_ms"] == "26.01"
    assert [row["seeds"] for row in rows] == ["3", "1"] and rows[1]["stopped"] == "1200"
    plain = to_csv(ROWS, [PSNR]).splitlines()[0]
    assert plain == "experiment,arch,kd,hole_psnr,hole_psnr_change_percent,params,gmacs,error"


def test_notes_stand_below_the_rich_table():
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(to_rich(SEEDED, [FID], notes=["[one]", "two"]))
    assert "[one]" in console.export_text().splitlines()[-2]


def test_latex_is_escaped_and_balanced():
    text = to_latex(
        [*SEEDED, FAILED], [FID, PSNR], "Sweep a_b & 50%", notes=["100 % {of} #1 $~^\\"]
    )
    lines = text.splitlines()
    assert r"\caption{Sweep a\_b \& 50\%}" in lines
    assert r"\begin{tabular}{lllrrrrrrrl}" in lines
    assert any(
        line.startswith(
            r"9 & lmi\_dw\_mixffn & $\checkmark$ & 3 & \textbf{26.5 $\pm$ 0.1} & 26.4 &"
        )
        for line in lines
    )
    assert (
        r"\par\footnotesize 100 \% \{of\} \#1 \$\textasciitilde{}\textasciicircum{}\textbackslash{}"
        in lines
    )
    assert text.isascii()  # what it prints beyond ASCII, LaTeX's standard fonts cannot
    body = [line for line in lines if line.endswith(r"\\")]
    assert len(body) == 4
    assert {line.replace(r"\&", "").count("&") for line in body} == {10}
    for opening in ("table", "tabular"):
        assert text.count(rf"\begin{{{opening}}}") == text.count(rf"\end{{{opening}}}") == 1
    unescaped = text.replace(r"\{", "").replace(r"\}", "")
    assert unescaped.count("{") == unescaped.count("}")
