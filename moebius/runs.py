"""Door: what ran, how it stands, and what can go (`python -m moebius.runs list`)."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.markup import escape

from moebius.console import guard
from moebius.data.copies import is_copy, outline, shown
from moebius.data.urls import is_url
from moebius.distill.checkpoints import checkpoints_of, find_damage
from moebius.operations.cleaning import plan_cleaning, remove
from moebius.operations.comparing import differences
from moebius.operations.disk import disk_used, readable
from moebius.operations.finding import find
from moebius.operations.records import (
    Record,
    read_json,
    read_record,
    read_records,
    read_settings,
)
from moebius.profile import render
from moebius.storage import runs_folder

Format = Literal["table", "json", "csv"]
Row = dict[str, Any]

LONG = 60
"""Characters of a note or a setting, in tables alone."""


@dataclass
class List:
    """Every run, sweep and evaluation below a folder or URL."""

    root: tyro.conf.Positional[str | Path] = field(default_factory=runs_folder)
    metric: str = "psnr_hole"
    """What `best` is the best of; a run that has not measured it shows its last loss."""
    format: Format = "table"


@dataclass
class Show:
    """One run, sweep or evaluation, with its checkpoints checked and its disk taken apart."""

    folder: tyro.conf.Positional[str | Path]
    metric: str = "psnr_hole"
    """What `best` is the best of."""
    format: Format = "table"


@dataclass
class Compare:
    """What differs between the configurations of two runs, evaluations or YAML files."""

    first: tyro.conf.Positional[str | Path]
    second: tyro.conf.Positional[str | Path]
    metric: str = "psnr_hole"
    """Compared, too, where both are runs."""
    format: Format = "table"


@dataclass
class Clean:
    """Remove old checkpoints, Ray's folders, half-written files and cached latents.

    Never the newest whole checkpoint, a model, metrics or results, nor anything of what is running.
    """

    root: tyro.conf.Positional[str | Path] = field(default_factory=runs_folder)
    yes: bool = False
    """Remove what is shown; without it, nothing is."""
    format: Format = "table"


Options = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Clean, tyro.conf.subcommand("clean")]
)


# --- rows -----------------------------------------------------------------------------------


def record_row(record: Record) -> Row:
    """A record's values, the same keys for every kind."""
    best = record.best
    return {
        "path": shown(record.path),
        "kind": record.kind,
        "state": record.state,
        "arch": record.arch,
        "step": record.step,
        "steps": record.steps,
        "metric": None if best is None else best.metric,
        "best": None if best is None else best.value,
        "best_step": None if best is None else best.step,
        "checkpoint": None if record.checkpoint is None else shown(record.checkpoint),
        "disk": record.disk,
        "changed": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.changed)),
        "note": record.note,
    }


def record_cells(record: Record) -> Row:
    """A record for people."""
    best, steps = record.best, record.steps
    return {
        "folder": shown(record.path),
        "what": record.kind,
        "state": record.state,
        "step": "" if steps is None else f"{record.step}/{steps}",
        "best": "" if best is None else f"{best.metric} {best.value:.4g}",
        "checkpoint": "" if record.checkpoint is None else record.checkpoint.name,
        "disk": readable(record.disk),
        "changed": time.strftime("%Y-%m-%d %H:%M", time.localtime(record.changed)),
        "note": _short(record.note),
    }


def details(record: Record) -> Row:
    """What `show` adds: checkpoints with what is wrong with them, disk by part, versions."""
    path = record.path
    checkpoints = {
        shown(checkpoint): "not checked" if is_copy(path) else find_damage(checkpoint) or "whole"
        for checkpoint in checkpoints_of(path / "checkpoints")
    }
    parts = {entry.name: disk_used(entry) for entry in path.iterdir()}
    found: Row = {"checkpoints": checkpoints, "disk_by_part": parts}
    for name in ("environment", "result", "trackers"):
        try:
            found[name] = read_json(path / f"{name}.json")
        except ValueError as error:
            found[name] = str(error) if (path / f"{name}.json").exists() else None
    return found


