"""What a sweep costs before anything is spent: counted, summed up and printed."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from moebius.config import Recipe
from moebius.evaluation.tables import format_count
from moebius.planning.machines import MEASURED, Machine
from moebius.planning.planner import Plan, Planner, Scoring

DASH = "–"
LAUNCHES = 0.05
"""Seconds, about, in which a step's kernels can be launched: thousands, at some 10 us each."""
TITLES = ("Run", "Arch.", "Steps", "Samples", "FLOPs", "{unit}", "Lasts", "Memory a worker", "Disk")


def plan(
    runs: Sequence[tuple[str, Recipe]],
    machine: Machine,
    workers: int = 1,
    *,
    cluster_workers: int | None = None,
    concurrent: int = 1,
    promoted: Recipe | None = None,
    promoted_from: int = 0,
    scoring: Scoring | None = None,
    taught_by: Sequence[Recipe] = (),
    limit: float = 30.0,
) -> Plan:
    """Counts a sweep without allocating a weight, unless the machine is to be measured.

    Args:
        runs: label and recipe of every trial.
        machine: see `moebius.planning.machines.load_machine`.
        workers: training workers of a trial, one device each.
        cluster_workers: of the runs that have the cluster to themselves: teachers, promotion.
        concurrent: trials at once.
        promoted: recipe of the promotion; of any trial, since the winner is not known yet.
        promoted_from: steps that a warm start spares it.
        scoring: what is scored after training; the recipes' own validation is counted anyway.
        taught_by: recipes that train a teacher which the runs name by its path.
        limit: where the machine is measured, seconds for each kind of run.

    Raises:
        ValueError: a recipe is wrong, or its batch does not divide among the workers.
    """
    planner = Planner(machine, scoring, limit)
    everyone = cluster_workers or workers
    before = []
    for recipe in planner.caches([recipe for _, recipe in runs]):
        before.append(planner.cache(recipe))
    for recipe in planner.teachers([*taught_by, *(recipe for _, recipe in runs)]):
        before.append(planner.run("teacher", recipe, everyone, scored=False))
    trials = [planner.run(label, recipe, workers) for label, recipe in runs]
    promotion = None
    if promoted is not None:
        promotion = planner.run("promoted", promoted, everyone, first_step=promoted_from)
    result = Plan(machine, before, trials, promotion, 1 if machine.shared else concurrent)
    result.notes.extend([*_notes(result, workers, everyone), *planner.networks.notes])
    if any(recipe.data.latents for _, recipe in runs):
        result.notes.append(
            "Latents of data.latents are counted as there: `python -m moebius.encode --dry-run` "
            "says what making them takes."
        )
    return result


def to_rich(plan: Plan, title: str | None = None) -> Table:
    """Render for the terminal, assumptions below."""
    table = Table(title=title, caption=Text("\n".join(plan.notes)), caption_justify="left")
    for title_ in _titles(plan):
        table.add_column(title_, justify="left" if title_ in TITLES[:2] else "right")
    lines = _lines(plan)
    for line in lines[:-1]:
        table.add_row(*line)
    table.add_section()
    table.add_row(*lines[-1], style="bold")
    return table


def to_markdown(plan: Plan) -> str:
    """Render as a Markdown table, assumptions as a list below."""
    titles = _titles(plan)
    rules = ["---" if title in TITLES[:2] else "---:" for title in titles]
    lines = [[cell.replace("|", "\\|") for cell in line] for line in _lines(plan)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in (titles, rules, *lines))
    return table + "\n" + "".join(f"- {note}\n" for note in plan.notes)


def _titles(plan: Plan) -> list[str]:
    return [title.format(unit=plan.machine.unit) for title in TITLES]


def _lines(plan: Plan) -> list[list[str]]:
    """A line for each run, and their total."""
    lines = [
        [
            run.label,
            run.arch or DASH,
            f"{run.steps:,}" if run.steps else DASH,
            _count(run.samples),
            flops_text(run.cost.total),
            _number(run.device_hours),
            duration_text(run.seconds),
            bytes_text(run.memory) if run.memory else DASH,
            bytes_text(run.disk),
        ]
        for run in plan.runs
    ]
    total = [
        f"total of {len(plan.runs)}",
        "",
        f"{sum(run.steps for run in plan.runs):,}",
        _count(sum(run.samples for run in plan.runs)),
        flops_text(plan.cost.total),
        _number(plan.device_hours),
        duration_text(plan.seconds),
        bytes_text(max(run.memory for run in plan.runs)),
        bytes_text(plan.disk),
    ]
    return [*lines, total]


def _notes(plan: Plan, workers: int, cluster_workers: int) -> list[str]:
    """What the figures rest on, and what will not fit."""
    cost = plan.cost
    parts = sorted(cost.flops, key=lambda part: -cost.flops[part])
    shares = [f"{part} {cost.flops[part] / cost.total:.1%}" for part in parts if cost.flops[part]]
    together = (
        "one run after the other; workers share the machine"
        if plan.machine.shared
        else f"{plan.machine.name} a trial: {workers}, trials at once: {plan.concurrent}; for "
        f"teacher and promotion: {cluster_workers}"
    )
    notes = [
        plan.machine.assumption,
        "FLOPs: two a multiply-accumulate; a backward pass is two forward passes. "
        f"Of them: {', '.join(shares)}.",
        f"Total time: {together}.",
        "Disk: checkpoints that are kept and one more while it is written, model with codec, "
        "cached latents; pictures are not counted.",
    ]
    if not plan.machine.measure and any(r.seconds < LAUNCHES * r.steps for r in plan.runs):
        notes.append(
            f"Steps of under {1000 * LAUNCHES:.0f} ms will take longer: launching their kernels "
            f"is not counted. Measure them: `--plan {MEASURED}` on such a machine."
        )
    large = [run.label for run in plan.runs if run.memory > plan.machine.memory]
    if large:
        notes.append(
            f"Does not fit into the {bytes_text(plan.machine.memory)} of {plan.machine.name}: "
            f"{', '.join(large)}; lower training.micro_batch, set "
            "training.activation_checkpointing=true, or encode first (data.cache, data.latents)."
        )
    return notes


def flops_text(flops: float) -> str:
    """Print FLOPs with three digits, as in 434 EFLOP."""
    for unit, size in (("Z", 1e21), ("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if flops >= 0.9995 * size:
            return f"{flops / size:.3g} {unit}FLOP"
    return f"{flops / 1e6:.3g} MFLOP"


def bytes_text(count: float) -> str:
    """Print bytes with three digits, as in 9.39 GB (10^9 bytes)."""
    for unit, size in (("TB", 1e12), ("GB", 1e9)):
        if count >= 0.9995 * size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e6:.3g} MB"


def duration_text(seconds: float) -> str:
    """Print a duration with three digits, as in 7.02 days."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{_number(seconds / size)} {unit}"
    return f"{_number(seconds)} s"


def _count(count: int) -> str:
    return f"{count:,}" if count < 10**6 else format_count(count)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"
