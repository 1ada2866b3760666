"""The paper's numbers, how a measured setting differs from theirs, and whether the orders agree."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import combinations, pairwise
from typing import Any

import yaml

from moebius.evaluation.tables import Metric, Row, score

PAPER_METRICS = {
    "fid": Metric("fid", "FID", higher_is_better=False),
    "lpips": Metric("lpips", "LPIPS", higher_is_better=False, digits=3),
}
"""The scores of Tab. 2 to 7."""

PAPER = {
    "steps": 138_000,
    "global_batch": 768,
    "size": 512,
    "teacher": "PixelHacker",
    "codec": "the SDXL VAE",
    "data": "its own training set",
    "weights": "its own",
}
"""The paper's run (Sec. 4.1); Tab. 2 and 5 say other steps."""

SAME = {
    "teacher": ("pixelhacker", "hustvl/pixelhacker/pretrained"),
    "codec": ("hustvl/pixelhacker/vae", "stabilityai/sdxl-vae", "sdxl vae"),
}
"""Other names of what the paper used, in lower case."""

PROTOCOLS = {"places2_test": ("Places2 (Test)", 10_000)}
"""What the paper calls a protocol, and its number of images."""


@dataclass(frozen=True)
class Setting:
    """How the paper's numbers of one table came about."""

    reference: str
    source: str
    """The paper."""
    protocol: str | None
    """Benchmark that was scored; None where no benchmark was."""
    steps: int | None
    """Training steps; None for fine-tuned checkpoints and for what is not trained."""


def references() -> list[str]:
    """Every name that `published` takes, such as `table2` and `table3/places2_test`."""
    names = []
    for table, entry in _read().items():
        if isinstance(entry, Mapping):
            names += (
                [f"{table}/{p}" for p in entry["protocols"]] if "protocols" in entry else [table]
            )
    return names


def published(reference: str) -> dict[str, dict[str, float]]:
    """The paper's numbers: row name to column to value, as `{"9": {"fid": 26.43, ...}, ...}`.

    Args:
        reference: one of `references()`.

    Raises:
        ValueError: the paper has no such table.
    """
    entry, protocol = _entry(reference)
    rows = entry["rows"] if protocol is None else entry["protocols"][protocol]
    columns = entry["columns"]
    return {str(name): dict(zip(columns, values, strict=True)) for name, values in rows.items()}


def settings(reference: str) -> Setting:
    """Protocol, steps and source of the paper's numbers; raises as `published` does."""
    entry, protocol = _entry(reference)
    return Setting(
        reference, _read()["source"], protocol or entry.get("protocol"), entry.get("steps")
    )


def differences(
    reference: str,
    *,
    steps: int | None = None,
    global_batch: int | None = None,
    size: int | None = None,
    data: str | None = None,
    protocol: str | None = None,
    images: int | None = None,
    teacher: str | None = None,
    codec: str | None = None,
    weights: str | None = None,
) -> list[str]:
    """Plain sentences on how measured numbers came about otherwise than the paper's.

    What is `None` is not spoken of; what equals the paper's is left out.

    Args:
        reference: one of `references()`.
        steps: training steps of the measured rows.
        global_batch: samples a step.
        size: side of the pictures in pixels.
        data: training data, in words or by path.
        protocol: what was scored, by its key (`places2_test`) or in words.
        images: pictures scored.
        teacher: the measured rows' teacher.
        codec: their codec.
        weights: where scored weights or those of a metric come from.
    """
    paper = settings(reference)
    name, count = PROTOCOLS.get(paper.protocol or "", (paper.protocol, None))
    theirs: dict[str, Any] = {**PAPER, "protocol": name, "images": count}
    theirs["steps"] = paper.steps or f"{PAPER['steps']:,} and fine-tuned"
    given: list[tuple[str, str, Any]] = [
        ("steps", "training steps", steps),
        ("global_batch", "samples a step", global_batch),
        ("size", "pixels a side", size),
        ("data", "training data", data),
        ("teacher", "teacher", teacher),
        ("codec", "codec", codec),
        ("weights", "weights", weights),
        ("protocol", "scored on", None if protocol == paper.protocol else protocol),
        ("images", "images scored", images),
    ]
    found = [
        f"{title.capitalize()}: {_text(ours)}; the paper: {_text(theirs[key])}."
        for key, title, ours in given
        if ours is not None
        and theirs[key] is not None
        and ours != theirs[key]
        and str(ours).lower() not in SAME.get(key, ())
    ]
    return [f"Paper's numbers: {paper.source}, {_title(reference)}.", *found]


@dataclass(frozen=True)
class Pair:
    """Two rows, of which the paper has the first ahead."""

    ahead: str
    behind: str
    published: float
    """How far ahead in the paper, positive, in the paper's metric."""
    measured: float
    """How far ahead as measured: negative where the order is the other way round."""
    error: float | None
    """Standard error of `measured`; None without deviations over seeds."""

    @property
    def verdict(self) -> str:
        """`holds` or `reversed` beyond two standard errors, else `undecided`."""
        if self.error is not None and abs(self.measured) <= 2 * self.error:
            return "undecided"
        return "holds" if self.measured > 0 else "reversed"


