"""Pictures of an ablation: scores against size, and inpainted crops side by side."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import wrap
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import Bbox

from moebius.evaluation.tables import Metric, Row, format_count, score

STYLES = {True: ("distilled", "o", "#1b6ca8"), False: ("not distilled", "s", "#d9822b")}
"""Legend, marker and colour by `Row.distilled`."""

Cost = Literal["params", "gmacs", "latency_ms"]

COSTS: dict[Cost, tuple[str, Callable[[float], str]]] = {
    "params": ("parameters", format_count),
    "gmacs": ("GMACs a denoising step, batch 1", "{:g}".format),
    "latency_ms": ("ms a denoising step, batch 1", "{:g}".format),
}
"""Title and tick labels of a horizontal axis, by the field of `Row`."""

DPI = 150

CELL, GAP = 1.6, 0.06
"""Inches from one crop of a grid to the next, and the part of them that stays white."""

TITLE_WIDTH = 24
"""Characters in a line of a grid's title."""

Point = tuple[float, float]

LABEL_OFFSETS: list[Point] = [
    (distance * dx, distance * dy)
    for distance in (7, 14, 21, 28, 42, 56)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
]
"""Where a label may stand, in typographic points from its own, nearest first."""


def _new_figure(width: float, height: float) -> tuple[Figure, FigureCanvasAgg]:
    """Open a figure, inches, without pyplot: no global state and no display."""
    figure = Figure(figsize=(width, height), dpi=DPI)
    return figure, FigureCanvasAgg(figure)


def pareto_front(points: Sequence[Point], higher_is_better: bool) -> list[int]:
    """Return the indices of (size, score) points that no other beats in both, by size."""
    sign = -1 if higher_is_better else 1
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], sign * points[i][1])):
        if not front or sign * points[index][1] < sign * points[front[-1]][1]:
            front.append(index)
    return front


def _area(box: Bbox | None) -> float:
    return 0.0 if box is None else box.width * box.height


def _write(axes: Axes, text: str, point: Point, offset: Point, line: bool) -> Annotation:
    """Write a label at an offset in typographic points, with or without a line to its point."""
    dx, dy = offset
    arrow = {"arrowstyle": "-", "lw": 0.5, "color": "#999999", "shrinkA": 0, "shrinkB": 4}
    return axes.annotate(
        text,
        point,
        xytext=offset,
        textcoords="offset points",
        fontsize=8,
        color="#333333",
        ha="left" if dx > 0 else "right" if dx < 0 else "center",
        va="center" if dx and not dy else "bottom" if dy > 0 else "top",
        arrowprops=arrow if line else None,
    )


def _boxes(axes: Axes, points: Sequence[Point] | np.ndarray, radius: float) -> list[Bbox]:
    """Return boxes around points, in pixels of the page."""
    return [
        Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)
        for x, y in axes.transData.transform(points)
    ]


def _place_labels(
    axes: Axes,
    labels: Sequence[tuple[Point, str]],
    markers: Sequence[Point],
    lines: Sequence[tuple[Point, Point]],
) -> None:
    """Write each label as near as it goes without covering markers, lines or other labels."""
    frame = axes.get_window_extent()
    taken = _boxes(axes, markers, radius=8)
    for start, end in lines:
        taken += _boxes(axes, np.linspace(start, end, 100), radius=2)
    for point, text in labels:
        candidates: list[tuple[float, Point, Bbox]] = []
        for offset in LABEL_OFFSETS:
            probe = _write(axes, text, point, offset, line=False)
            box = probe.get_window_extent().padded(2)
            probe.remove()
            cost = _area(box) - _area(Bbox.intersection(box, frame))
            cost += sum(_area(Bbox.intersection(box, other)) for other in taken)
            candidates.append((cost, offset, box))
            if cost == 0:
                break
        _, offset, box = min(candidates, key=lambda candidate: candidate[0])
        _write(axes, text, point, offset, line=offset not in LABEL_OFFSETS[:4])
        taken.append(box)


