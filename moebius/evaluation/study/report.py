"""What the answers to a study say: a table, a CSV, and a plot like the paper's Fig. 6."""

import csv
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moebius.evaluation.published import published
from moebius.evaluation.study.files import Answers, Key, read, read_answers
from moebius.evaluation.study.preferences import (
    DRAWS,
    Interval,
    Preference,
    count_positions,
    preferences,
)

FEW = 10
"""Participants below which the report warns of its intervals."""

COLOURS = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]


@dataclass(frozen=True)
class StudyReport:
    """What `write_report` found."""

    preferences: list[Preference]
    participants: int
    refused: list[str]
    """One line for each file of answers that does not count."""


def write_report(key_file: Path, paths: Sequence[Path], out: Path, seed: int = 0) -> StudyReport:
    """Writes `report.md`, `report.csv` and `report.png`.

    Args:
        key_file: what `build_study` wrote beside the page.
        paths: files that participants saved.
        out: folder to write to.
        seed: of the bootstrap.

    Raises:
        ValueError: no key in that file, or no answers that count.
    """
    key = read(Key, key_file)
    answers, refused = read_answers(list(paths), key)
    if not answers:
        raise ValueError("; ".join([f"no answers to study {key.study} that count", *refused]))
    found = preferences(key, answers, seed)
    out.mkdir(parents=True, exist_ok=True)
    paper = published_averages(key.methods)
    text = to_markdown(key, answers, refused, found, paper)
    (out / "report.md").write_text(text, encoding="utf-8")
    write_csv(found, len(answers), out / "report.csv")
    plot(key, found, paper, out / "report.png")
    return StudyReport(found, len(answers), refused)


def published_averages(methods: Sequence[str]) -> dict[str, float]:
    """The paper's averages (Fig. 6), per cent, of those methods that it has, whatever the case."""
    by_name = {name.casefold(): row["average"] for name, row in published("figure6").items()}
    return {m: by_name[m.casefold()] for m in methods if m.casefold() in by_name}


def to_markdown(
    key: Key,
    answers: Sequence[Answers],
    refused: Sequence[str],
    found: Sequence[Preference],
    paper: dict[str, float],
) -> str:
    """The report in words and a table."""
    cases = len(key.cases) // len(key.scenarios)
    minutes = np.median([sum(x.ms for x in a.answers) / 60_000 for a in answers])
    places = count_positions(key, answers)
    lines = [
        f"# Preference study {key.study}",
        "",
        f"{len(answers)} participant{'s' * (len(answers) != 1)}, "
        f"{cases} cases in each of {len(key.scenarios)} "
        f"scenario{'s' * (len(key.scenarios) != 1)}, one of {len(key.methods)} pictures chosen in "
        f"each; chance is {100 / len(key.methods):.1f} %. "
        f"Participants took {minutes:.1f} minutes (median).",
        "",
        "| Scenario | Method | Preferred [%] | 95 % interval | Wilson | Chosen | Paper [%] |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in found:
        average = paper.get(row.method) if row.scenario == found[-1].scenario else None
        cells = [
            _cell(row.scenario),
            _cell(row.method),
            f"{row.share:.2f}",
            _interval(row.interval),
            _interval(row.wilson),
            f"{row.choices} of {row.answers}",
            "–" if average is None else f"{average:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Intervals: {DRAWS:,} bootstrap draws of whole participants, because one person's answers "
        "are not independent; the cases are taken as given. Wilson's interval, beside it, takes "
        "all answers as independent.",
    ]
    if len(answers) < FEW:
        lines.append(
            f"With fewer than {FEW} participants the bootstrap's intervals are too narrow"
            + ("; with one there is none." if len(answers) == 1 else ".")
        )
    if paper:
        lines.append(
            "Paper: averages of Fig. 6, 22 participants, 50 cases a scenario, a choice among "
            "4 methods; shares among other methods or pictures are not the same measurement."
        )
    shares = " / ".join(f"{100 * n / places.sum():.0f}" for n in places)
    lines += ["", f"Choices by place on the page, 1 to {len(places)}: {shares} %."]
    lines += ["", f"## Refused: {len(refused)}", ""]
    lines += [f"- {_cell(line)}" for line in refused] or ["No file of answers was refused."]
    return "\n".join(lines) + "\n"


def write_csv(found: Sequence[Preference], participants: int, path: Path) -> None:
    """One line a scenario and method, numbers unrounded."""
    titles = "scenario method share low high wilson_low wilson_high choices answers participants"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(titles.split())
        for row in found:
            interval = row.interval or ("", "")
            numbers = (row.share, *interval, *row.wilson, row.choices, row.answers, participants)
            writer.writerow([row.scenario, row.method, *numbers])


def plot(key: Key, found: Sequence[Preference], paper: dict[str, float], path: Path) -> None:
    """Bars by scenario with their intervals; the paper's averages as diamonds on the last group."""
    groups = list(dict.fromkeys(row.scenario for row in found))
    # Names are no formulas, whatever dollar signs they hold.
    with matplotlib.rc_context({"text.parse_math": False}):
        bars = len(groups) * len(key.methods)
        figure = Figure(figsize=(max(5.0, 1.5 + 0.62 * bars), 4), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        width = 0.8 / len(key.methods)
        for m, method in enumerate(key.methods):
            rows = [row for row in found if row.method == method]
            xs = np.arange(len(groups)) + (m - (len(key.methods) - 1) / 2) * width
            _bars(axes, xs, rows, width, COLOURS[m])
            if method in paper:
                axes.plot(xs[-1], paper[method], "D", ms=6, mfc="white", mec="black", zorder=4)
        if paper:
            axes.plot([], [], "D", ms=6, mfc="white", mec="black", label="paper, average")
        chance = 100 / len(key.methods)
        axes.axhline(chance, color="#888888", lw=1, ls="--", zorder=0, label="chance")
        axes.set_xticks(range(len(groups)), groups)
        axes.set_ylabel("preferred [%]")
        axes.set_ylim(0, 1.12 * max([r.interval[1] if r.interval else r.share for r in found]))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8)
        figure.savefig(path)


def _bars(
    axes: Axes, xs: np.ndarray, rows: Sequence[Preference], width: float, colour: str
) -> None:
    shares = [row.share for row in rows]
    axes.bar(xs, shares, 0.92 * width, color=colour, label=rows[0].method)
    for x, row in zip(xs, rows, strict=True):
        low, high = row.interval or (row.share, row.share)
        axes.vlines(x, low, high, color="black", lw=1.2)
        axes.annotate(
            f"{row.share:.1f}",
            (x, high),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
        )


def _interval(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"


def _cell(text: str) -> str:
    return html.escape(text, quote=False).replace("\\", "\\\\").replace("|", "\\|")
