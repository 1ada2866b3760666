"""The table of an ablation, laid out like the paper's Tab. 2."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

PLANNED = "planned"
"""In place of an error: a trial that has not begun."""


@dataclass(frozen=True)
class Metric:
    """How to read and print one score."""

    name: str
    """Key in `Row.metrics`."""
    label: str
    """Column title."""
    higher_is_better: bool = True
    digits: int = 2
    """Decimals printed."""

    @property
    def title(self) -> str:
        """Column title with an arrow towards better."""
        return f"{self.label} {'↑' if self.higher_is_better else '↓'}"


@dataclass(frozen=True)
class Row:
    """One trial."""

    label: str
    """Experiment number or name."""
    arch: str
    distilled: bool
    """Whether knowledge distillation (KD) was on."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    params: int | None = None
    gmacs: float | None = None
    error: str | None = None
    """Why the trial failed, one line, or `PLANNED`; None where it finished."""
    deviations: Mapping[str, float] = field(default_factory=dict)
    """Standard deviation of each metric over the seeds (n - 1 in the denominator)."""
    seeds: int = 1
    """Runs that `metrics` is the mean of."""
    published: Mapping[str, float] = field(default_factory=dict)
    """What the paper prints for this row, by the same keys as `metrics`."""
    latency_ms: float | None = None
    """Of one denoising step, batch 1."""
    stopped: int | None = None
    """Step at which a scheduler stopped the trial; None where it ran to its end."""


def score(row: Row, metric: Metric) -> float | None:
    """Return a finite score of a trial that finished, else None."""
    value = row.metrics.get(metric.name)
    return value if row.error is None and value is not None and math.isfinite(value) else None


def best_row(rows: Sequence[Row], metric: Metric) -> Row | None:
    """Return the first of the best rows, or None where no row has the score."""
    scored = [(value, row) for row in rows if (value := score(row, metric)) is not None]
    if not scored:
        return None
    pick = max if metric.higher_is_better else min
    return pick(scored, key=lambda pair: pair[0])[1]


def change(row: Row, best: Row | None, metric: Metric) -> float | None:
    """Return the signed change against the best row in per cent, None where undefined."""
    value = score(row, metric)
    reference = None if best is None else score(best, metric)
    if value is None or not reference:
        return None
    return 100 * (value - reference) / abs(reference)


