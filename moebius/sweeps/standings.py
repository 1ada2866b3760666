"""How a sweep stands: means over seeds, what every point costs, the winner, the table's rows."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Any

from moebius.config import Recipe, Sweep
from moebius.config.budget import parse_budget
from moebius.distill.occupation import ERROR
from moebius.evaluation import scores as protocol_scores
from moebius.evaluation.tables import PLANNED, Metric, Row
from moebius.models.architectures import resolve
from moebius.models.complexity import measure_complexity
from moebius.sweeps.trials import DURING_TRAINING, Trial

METRICS = {
    **protocol_scores.METRICS,
    "psnr_hole": Metric("psnr_hole", "PSNR in hole [dB]"),
    "ssim_hole": Metric("ssim_hole", "SSIM in hole", digits=3),
}
"""What a trial may be compared by, in the order of the table's columns."""

Scores = Mapping[str, Mapping[str, float]]
"""What a protocol measured, by a trial's label."""
Latencies = Mapping[str, float]
"""ms a denoising step, by `architecture_key`."""
NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Standing:
    """A point's trials and what they reached."""

    point: str
    trials: list[Trial]
    results: list[dict[str, Any]]
    """Of the trials that finished, in their order."""

    @property
    def finished(self) -> bool:
        """Whether every seed ran to its end."""
        return len(self.results) == len(self.trials)

    def values(self, metric: str) -> list[float]:
        """A metric of every finished trial; NaN where it was not measured."""
        return [result.get(metric, math.nan) for result in self.results]

    def mean(self, metric: str) -> float:
        """Its mean over the seeds."""
        return fmean(self.values(metric))


def standings(trials: Sequence[Trial], scores: Scores = NOTHING) -> list[Standing]:
    """Trials by their points, in the order of the points."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.point or trial.label, []).append(trial)
    found = []
    for point, group in groups.items():
        results = [
            {**result, **scores.get(trial.label, {})}
            for trial in group
            if (result := trial.result) is not None
        ]
        found.append(Standing(point, group, results))
    return found


def pick_winner(
    sweep: Sweep,
    trials: Sequence[Trial],
    scores: Scores = NOTHING,
    latencies: Latencies = NOTHING,
) -> Trial | None:
    """The best seed of the first point with the best finite mean within the budget.

    Points of which a seed failed or was stopped cannot win.

    Returns:
        None where no point has an objective.

    Raises:
        ValueError: no finished trial has the objective's metric.
    """
    metric = sweep.objective.metric
    finished = [s for s in standings(trials, scores) if s.results and s.finished]
    if finished and not any(metric in result for s in finished for result in s.results):
        raise ValueError(f"no trial reports the objective {metric!r}")
    within = [s for s in finished if within_budget(sweep, s.trials[0].recipe, latencies)]
    finite = [(s.mean(metric), s) for s in within if math.isfinite(s.mean(metric))]
    if not finite:
        return None
    pick = max if sweep.objective.mode == "max" else min
    best = pick(finite, key=lambda pair: pair[0])[1]
    seeds = zip(best.values(metric), best.trials, strict=True)
    return pick(seeds, key=lambda pair: pair[0])[1]


def check_objective(sweep: Sweep, measured: Iterable[str]) -> None:
    """Refuses an objective that no trial will report, or that points the wrong way.

    Args:
        sweep: the sweep.
        measured: what its protocol measures.
    """
    metric, mode = sweep.objective.metric, sweep.objective.mode
    known = [*(DURING_TRAINING if sweep.recipe is not None else ()), *measured]
    if metric not in known and not metric.startswith("loss/"):
        raise ValueError(
            f"objective: no trial reports {metric!r}; known: {', '.join(dict.fromkeys(known))}; "
            "score.metrics adds others"
        )
    better = "max" if metric in METRICS and METRICS[metric].higher_is_better else "min"
    if mode != better:
        raise ValueError(f"objective: the best {metric} is its {better}: set objective.mode to it")


def check_budget(sweep: Sweep, trials: Sequence[Trial], latencies: Latencies) -> None:
    """Refuses a budget that no trial meets; a search may still find one that does.

    Raises:
        ValueError: naming the trial that comes nearest by each cost.
    """
    if sweep.search is not None or any(
        within_budget(sweep, trial.recipe, latencies) for trial in trials
    ):
        return
    assert sweep.promote is not None and sweep.promote.when is not None
    names = dict.fromkeys(bound.cost for bound in parse_budget(sweep.promote.when))
    spans = []
    for name in names:
        values = [costs(trial.recipe, latencies)[name] for trial in trials]
        spans.append(f"{name} from {min(values):,.6g} to {max(values):,.6g}")
    raise ValueError(
        f"promote: no trial meets {sweep.promote.when!r}: they have {', '.join(spans)}"
    )


def within_budget(sweep: Sweep, recipe: Recipe, latencies: Latencies) -> bool:
    """Whether a recipe's architecture may be promoted."""
    if sweep.promote is None or sweep.promote.when is None:
        return True
    own = costs(recipe, latencies)
    return all(bound.holds(own) for bound in parse_budget(sweep.promote.when))