@dataclass(frozen=True)
class Agreement:
    """How well a measured order agrees with the paper's."""

    metric: Metric
    paper: Metric
    rows: int
    """Rows with both numbers."""
    tau: float
    """Kendall's tau-b between the two orders: 1 the same, 0 unrelated, -1 reversed."""
    p_value: float
    """Of tau = 0."""
    pairs: list[Pair]

    def sentences(self) -> list[str]:
        """What to write under a table."""
        text = [
            f"Order by {self.metric.label} against the paper's by {self.paper.label}: Kendall's "
            f"tau {self.tau:+.2f} over {self.rows} rows (p = {self.p_value:.2g})."
        ]
        if not self.pairs:
            return text
        counts = {v: sum(p.verdict == v for p in self.pairs) for v in VERDICTS}
        held = ", ".join(f"{verdict} {count}" for verdict, count in counts.items())
        if all(pair.error is None for pair in self.pairs):
            held += " (one seed: without error bars)"
        text.append(f"Pairs that the paper separates: {held}.")
        for pair in self.pairs:
            error = "" if pair.error is None else f" ± {pair.error:.{self.metric.digits}f}"
            text.append(
                f"{pair.ahead} ahead of {pair.behind} by {pair.published:.{self.paper.digits}f} "
                f"{self.paper.label} in the paper, here by "
                f"{pair.measured:+.{self.metric.digits}f}{error} {self.metric.label}: "
                f"{pair.verdict}."
            )
        return text


VERDICTS = ("holds", "reversed", "undecided")


def rank_agreement(
    rows: Sequence[Row], metric: Metric, paper: Metric = PAPER_METRICS["fid"]
) -> Agreement | None:
    """Whether the measured order of a table's rows is the paper's.

    The pairs are those that the paper argues from: the same architecture with and without
    distillation; where a table has none, rows that follow each other in the paper's order.

    Args:
        rows: with `published`; those that lack either number are left out.
        metric: what was measured.
        paper: what the paper printed, the key of `Row.published`.

    Returns:
        None where fewer than two rows have both numbers.
    """
    from scipy.stats import kendalltau

    both = [r for r in rows if score(r, metric) is not None and paper.name in r.published]
    if len(both) < 2:
        return None
    ours = [_merit(float(score(row, metric) or 0), metric) for row in both]
    theirs = [_merit(row.published[paper.name], paper) for row in both]
    tau, p_value = kendalltau(ours, theirs)
    pairs = [_pair(a, b, metric, paper) for a, b in _separated(both, paper)]
    return Agreement(metric, paper, len(both), float(tau), float(p_value), pairs)


def _separated(rows: Sequence[Row], paper: Metric) -> list[tuple[Row, Row]]:
    """Pairs of rows, the paper's better one first."""
    ordered = sorted(rows, key=lambda row: _merit(row.published[paper.name], paper), reverse=True)
    distilled = [
        (a, b)
        for a, b in combinations(ordered, 2)
        if a.arch == b.arch and a.distilled != b.distilled
    ]
    return distilled or list(pairwise(ordered))


def _pair(ahead: Row, behind: Row, metric: Metric, paper: Metric) -> Pair:
    ours = [_merit(float(score(row, metric) or 0), metric) for row in (ahead, behind)]
    theirs = [_merit(row.published[paper.name], paper) for row in (ahead, behind)]
    return Pair(
        ahead.label,
        behind.label,
        theirs[0] - theirs[1],
        ours[0] - ours[1],
        _difference_error(ahead, behind, metric),
    )


def _difference_error(a: Row, b: Row, metric: Metric) -> float | None:
    """Standard error of the difference of two means over independent seeds."""
    if any(row.seeds < 2 or metric.name not in row.deviations for row in (a, b)):
        return None
    return math.hypot(*(row.deviations[metric.name] / math.sqrt(row.seeds) for row in (a, b)))


def _merit(value: float, metric: Metric) -> float:
    return value if metric.higher_is_better else -value


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _title(reference: str) -> str:
    table, _, protocol = reference.partition("/")
    kind, number = ("Tab. ", table[5:]) if table.startswith("table") else ("Fig. ", table[6:])
    return f"{kind}{number}" + (f" ({PROTOCOLS.get(protocol, (protocol,))[0]})" if protocol else "")


def _entry(reference: str) -> tuple[Mapping[str, Any], str | None]:
    if reference not in references():
        raise ValueError(
            f"the paper has no numbers under {reference!r}; known: {', '.join(references())}"
        )
    table, _, protocol = reference.partition("/")
    return _read()[table], protocol or None


@cache
def _read() -> dict[str, Any]:
    return yaml.safe_load(files("moebius").joinpath("assets/published.yaml").read_text())