def format_count(count: float) -> str:
    """Print a number of parameters with three digits, as in 226M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        # What would round up to 1000 of a unit is 1 of the next.
        if count >= 0.9995 * size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


class Cell(NamedTuple):
    """Text of one cell, and whether it is the best of its column."""

    text: str
    is_best: bool = False


MISSING = Cell("–")


def score_text(row: Row, metric: Metric) -> str | None:
    """Print a score, with its deviation over seeds where there is one: `9.48 ± 0.12`."""
    value = score(row, metric)
    if value is None:
        return None
    deviation = row.deviations.get(metric.name)
    spread = "" if deviation is None else f" ± {deviation:.{metric.digits}f}"
    return f"{value:.{metric.digits}f}{spread}"


def _score_cell(row: Row, best: Row | None, metric: Metric) -> Cell:
    text = score_text(row, metric)
    if text is None or best is None:
        return MISSING
    if score(row, metric) == score(best, metric):
        return Cell(text, is_best=True)
    percent = change(row, best, metric)
    if percent is None:
        return Cell(text)
    return Cell(f"{text} {'↓' if percent < 0 else '↑'}{abs(percent):.1f}%")


def _published_cell(row: Row, metric: Metric) -> Cell:
    value = row.published.get(metric.name)
    return MISSING if value is None else Cell(f"{value:.{metric.digits}f}")


def _status(row: Row) -> str:
    if row.error == PLANNED:
        return PLANNED
    if row.error is not None:
        return f"failed: {' '.join(row.error.split())}"
    return "ok" if row.stopped is None else f"stopped at step {row.stopped:,}"


@dataclass(frozen=True)
class _Columns:
    """Which columns a table has beyond those that it always has."""

    measured: list[Metric]
    """All but those that only the paper has numbers for."""
    published: list[Metric]
    seeds: bool
    latency: bool
    status: bool

    @classmethod
    def of(cls, rows: Sequence[Row], metrics: Sequence[Metric]) -> "_Columns":
        published = [m for m in metrics if any(m.name in row.published for row in rows)]
        scored = [m for m in metrics if any(score(row, m) is not None for row in rows)]
        return cls(
            measured=[m for m in metrics if m in scored or m not in published],
            published=published,
            seeds=any(row.seeds > 1 for row in rows),
            latency=any(row.latency_ms is not None for row in rows),
            status=any(row.error is not None or row.stopped is not None for row in rows),
        )


def _layout(rows: Sequence[Row], metrics: Sequence[Metric]) -> tuple[list[str], list[list[Cell]]]:
    """Return column titles and cells; what no row has gets no column."""
    columns = _Columns.of(rows, metrics)
    best = {metric.name: best_row(rows, metric) for metric in metrics}
    lines: list[list[Cell]] = [[] for _ in rows]
    titles: list[str] = []

    def add(title: str, cell: Callable[[Row], Cell]) -> None:
        titles.append(title)
        for line, row in zip(lines, rows, strict=True):
            line.append(cell(row))

    add("Exp.", lambda row: Cell(row.label))
    add("Arch.", lambda row: Cell(row.arch))
    add("KD", lambda row: Cell("✓" if row.distilled else "✗"))
    if columns.seeds:
        add("Seeds", lambda row: Cell(str(row.seeds)))
    for metric in metrics:
        if metric in columns.measured:
            add(metric.title, partial(_score_cell, best=best[metric.name], metric=metric))
        if metric in columns.published:
            add(f"{metric.title} (paper)", partial(_published_cell, metric=metric))
    add("Params", lambda r: MISSING if r.params is None else Cell(format_count(r.params)))
    add("GMACs", lambda r: MISSING if r.gmacs is None else Cell(f"{r.gmacs:.2f}"))
    if columns.latency:
        add("ms/step", lambda r: MISSING if r.latency_ms is None else Cell(f"{r.latency_ms:.1f}"))
    if columns.status:
        add("Status", lambda row: Cell(_status(row)))
    return titles, lines


def _is_number(title: str) -> bool:
    return title not in ("Exp.", "Arch.", "KD", "Status")


def to_rich(
    rows: Sequence[Row],
    metrics: Sequence[Metric],
    title: str | None = None,
    notes: Sequence[str] = (),
) -> Table:
    """Render for the terminal; the best score of each column is bold, notes stand below."""
    titles, lines = _layout(rows, metrics)
    caption = Text("\n".join(notes)) if notes else None
    table = Table(title=title, caption=caption, caption_justify="left")
    for column in titles:
        table.add_column(Text(column), justify="right" if _is_number(column) else "left")
    for line in lines:
        table.add_row(*(Text(cell.text, style="bold" if cell.is_best else "") for cell in line))
    return table


def to_markdown(rows: Sequence[Row], metrics: Sequence[Metric], notes: Sequence[str] = ()) -> str:
    """Render as a Markdown table; the best score of each column is bold, notes are a list below."""
    titles, lines = _layout(rows, metrics)
    table = [titles, ["---:" if _is_number(column) else "---" for column in titles]]
    for line in lines:
        texts = [cell.text.replace("|", "\\|") for cell in line]
        table.append([f"**{t}**" if c.is_best else t for t, c in zip(texts, line, strict=True)])
    text = "".join(f"| {' | '.join(line)} |\n" for line in table)
    return text + ("\n" if notes else "") + "".join(f"- {note}\n" for note in notes)


def to_csv(rows: Sequence[Row], metrics: Sequence[Metric]) -> str:
    """Render as CSV with plain numbers: scores, and their changes against the best in per cent.

    Deviations, published numbers, seeds, latency and early stops have columns where a row has them.
    """
    columns = _Columns.of(rows, metrics)
    lines = [_csv_line(row, rows, metrics, columns) for row in rows]
    buffer = io.StringIO()
    names = _csv_line(Row("", "", False), rows, metrics, columns)
    writer = csv.DictWriter(buffer, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def _csv_line(
    row: Row, rows: Sequence[Row], metrics: Sequence[Metric], columns: _Columns
) -> dict[str, Any]:
    line: dict[str, Any] = {"experiment": row.label, "arch": row.arch, "kd": row.distilled}
    for metric in metrics:
        name = metric.name
        line[name] = score(row, metric)
        line[f"{name}_change_percent"] = change(row, best_row(rows, metric), metric)
        if any(name in other.deviations for other in rows):
            line[f"{name}_deviation"] = row.deviations.get(name)
        if metric in columns.published:
            line[f"{name}_published"] = row.published.get(name)
    line |= {"params": row.params, "gmacs": row.gmacs, "error": row.error}
    if columns.seeds:
        line["seeds"] = row.seeds
    if columns.latency:
        line["latency_ms"] = row.latency_ms
    if any(other.stopped is not None for other in rows):
        line["stopped"] = row.stopped
    return line


LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "±": r"$\pm$",
        "✓": r"$\checkmark$",
        "✗": r"$\times$",
        "–": "--",
        "λ": r"$\lambda$",
    }
)
"""What LaTeX reads otherwise than it stands, or cannot print in its standard fonts."""


def to_latex(
    rows: Sequence[Row], metrics: Sequence[Metric], caption: str, notes: Sequence[str] = ()
) -> str:
    """Render as a LaTeX table (booktabs, amssymb); best scores are bold, notes stand below."""
    titles, lines = _layout(rows, metrics)
    alignment = "".join("r" if _is_number(title) else "l" for title in titles)
    body = [[_latex(cell) for cell in line] for line in lines]
    head = [title.translate(LATEX) for title in titles]
    text = [
        r"% \usepackage{booktabs, amssymb}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption.translate(LATEX)}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        rf"{' & '.join(head)} \\",
        r"\midrule",
        *(rf"{' & '.join(line)} \\" for line in body),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {note.translate(LATEX)}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(text) + "\n"


def _latex(cell: Cell) -> str:
    text = cell.text.translate(LATEX)
    return rf"\textbf{{{text}}}" if cell.is_best else text
