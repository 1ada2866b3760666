"""Scores of a sweep by a benchmark's protocol: of its trials, or of one model run in many ways."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from moebius.config import Scoring, Sweep, load_yaml, parse, set_dotted
from moebius.config.sweep import Subject
from moebius.console import Begin, bars
from moebius.data.copies import here, place_of, publish
from moebius.distill.run_folder import slug, write_text
from moebius.evaluate import evaluate
from moebius.evaluation.benchmark import prepare_benchmark
from moebius.evaluation.evaluated import BENCHMARK
from moebius.evaluation.methods import DenoiserMethod
from moebius.evaluation.published import published
from moebius.evaluation.suite import MetricSuite
from moebius.evaluation.tables import Row
from moebius.models.architectures import TEACHER
from moebius.models.complexity import measure_complexity
from moebius.models.loading import load_denoiser
from moebius.scoring import resolve_protocol
from moebius.sweeps.standings import Scores, paper_row
from moebius.sweeps.trials import Trial, points

SCORED = "score"
"""Folder of the benchmark and of everything scored on it, beside the trials."""


def scorings(sweep: Sweep) -> dict[str, Scoring]:
    """How every point of a sweep without training is scored, by its label."""
    assert sweep.score is not None
    found = {}
    for point in points(sweep):
        data = {"score": sweep.score.model_dump(mode="json")}
        for key, value in point.overrides.items():
            data = set_dotted(data, key, value)
        found[point.label] = parse(Scoring, data["score"], f"point {point.label!r}: score")
    return found


def missing_images(scoring: Scoring | None) -> list[str]:
    """What a scoring leaves open that it cannot do without."""
    if scoring is None:
        return []
    images = resolve_protocol(scoring).images
    open_ = scoring.images is None and images.source is None
    return [f"score.images=FOLDER ({images.about})"] if open_ else []


def measured(scoring: Scoring | None) -> list[str]:
    """Metrics that a scoring adds to the table."""
    return [] if scoring is None else resolve_protocol(scoring).metrics


def prepare_scores(scoring: Scoring, out: Path) -> None:
    """Asks for weights and writes the benchmark's pictures, before hours are spent on training.

    Raises:
        ValueError: weights, pictures or masks are missing.
    """
    protocol = resolve_protocol(scoring)
    MetricSuite(protocol.metrics, weights=scoring.weights)
    with bars(Console(stderr=True)) as begin:

        def show(total: int) -> Any:
            advance = begin("pictures to score", total)
            return lambda: advance(1)

        prepare_benchmark(protocol, scoring, out / SCORED / BENCHMARK, show)


def score_trials(
    scoring: Scoring | None, trials: Sequence[Trial], out: Path, workers: int
) -> tuple[Scores, list[str]]:
    """Scores every finished trial, each once.

    Returns:
        Metrics by a trial's label, and notes on the numbers.
    """
    scores: dict[str, Mapping[str, float]] = {}
    notes: dict[str, None] = {}
    if scoring is None:
        return scores, []
    with bars(Console(stderr=True)) as begin:
        for trial in trials:
            if trial.result is None:
                continue
            result = _score_trial(trial, scoring, out, workers, begin)
            scores[trial.label] = result["metrics"]
            notes |= dict.fromkeys(f"{note}." for note in result["notes"])
    return scores, list(notes)


def score_model(sweep: Sweep, out: Path, workers: int) -> tuple[list[Row], list[str]]:
    """Scores one model in every way that the sweep names.

    Returns:
        A row a point, the paper's numbers beside, and notes on the numbers.
    """
    subject, results = sweep.subject, {}
    with bars(Console(stderr=True)) as begin:
        for label, scoring in scorings(sweep).items():
            source = str(Path(subject.source).absolute())
            source = source if Path(source).exists() else subject.source
            method = DenoiserMethod(slug(label), source, subject.arch, subject.codec)
            results[label] = evaluate(method, scoring, out / SCORED, workers, begin)
    notes = dict.fromkeys(f"{note}." for result in results.values() for note in result["notes"])
    return _model_rows(sweep, {k: r["metrics"] for k, r in results.items()}), list(notes)


def _model_rows(sweep: Sweep, scores: Scores) -> list[Row]:
    subject = sweep.subject
    paper = {} if sweep.published is None else published(sweep.published)
    denoiser = load_denoiser(here(subject.source), subject.arch)
    size = resolve_protocol(next(iter(scorings(sweep).values()))).sampling.side
    counted = measure_complexity(denoiser.architecture, size // 8)
    return [
        Row(
            label=label,
            arch=counted.arch,
            distilled=_distilled(subject, counted.arch),
            metrics=metrics,
            params=counted.params,
            gmacs=counted.gmacs,
            published=paper_row(paper, label),
        )
        for label, metrics in scores.items()
    ]


def _score_trial(
    trial: Trial, scoring: Scoring, out: Path, workers: int, begin: Begin
) -> dict[str, Any]:
    """A trial's scores, from `scores.json` where they are of these weights and this scoring."""
    path, steps = trial.folder / "scores.json", trial.recipe.training.steps
    where = {"weights", "batch", "device"}
    asked = {"step": steps, "scoring": scoring.model_dump(mode="json", exclude=where)}
    stored = json.loads(path.read_text()) if path.is_file() else {}
    if stored.get("asked") == asked:
        return stored
    name = f"{trial.folder.name}-{steps}"
    method = DenoiserMethod(name, place_of(trial.folder / "model"))
    result = evaluate(method, scoring, out / SCORED, workers, begin)
    kept = {"asked": asked, "metrics": result["metrics"], "notes": result["notes"]}
    write_text(path, json.dumps(kept, indent=1))
    publish(path)
    return kept


def _distilled(subject: Subject, arch: str) -> bool:
    """By the recipe of the run that made it; released students are, the teacher is not."""
    config = Path(subject.source).parent / "config.yaml"
    if Path(subject.source).is_dir() and config.is_file():
        return bool({"coarse", "fine"} & set(load_yaml(config)["distill"]["losses"]))
    return arch != TEACHER