def pareto(rows: Sequence[Row], metric: Metric, path: Path, against: Cost = "params") -> None:
    """Plot a score against what it costs, and mark the Pareto front of what was measured.

    Deviations over seeds are error bars. What the paper prints for a row is a hollow marker, with
    a dotted line to the measured one. Rows without cost or either score are left out.

    Args:
        rows: the trials; `Row.label` is written beside each point.
        metric: the score.
        path: PNG to write.
        against: field of `Row` that is the horizontal axis.

    Raises:
        ValueError: if no row has that cost and a score.
    """
    axis, format_tick = COSTS[against]
    costed = [row for row in rows if getattr(row, against)]
    shown = [row for row in costed if score(row, metric) is not None]
    quoted = [row for row in costed if metric.name in row.published]
    if not shown and not quoted:
        raise ValueError(f"no row has {metric.name} and {against} to plot")
    points = [(float(getattr(row, against)), float(score(row, metric) or 0)) for row in shown]
    printed = [(float(getattr(row, against)), row.published[metric.name]) for row in quoted]
    figure, canvas = _new_figure(7, 4.6)
    axes = figure.add_subplot()
    axes.margins(0.15)
    front = [points[i] for i in pareto_front(points, metric.higher_is_better)]
    if front:
        axes.plot(
            *zip(*front, strict=True), "--", c="#aaaaaa", lw=1, zorder=1, label="Pareto front"
        )
    bars = _draw_points(axes, metric, shown, points)
    links = [
        (p, (p[0], r.published[metric.name]))
        for p, r in zip(points, shown, strict=True)
        if r in quoted
    ]
    for start, end in links:
        axes.plot(*zip(start, end, strict=True), ":", c="#999999", lw=0.8, zorder=1)
    for distilled, (_, marker, colour) in STYLES.items():
        group = [p for p, row in zip(printed, quoted, strict=True) if row.distilled is distilled]
        if group:
            xs, ys = zip(*group, strict=True)
            axes.scatter(xs, ys, s=42, marker=marker, fc="none", ec=colour)
    if quoted:
        axes.scatter([], [], s=42, marker="o", fc="none", ec="#666666", label="in the paper")
    axes.set_xlabel(axis)
    axes.set_ylabel(
        f"{metric.label} ({'higher' if metric.higher_is_better else 'lower'} is better)"
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value)))
    axes.grid(True, color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False)
    figure.tight_layout()
    canvas.draw()  # lays the axes out, so that boxes on the page are known
    # A row is named once: beside what was measured, else beside what the paper prints.
    named = [(p, row.label) for p, row in zip(points, shown, strict=True)]
    named += [
        (p, f"{row.label} (paper)")
        for p, row in zip(printed, quoted, strict=True)
        if row not in shown
    ]
    _place_labels(axes, named, [*points, *printed], [*pairwise(front), *bars, *links])
    canvas.print_png(str(path))


def _draw_points(
    axes: Axes, metric: Metric, rows: Sequence[Row], points: Sequence[Point]
) -> list[tuple[Point, Point]]:
    """Draw what was measured, and return the ends of its error bars."""
    bars: list[tuple[Point, Point]] = []
    for distilled, (name, marker, colour) in STYLES.items():
        group = [(p, r) for p, r in zip(points, rows, strict=True) if r.distilled is distilled]
        if not group:
            continue
        xs, ys = zip(*(point for point, _ in group), strict=True)
        axes.scatter(xs, ys, s=42, marker=marker, c=colour, label=name)
        for (x, y), row in group:
            if (spread := row.deviations.get(metric.name)) is not None:
                axes.errorbar(x, y, spread, fmt="none", ecolor=colour, elinewidth=1, capsize=3)
                bars.append(((x, y - spread), (x, y + spread)))
    return bars


def grey_hole(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 with the (H, W) bool hole painted grey, as the model sees it."""
    return np.where(hole[..., None], np.uint8(128), image)


def picture_grid(columns: Sequence[tuple[str, Sequence[np.ndarray]]], path: Path) -> None:
    """Write crops side by side: a column per method with its title on top, a row per crop.

    Args:
        columns: (title, (H, W, 3) uint8 crops), the same crops in each.
        path: PNG to write.

    Raises:
        ValueError: if there is nothing to show or columns differ in length.
    """
    counts = {len(images) for _, images in columns}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"columns of a picture grid need equally many crops, not {sorted(counts)}")
    rows = counts.pop()
    titles = ["\n".join(wrap(name, TITLE_WIDTH)) for name, _ in columns]
    head = 0.1 + 0.16 * max(1 + title.count("\n") for title in titles)
    height = CELL * rows + head + GAP
    figure, canvas = _new_figure(CELL * len(columns) + GAP, height)
    for column, (title, (_, images)) in enumerate(zip(titles, columns, strict=True)):
        for row, image in enumerate(images):
            left, bottom = GAP + column * CELL, height - head - (row + 1) * CELL + GAP
            size = CELL - GAP
            width = figure.get_figwidth()
            axes = figure.add_axes((left / width, bottom / height, size / width, size / height))
            axes.imshow(image)
            axes.set_axis_off()
            if row == 0:
                axes.set_title(title, fontsize=8)
    canvas.print_png(str(path))