def comparison(first: Path, second: Path, metric: str) -> list[Row]:
    """Rows of `key, first, second`: settings that differ, then the best score of two runs."""
    found = differences(read_settings(first), read_settings(second))
    rows = [{"key": d.key, "first": d.first, "second": d.second} for d in found]
    if not (first.is_dir() and second.is_dir()):
        return rows
    bests = []
    for folder in (first, second):
        best = _only(folder, metric).best
        bests.append(None if best is None else f"{best.metric} {best.value:.6g}")
    return [*rows, {"key": "best", "first": bests[0], "second": bests[1]}]


# --- the commands ---------------------------------------------------------------------------


def list_runs(options: List) -> None:
    """Prints a row each."""
    records = read_records(outline(options.root), options.metric)
    if options.format != "table":
        _print([record_row(record) for record in records], options.format)
    elif records:
        _print([record_cells(record) for record in records], "table")
    else:
        print(f"nothing has run in {options.root}")


def show(options: Show) -> None:
    """Prints one record in full."""
    record = _only(outline(options.folder), options.metric)
    row = {**record_row(record), **details(record)}
    if options.format == "json":
        print(json.dumps(row, indent=1))
        return
    lines = [{"what": key, "value": _text(value)} for key, value in _flat(row)]
    _print([line for line in lines if line["value"] != ""], options.format)


def compare(options: Compare) -> None:
    """Prints what differs."""
    rows = comparison(outline(options.first), outline(options.second), options.metric)
    if options.format == "json":
        _print(rows, "json")
    elif rows:
        texts = [{key: _text(value) for key, value in row.items()} for row in rows]
        if options.format == "table":
            texts = [{key: _short(text) for key, text in row.items()} for row in texts]
        _print(texts, options.format)
    else:
        print("no difference")


def clean(options: Clean) -> None:
    """Shows what can go and how much it is; removes it where that is wanted."""
    if is_url(options.root):
        raise ValueError(f"clean works in folders: remove what is at {options.root} there")
    plan = plan_cleaning(Path(options.root))
    table = options.format == "table"
    rows: list[Row] = [
        {"path": str(i.path), "why": i.why, "disk": readable(i.disk) if table else i.disk}
        for i in plan.items
    ]
    if rows or not table:
        _print(rows, options.format)
    for record in plan.kept:
        print(
            f"left alone: {record.path} is {record.state} {record.note}".rstrip(), file=sys.stderr
        )
    total, verb = sum(item.disk for item in plan.items), "can be freed; --yes removes it"
    if options.yes:
        total, verb = sum(item.disk for item in remove(plan.items)), "freed"
    print(f"{readable(total)} {verb}" if rows else "nothing to remove", file=sys.stderr)


def main(options: List | Show | Compare | Clean) -> None:
    """Does what is asked."""
    if isinstance(options, List):
        list_runs(options)
    elif isinstance(options, Show):
        show(options)
    elif isinstance(options, Compare):
        compare(options)
    else:
        clean(options)


def _only(folder: Path, metric: str) -> Record:
    """The record of a folder itself.

    Raises:
        ValueError: it is no run's, sweep's or evaluation's.
    """
    found = next((one for one in find(folder) if one.path == folder), None)
    if found is None:
        raise ValueError(
            f"{folder} holds no run, sweep or evaluation itself; list it to see those below"
        )
    return read_record(found, metric)


def _print(rows: Sequence[Row], format: Format) -> None:
    if not rows:
        print("[]" if format == "json" else "")
        return
    if format == "table":
        rows = [{key: escape(value) for key, value in row.items()} for row in rows]
    print(render(rows, format))


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in _flat(item, f"{prefix}{key}.")]
    return [(prefix.rstrip("."), value)]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONG else f"{line[: LONG - 1]}…"


if __name__ == "__main__":
    guard(lambda: main(tyro.cli(Options, prog="python -m moebius.runs")))  # type: ignore[arg-type]
