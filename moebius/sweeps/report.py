"""What a sweep leaves behind: its tables, plots and pictures, and how they came about."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from moebius.assembly import made_up, make_validation
from moebius.config import Recipe, Sweep
from moebius.console import print_table
from moebius.data.copies import publish
from moebius.distill.run_folder import write_text
from moebius.evaluation.plots import Cost, grey_hole, pareto, picture_grid
from moebius.evaluation.published import differences, published, rank_agreement
from moebius.evaluation.tables import Row, score, to_csv, to_latex, to_markdown, to_rich
from moebius.evaluation.validation import to_levels
from moebius.models.codec import load_codec
from moebius.scoring import resolve_protocol
from moebius.storage import LEFT_THERE
from moebius.sweeps.standings import METRICS, Latencies, Scores, shown_metrics, table_rows
from moebius.sweeps.trials import Trial

OTHERS = (*LEFT_THERE, "trials", "promoted")
"""What others publish below a sweep's folder."""
PLOTS: dict[Cost, str] = {
    "params": "results.png",
    "gmacs": "results_gmacs.png",
    "latency_ms": "results_latency.png",
}
"""The objective against each cost."""


@dataclass
class Report:
    """Tables of a sweep, from what its trials have stored so far."""

    sweep: Sweep
    out: Path
    latencies: Latencies = field(default_factory=dict)
    """ms a step by `architecture_key`, where steps were timed."""
    scores: Scores = field(default_factory=dict)
    """What a protocol measured, by a trial's label."""
    remarks: list[str] = field(default_factory=list)
    """Notes of others."""

    def take(self, scored: tuple[Scores, Sequence[str]]) -> None:
        """Takes a protocol's scores and the notes on them."""
        self.scores, notes = scored
        self.remarks = list(dict.fromkeys([*self.remarks, *notes]))

    def rows(self, trials: Sequence[Trial], errors: Mapping[str, str]) -> list[Row]:
        """The table's rows, with the paper's numbers beside."""
        paper = {} if self.sweep.published is None else published(self.sweep.published)
        return table_rows(trials, errors, self.scores, self.latencies, paper)

    def print(self, trials: Sequence[Trial], errors: Mapping[str, str]) -> None:
        """Prints the table."""
        rows = self.rows(trials, errors)
        print_rows(self.sweep, rows, self.notes(trials, rows))

    def write(self, trials: Sequence[Trial], errors: Mapping[str, str]) -> None:
        """Writes results.md, .csv, .tex and .json, the plots, and the grid of inpainted crops."""
        rows = self.rows(trials, errors)
        write_tables(self.sweep, rows, self.notes(trials, rows), self.out)
        results = [
            {"label": t.label, "point": t.point, "seed": t.recipe.seed}
            | (t.result or t.stopped or {})
            | dict(self.scores.get(t.label, {}))
            for t in trials
        ]
        write_text(self.out / "results.json", json.dumps(results, indent=1))
        finished = {t.point: t for t in reversed(trials) if t.result is not None}
        if finished:
            write_pictures([*finished.values()][::-1], self.out / "pictures.png")
        publish(self.out, without=OTHERS)

    def notes(self, trials: Sequence[Trial], rows: Sequence[Row]) -> list[str]:
        """What has to be known of the rows: made-up weights, seeds, the paper's other setting."""
        made = sorted({f"made-up {what}" for trial in trials for what in made_up(trial.recipe)})
        notes = [f"{what}: for demonstration only." for what in made] + self.remarks
        if len(self.sweep.seeds) > 1:
            notes.append(
                f"Mean ± standard deviation over seeds {', '.join(map(str, self.sweep.seeds))}, "
                "with one teacher."
            )
        if self.latencies:
            notes.append(f"ms/step: batch 1, made-up weights, on {device_name()}.")
        if self.sweep.published is None or not trials:
            return notes
        notes += differences(self.sweep.published, **setting(trials[0].recipe, self.sweep))
        metric = METRICS.get(self.sweep.objective.metric)
        agreement = None if metric is None else rank_agreement(rows, metric)
        return notes if agreement is None else notes + agreement.sentences()


def setting(recipe: Recipe | None, sweep: Sweep) -> dict[str, Any]:
    """How a sweep's numbers came about, as `differences` takes it."""
    found: dict[str, Any] = {}
    if recipe is not None:
        found = {
            "steps": recipe.training.steps,
            "global_batch": recipe.training.global_batch,
            "size": recipe.data.size,
            "data": recipe.data.source,
            "codec": recipe.codec,
            "protocol": f"{recipe.validation.pairs} pairs of {recipe.validation.source}",
        }
        if recipe.needs_teacher and recipe.teacher is not None:
            found["teacher"] = recipe.teacher.path or "trained here"
    if sweep.score is not None:
        name = sweep.score.protocol
        protocol = resolve_protocol(sweep.score)
        found["protocol"] = name if isinstance(name, str) else protocol.title
        found["images"] = min(protocol.images.count, sweep.score.limit or protocol.images.count)
    return found


def print_rows(sweep: Sweep, rows: Sequence[Row], notes: Sequence[str]) -> None:
    """Prints a sweep's table."""
    print_table(to_rich(rows, shown_metrics(sweep, rows), sweep.name, notes))


def write_tables(sweep: Sweep, rows: Sequence[Row], notes: Sequence[str], out: Path) -> None:
    """Writes the rows as results.md, .csv and .tex, and plots the objective against costs."""
    out.mkdir(parents=True, exist_ok=True)
    metrics = shown_metrics(sweep, rows)
    write_text(out / "results.md", to_markdown(rows, metrics, notes))
    write_text(out / "results.csv", to_csv(rows, metrics))
    write_text(out / "results.tex", to_latex(rows, metrics, f"Sweep {sweep.name}.", notes))
    metric = METRICS.get(sweep.objective.metric)
    if metric is None:
        return
    for cost, name in PLOTS.items():
        if any(getattr(row, cost) is not None and score(row, metric) is not None for row in rows):
            pareto(rows, metric, out / name, cost)


def write_pictures(trials: Sequence[Trial], path: Path) -> None:
    """Writes what finished trials, one a point, made of the same held-out crops."""
    recipe = trials[0].recipe
    validation = make_validation(recipe, load_codec(recipe.codec))
    pictures = [(trial.point, np.load(trial.folder / "pictures.npy")) for trial in trials]
    count = min(len(images) for _, images in pictures)
    if not count:
        return
    truth, holes = to_levels(validation.images[:count]), validation.masks[:count, 0].numpy() > 0
    inputs = [grey_hole(image, hole) for image, hole in zip(truth, holes, strict=True)]
    columns = [("input", inputs), *((label, list(images[:count])) for label, images in pictures)]
    picture_grid([*columns, ("truth", list(truth))], path)


def write_best(sweep: Sweep, winner: Trial, out: Path) -> None:
    """Writes `best.yaml`: the winner's recipe, for `python -m moebius.train --recipe`."""
    recipe = winner.recipe.model_dump(mode="json", by_alias=True)
    head = f"# Best of sweep {sweep.name} by {sweep.objective.metric}: trial {winner.label}.\n"
    write_text(out / "best.yaml", head + yaml.safe_dump(recipe, sort_keys=False))
    publish(out / "best.yaml")


def device_name() -> str:
    """What this process computes on."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "this machine's CPU"