def needs_latency(sweep: Sweep) -> bool:
    """Whether steps have to be timed: for the table, or for a budget."""
    when = None if sweep.promote is None else sweep.promote.when
    bounds = [] if when is None else parse_budget(when)
    return sweep.latency or any(bound.cost == "latency_ms" for bound in bounds)


def costs(recipe: Recipe, latencies: Latencies = NOTHING) -> dict[str, float]:
    """`params` and complete `gmacs` of a recipe's architecture; `latency_ms` where it was timed."""
    key = architecture_key(recipe)
    _, params, gmacs = _count(key)
    timed = {"latency_ms": latencies[key]} if key in latencies else {}
    return {"params": params, "gmacs": gmacs, **timed}


def architecture_key(recipe: Recipe) -> str:
    """What an architecture's costs depend on, as text: itself and the side of the latent."""
    architecture = resolve(recipe.arch, **recipe.model)
    described = architecture.model_dump(mode="json", by_alias=True)
    return json.dumps([described, recipe.data.size // 8])


def table_rows(
    trials: Sequence[Trial],
    errors: Mapping[str, str],
    scores: Scores = NOTHING,
    latencies: Latencies = NOTHING,
    paper: Scores = NOTHING,
) -> list[Row]:
    """Rows of the sweep's table, one a point, in the order of its trials.

    Args:
        trials: finished or not.
        errors: why trials failed, by label.
        scores: protocol scores by a trial's label.
        latencies: of the architectures that were timed.
        paper: published numbers by a point's label.
    """
    return [
        _row(standing, errors, latencies, paper_row(paper, standing.point))
        for standing in standings(trials, scores)
    ]


def paper_row(paper: Scores, label: str) -> Mapping[str, float]:
    """The paper's numbers for a point, by its label or the value of the one key that varies."""
    return paper.get(label) or paper.get(label.rpartition("=")[2], {})


def shown_metrics(sweep: Sweep, rows: Iterable[Row]) -> list[Metric]:
    """Columns of the table: what training reports, what a protocol measures, what is published."""
    names = () if sweep.recipe is None else DURING_TRAINING
    found = {name for row in rows for name in (*row.metrics, *row.published)}
    return [metric for name, metric in METRICS.items() if name in names or name in found]


def _row(
    standing: Standing, errors: Mapping[str, str], latencies: Latencies, paper: Mapping[str, float]
) -> Row:
    recipe = standing.trials[0].recipe
    arch, params, gmacs = _count(architecture_key(recipe))
    stopped = next((s for trial in standing.trials if (s := trial.stopped) is not None), None)
    error = None if stopped is not None else _error(standing, errors)
    measured = [stopped] if stopped is not None else standing.results if error is None else []
    values = {
        name: [float(result[name]) for result in measured]
        for name in METRICS
        if measured and all(name in result for result in measured)
    }
    return Row(
        label=standing.point,
        arch=arch,
        distilled=recipe.needs_teacher,
        metrics={name: fmean(found) for name, found in values.items()},
        params=params,
        gmacs=gmacs,
        error=error,
        deviations={name: stdev(found) for name, found in values.items() if len(found) > 1},
        seeds=len(standing.trials),
        published=paper,
        latency_ms=latencies.get(architecture_key(recipe)),
        stopped=None if stopped is None else int(stopped["step"]),
    )


def _error(standing: Standing, errors: Mapping[str, str]) -> str | None:
    """Why a point has no score: its first failed trial, by name where it has several."""
    failed = [trial for trial in standing.trials if trial.result is None]
    if not failed:
        return None
    reasons = {t.label: errors.get(t.label) or _stored_error(t) for t in failed}
    if set(reasons.values()) == {PLANNED}:
        return PLANNED
    first = failed[0]
    if len(standing.trials) == 1:
        return reasons[first.label]
    return f"{len(failed)} of {len(standing.trials)} seeds; {first.label}: {reasons[first.label]}"


def _stored_error(trial: Trial) -> str:
    path = trial.folder / ERROR
    lines = path.read_text().splitlines() if path.is_file() else []
    return lines[-1].strip() if lines else "did not finish"


@cache
def _count(key: str) -> tuple[str, int, float]:
    """Name, parameters and GMACs of an architecture."""
    described, side = json.loads(key)
    counted = measure_complexity(described, side)
    return counted.arch, counted.params, counted.gmacs
