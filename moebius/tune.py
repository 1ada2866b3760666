"""Door: sweep architectures and losses, promote the best (`python -m moebius.tune sweep.yaml`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro
from rich.console import Console

from moebius.assembly import made_up, train_run
from moebius.cluster import check_shared
from moebius.config import Recipe, Sweep
from moebius.console import guard, print_table
from moebius.data.copies import publish, shown
from moebius.distill.occupation import occupied
from moebius.evaluation.published import differences
from moebius.evaluation.tables import PLANNED
from moebius.planning import plan, planner
from moebius.planning.machines import load_machine
from moebius.scoring import resolve_protocol
from moebius.sources import check_sources
from moebius.storage import kept_folder, run_folder
from moebius.sweeps.report import (
    OTHERS,
    Report,
    print_rows,
    setting,
    write_best,
    write_tables,
)
from moebius.sweeps.running import (
    Run,
    check_in_process,
    measure_latencies,
    preflight,
    promote,
    run_in_process,
    run_trials,
    scoring_workers,
    train_teachers,
)
from moebius.sweeps.scores import (
    measured,
    missing_images,
    prepare_scores,
    score_model,
    score_trials,
)
from moebius.sweeps.searching import Study, check_space
from moebius.sweeps.standings import check_budget, check_objective, needs_latency, pick_winner
from moebius.sweeps.trials import (
    Trial,
    base_recipe,
    plan_trials,
    points,
    promoted_recipe,
    read_sweep,
)
from moebius.train import Workers, launch, missing_inputs, quiet, start_checked, start_ray

NAMED_BY = {
    "--data": "recipe.data.source=PHOTOGRAPHS",
    "--teacher": "recipe.teacher.path=TEACHER",
    "--codec": "recipe.codec=CODEC",
    "--perceptual": "recipe.distill.perceptual_weights=FILE",
}
"""How a sweep is told what `python -m moebius.train` takes as options."""


@dataclass
class Options:
    """Run a sweep; the same command again goes on where it stood."""

    sweep: tyro.conf.Positional[Path]
    """Sweep file, such as ablations/quickstart.yaml."""
    overrides: tyro.conf.Positional[tuple[str, ...]] = ()
    """Dotted keys of the file, such as recipe.data.source=photos.jsonl or max_concurrent=2."""
    out: str | Path | None = None
    """Folder or s3:// URL of the sweep; by default <its name> in $MOEBIUS_STORAGE, or in runs."""
    in_process: bool = False
    """Run trial after trial in this process, in plain PyTorch, where there is no Ray."""
    dry_run: bool = False
    """Print the trials and what they need, and start nothing."""
    plan: str | None = None
    """Print what it costs on L40S, H100, H200, another YAML's device, or `this` (measured)."""


def main(options: Options) -> None:
    """Plans, checks, runs what is unfinished, promotes the best, reports."""
    console = Console(stderr=True)
    sweep = read_sweep(options.sweep, options.overrides)
    out = sweep_folder(sweep, options)
    check_objective(sweep, measured(sweep.score))
    missing = missing_images(sweep.score)
    if sweep.model is not None:
        run_model(sweep, out, options, missing)
        return
    if options.in_process:
        check_in_process(sweep)
    trials = plan_trials(sweep, out)
    if sweep.search is not None:
        check_space(sweep, out)
    recipes = [trial.recipe for trial in trials] or [base_recipe(sweep)]
    missing = [*missing_keys(recipes), *missing]
    report = Report(sweep, out)
    if options.dry_run or options.plan is not None:
        if options.plan is not None:
            print_plan(sweep, trials, recipes, out, options.plan)
        else:
            report.print(trials, {trial.label: PLANNED for trial in trials})
        if missing:
            console.print(f"still to be named: {'; '.join(missing)}", markup=False)
        return
    if missing:
        raise ValueError(f"sweep {options.sweep} still needs {'; '.join(missing)}")
    if options.in_process:
        for recipe in recipes:
            check_sources(recipe)
    for what in sorted({w for recipe in recipes for w in made_up(recipe)}):
        console.print(f"[yellow]made-up {what}: figures are for demonstration only[/]")
    if needs_latency(sweep):
        report.latencies = measure_latencies(recipes)
    check_budget(sweep, trials, report.latencies)
    cluster = None
    if not options.in_process:
        start_checked(recipes)
        cluster = preflight(sweep, trials, recipes, out)
        check_shared(out)
    with occupied(out):
        run_sweep(sweep, trials, recipes, report, cluster)


def sweep_folder(sweep: Sweep, options: Options) -> Path:
    """Where the sweep lives; in an object store only where others train than this process.

    Raises:
        ValueError: a URL that cannot be taken.
    """
    if options.in_process:
        return kept_folder(options.out, sweep.name)
    return run_folder(options.out, sweep.name)


