"""What ran, from its folder: state, progress, best score, checkpoint, disk."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moebius.config import load_yaml
from moebius.distill.checkpoints import MANIFEST, checkpoints_of
from moebius.distill.occupation import ERROR, MARK, last_trace, occupation
from moebius.distill.run_folder import RunFolder
from moebius.evaluation.scores import METRICS
from moebius.operations.disk import disk_used
from moebius.operations.finding import Found, Kind, find

State = Literal["running", "finished", "failed", "stopped", "interrupted", "broken"]
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""What files of another make raise when they are read as ours."""


@dataclass(frozen=True)
class Best:
    """The best value of a metric, and the step it was reached at."""

    metric: str
    value: float
    step: int | None = None


@dataclass(frozen=True)
class Record:
    """One run, sweep or evaluation as it stands."""

    path: Path
    kind: Kind
    state: State
    disk: int
    """Bytes."""
    changed: float
    """Seconds since the epoch."""
    arch: str | None = None
    step: int | None = None
    steps: int | None = None
    best: Best | None = None
    checkpoint: Path | None = None
    """The newest by name, its files not yet checked."""
    note: str = ""
    """Why it failed or cannot be read, or how a sweep's runs stand."""


def read_records(root: Path, metric: str = "psnr_hole") -> list[Record]:
    """Records of everything below `root`; a folder with broken files is one with the reason.

    Args:
        root: a folder of runs, or a run.
        metric: what `best` is the best of; where it was not measured, the last loss is taken.

    Raises:
        ValueError: there is no such folder.
    """
    return [read_record(found, metric) for found in find(root)]


def read_record(found: Found, metric: str = "psnr_hole") -> Record:
    """The record of one folder; broken files are its state `broken` and the reason."""
    path = found.path
    try:
        described = _READERS[found.kind](path, metric)
    except UNREADABLE as error:
        text = " ".join(str(error).split()) or type(error).__name__
        described = {"state": "broken", "note": text if str(path) in text else f"{path}: {text}"}
    return Record(path, found.kind, disk=disk_used(path), changed=last_trace(path), **described)


def read_json(path: Path) -> dict[str, Any]:
    """A file's mapping.

    Raises:
        ValueError: it holds none; the file is named.
    """
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds no mapping")
    return data


def read_settings(path: Path) -> dict[str, Any]:
    """The configuration of a run's or evaluation's folder, or a YAML file's mapping.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    if path.is_file():
        return load_yaml(path)
    if (path / "config.yaml").is_file():
        return load_yaml(path / "config.yaml")
    if (path / "settings.json").is_file():
        return read_json(path / "settings.json")
    raise ValueError(f"no configuration in {path}: name a run, an evaluation or a YAML file")


def best_of(lines: list[dict[str, Any]], metric: str) -> Best | None:
    """The best value among metrics of steps, else the last loss; NaN counts for nothing."""
    found = [
        Best(metric, float(line[metric]), line.get("step"))
        for line in lines
        if isinstance(line.get(metric), int | float) and math.isfinite(line[metric])
    ]
    if found:
        return (max if rises(metric) else min)(found, key=lambda best: best.value)
    for line in reversed(lines):
        for name in ("loss/task", "loss/total"):
            if name in line:
                return Best(name, float(line[name]), line.get("step"))
    return None


def rises(metric: str) -> bool:
    """Whether more of a metric is better: not so of losses and of distances."""
    return METRICS[metric].higher_is_better if metric in METRICS else not metric.startswith("loss/")


def _run(path: Path, metric: str) -> dict[str, Any]:
    folder, config = RunFolder(path), read_settings(path)
    steps, arch = int(config["training"]["steps"]), config["arch"]
    lines = [line for line in folder.read_metrics() if isinstance(line, dict) and "step" in line]
    stored = read_json(path / "result.json") if (path / "result.json").is_file() else None
    result = stored if stored is not None and stored["step"] == steps else None
    whole = [p for p in checkpoints_of(folder.checkpoints) if (p / MANIFEST).is_file()]
    state = _state(path, result is not None)
    return {
        "state": state,
        "arch": arch if isinstance(arch, str) else str(arch.get("base", "mixed")),
        "step": int(lines[-1]["step"]) if lines else 0,
        "steps": steps,
        "best": best_of(lines if result is None else [*lines, result], metric),
        "checkpoint": whole[0] if whole else None,
        "note": _reason(path) if state == "failed" else "",
    }


def _sweep(path: Path, metric: str) -> dict[str, Any]:
    inner = [read_record(found, metric) for found in find(path)[1:] if found.kind == "run"]
    trials = [record for record in inner if record.path.parent == path / "trials"]
    counts = Counter(record.state for record in trials)
    ended = not counts["interrupted"] and (path / "model").is_dir()
    state = "running" if counts["running"] else _state(path, ended)
    measured = [r.best for r in inner if r.best is not None and r.best.metric == metric]
    best = (max if rises(metric) else min)(measured, key=lambda b: b.value, default=None)
    parts = [f"{count} {name}" for name, count in counts.items()]
    reason = [_reason(path)] if state == "failed" else []
    return {
        "state": state,
        "best": best,
        "note": "; ".join([f"{len(trials)} trials: {', '.join(parts) or 'none'}", *reason]),
    }


def _evaluation(path: Path, metric: str) -> dict[str, Any]:
    finished = (path / "result.json").is_file()
    state, best = _state(path, finished), None
    if finished:
        metrics: Mapping[str, float] = read_json(path / "result.json")["metrics"]
        name = metric if metric in metrics else next(iter(metrics), None)
        best = None if name is None else Best(name, float(metrics[name]))
    return {"state": state, "best": best, "note": _reason(path) if state == "failed" else ""}


_READERS = {"run": _run, "sweep": _sweep, "evaluation": _evaluation}


def _state(path: Path, finished: bool) -> State:
    """By signs in the order of their weight; a traceback counts if nothing began after it."""
    taken = occupation(path)
    if taken == "held":
        return "running"
    if finished:
        return "finished"
    if (path / "stopped.json").is_file():
        return "stopped"
    mark, error = path / MARK, path / ERROR
    if error.is_file() and not (mark.is_file() and mark.stat().st_mtime > error.stat().st_mtime):
        return "failed"
    return "running" if taken == "perhaps" else "interrupted"


def _reason(path: Path) -> str:
    lines = (path / ERROR).read_text(errors="replace").splitlines() if path.is_dir() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "no reason stored")
