"""What a score depends on, beside the score; and the table that sets it beside the paper's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from moebius.config import Protocol, Scoring, load_json
from moebius.distill.run_folder import environment
from moebius.evaluation.benchmark import Benchmark, polarity
from moebius.evaluation.methods import Method
from moebius.evaluation.published import published
from moebius.evaluation.scores import METRICS


def describe_result(
    method: Method,
    scoring: Scoring,
    protocol: Protocol,
    benchmark: Benchmark,
    settings: Mapping[str, Any],
    metrics: Mapping[str, float],
    weights: Mapping[str, Any],
) -> dict[str, Any]:
    """What stands in `result.json`: the numbers, and all that they depend on."""
    drawn = scoring.masks is None
    return {
        "protocol": protocol.title,
        "reference": protocol.reference,
        "name": method.name,
        "metrics": dict(metrics),
        "images": len(benchmark.names),
        "of": protocol.images.count,
        "size": protocol.size,
        "geometry": protocol.geometry,
        "masks": {
            "set": protocol.masks.generator if drawn else scoring.masks,
            "seed": protocol.masks.seed if drawn else None,
            "area": [*protocol.masks.area] if drawn else None,
            "white": polarity(protocol, scoring),
            "mean_hole": round(benchmark.mean_hole, 4),
        },
        "compositing": "none" if method.as_is else "hard",
        **settings,
        "metric_weights": dict(weights),
        "notes": notes(method, scoring, protocol, benchmark, settings, weights),
        "unspecified": protocol.unspecified,
        "environment": environment(),
    }


def notes(
    method: Method,
    scoring: Scoring,
    protocol: Protocol,
    benchmark: Benchmark,
    settings: Mapping[str, Any],
    weights: Mapping[str, Any],
) -> list[str]:
    """What keeps a number from being the benchmark's: each of them a sentence's part."""
    found = [f"made-up weights: {what}" for what in settings["method"].get("made_up", [])]
    found += [f"made-up weights: {name}" for name in made_up_metrics(weights)]
    count = protocol.images.count
    if len(benchmark.names) != count:
        found.append(f"{len(benchmark.names):,} of the protocol's {count:,} pictures")
    if protocol.masks.published is not None and scoring.masks is None:
        found.append(f"masks drawn here, not {protocol.masks.published.about}")
    if settings["sampling"].get("start") == "release":
        found.append("starts from the truth's latent, as released: the hole leaks")
    if method.as_is:
        found.append("scored without pasting the known pixels back")
    return found


def made_up_metrics(weights: Mapping[str, Any]) -> list[str]:
    """Metrics whose weights are made-up, by a suite's provenance."""
    return [name for name, of in weights.items() if isinstance(of, Mapping) and of.get("made_up")]


def result_table(out: Path, result: dict[str, Any]) -> Table:
    """Every method scored on this benchmark so far, above the paper's rows."""
    rows = []
    for path in sorted(out.glob("*/result.json")):
        other = load_json(path)
        if other["manifest_sha256"] == result["manifest_sha256"]:
            rows.append((other["name"], other["metrics"]))
    names = [name for name in METRICS if any(name in metrics for _, metrics in rows)]
    masks = result["masks"]
    table = Table(
        title=f"{result['protocol']}, {result['images']:,} pictures",
        caption=f"masks {masks['set']}, mean hole {masks['mean_hole']:.3f}",
    )
    table.add_column("method")
    for name in names:
        table.add_column(METRICS[name].title, justify="right")
    for label, metrics in rows:
        style = "bold" if label == result["name"] else None
        table.add_row(label, *(_cell(name, metrics) for name in names), style=style)
    if result["reference"] is not None:
        table.add_section()
        for label, metrics in published(result["reference"]).items():
            shown = {_measured_as(key, names): value for key, value in metrics.items()}
            table.add_row(f"paper: {label}", *(_cell(n, shown) for n in names), style="dim")
    return table


def _cell(name: str, metrics: dict[str, float]) -> str:
    return f"{metrics[name]:.{METRICS[name].digits}f}" if name in metrics else "-"


def _measured_as(key: str, names: Sequence[str]) -> str:
    """The paper does not say which FID it is: it stands under the one that the protocol takes."""
    return "fid_b" if key == "fid" and "fid" not in names else key