def run_sweep(
    sweep: Sweep,
    trials: list[Trial],
    recipes: Sequence[Recipe],
    report: Report,
    cluster: tuple[int, Workers] | None,
) -> None:
    """Runs what is unfinished, promotes the best, reports.

    Args:
        sweep: what is run.
        trials: those that it lists; a search finds its own.
        recipes: theirs, or the base of a search.
        report: of the sweep's folder.
        cluster: trials at once and the workers of other runs; `None` runs all in this process.

    Raises:
        RuntimeError: no trial can be promoted.
    """
    out, workers = report.out, 0
    run: Run = train_run
    study = None if sweep.search is None else Study(sweep, out)
    if sweep.score is not None:
        prepare_scores(sweep.score, out)
    if cluster is None:
        quiet()
        train_teachers(recipes, out, run)
        errors = run_in_process(trials, out)
    else:
        run, workers = partial(launch, workers=cluster[1]), scoring_workers()
        train_teachers(recipes, out, run)
        errors = run_trials(sweep, trials, out, cluster[0], study)
    if study is not None:
        trials = list(study.trials().values())
        report.remarks += [f"Refused: {reason}." for reason in study.refused()]
        if needs_latency(sweep):
            report.latencies = measure_latencies([trial.recipe for trial in trials])
    report.take(score_trials(sweep.score, trials, out, workers))
    report.write(trials, errors)
    winner = pick_winner(sweep, trials, report.scores, report.latencies)
    if winner is None:
        reason = next(iter(errors.values()), "see the table")
        raise RuntimeError(f"no trial can be promoted; {reason}")
    write_best(sweep, winner, out)
    promoted = promote(sweep, winner, out, run)
    if promoted is not None:
        trials = [*trials, promoted]
        report.take(score_trials(sweep.score, trials, out, workers))
        report.write(trials, errors)
    report.print(trials, errors)
    where = f"best: {winner.label}; model, table and pictures in {shown(out)}"
    Console(stderr=True).print(where, soft_wrap=True)


def missing_keys(recipes: Sequence[Recipe]) -> list[str]:
    """Keys that a sweep leaves open and that its runs cannot do without."""
    names = {name.split()[0] for recipe in recipes for name in missing_inputs(recipe)}
    return [key for option, key in NAMED_BY.items() if option in names]


def print_plan(
    sweep: Sweep, trials: Sequence[Trial], recipes: Sequence[Recipe], out: Path, machine: str
) -> None:
    """Prints what a sweep costs; a search as if every trial ran the base to its end."""
    runs = [(trial.label, trial.recipe) for trial in trials]
    if sweep.search is not None:
        runs = [(f"trial {n}", recipes[0]) for n in range(sweep.search.trials)]
    promoted = None
    if sweep.promote is not None:
        first = trials[0] if trials else Trial("search", recipes[0], out)
        promoted = promoted_recipe(sweep, first, out)
    warm = sweep.promote is not None and sweep.promote.warm_start
    scoring = None
    if sweep.score is not None:
        protocol = resolve_protocol(sweep.score)
        sampling = protocol.sampling
        images = min(protocol.images.count, sweep.score.limit or protocol.images.count)
        scoring = planner.Scoring(images, sampling.side, sampling.steps, sampling.guidance)
    concurrent, everyone = sweep.max_concurrent or 1, sweep.cluster_workers
    planned = plan.plan(
        runs,
        load_machine(machine),
        sweep.workers,
        cluster_workers=concurrent * sweep.workers if everyone == "all" else everyone,
        concurrent=concurrent,
        promoted=promoted,
        promoted_from=runs[0][1].training.steps if warm else 0,
        scoring=scoring,
        taught_by=recipes if sweep.search is not None else (),
    )
    print_table(plan.to_rich(planned, f"{sweep.name}: planned"))


def run_model(sweep: Sweep, out: Path, options: Options, missing: Sequence[str]) -> None:
    """A sweep that trains nothing: one model, scored in many ways."""
    named = [*([] if sweep.subject.source else ["model=FOLDER"]), *missing]
    if options.plan is not None:
        raise ValueError("--plan counts training; this sweep only scores a model")
    if named and not options.dry_run:
        raise ValueError(f"sweep {options.sweep} still needs {'; '.join(named)}")
    console = Console(stderr=True)
    if options.dry_run:
        console.print(f"points: {', '.join(point.label for point in points(sweep))}")
        if named:
            console.print(f"still to be named: {'; '.join(named)}", markup=False)
        return
    assert sweep.score is not None
    prepare_scores(sweep.score, out)
    start_ray()
    rows, notes = score_model(sweep, out, scoring_workers())
    if sweep.published is not None:
        notes += differences(sweep.published, **setting(None, sweep))
    write_tables(sweep, rows, notes, out)
    publish(out, without=OTHERS)
    print_rows(sweep, rows, notes)
    console.print(f"table in {shown(out)}", soft_wrap=True)


if __name__ == "__main__":
    guard(lambda: main(tyro.cli(Options)))
