"""Door: what architectures cost, before any GPU is spent (`python -m moebius.profile`)."""

import csv
import io
import json
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from moebius.config import Architecture
from moebius.console import guard
from moebius.models.architectures import EXPERIMENTS, NAMES
from moebius.models.complexity import Complexity, measure_complexity
from moebius.models.denoiser import build, category_ids

Format = Literal["table", "json", "csv", "markdown"]
REPEATS = 3
LEAST_LATENT = 4
TITLES = {
    "experiments": "Exp.",
    "arch": "Arch.",
    "params": "Params",
    "params_with_lcg": "with LCG",
    "gmacs_paper": "GMACs (paper)",
    "gmacs": "GMACs (complete)",
    "ms_per_step": "ms/step",
    "peak_gib": "peak GiB",
    "block": "Block",
    "kind": "Operators",
    "against": "Baseline",
    "params_change": "+/-",
    "gmacs_change": "+/-",
}


@dataclass
class Options:
    """Count parameters and multiply-accumulates of architectures; measure a step where asked."""

    arch: tuple[str, ...] = ("all",)
    """Names, YAML files, or `all`."""
    against: str | None = None
    """Baseline: print a block-by-block difference instead."""
    latency: bool = False
    """Also measure ms a denoising step and peak memory, batch 1, made-up weights."""
    latent_size: int | None = None
    """Side of the latent; by default the trained size, 64 for 512 px."""
    format: Format = "table"


def profile_row(counted: Complexity) -> dict[str, Any]:
    """One architecture's row; experiment numbers are Tab. 2's, without and with distillation."""
    numbers = EXPERIMENTS.get(counted.arch)
    return {
        "arch": counted.arch,
        "experiments": "" if numbers is None else " / ".join(str(n or "-") for n in numbers),
        "params": counted.params,
        "params_with_lcg": counted.params_with_lcg,
        "gmacs_paper": round(counted.gmacs_paper, 3),
        "gmacs": round(counted.gmacs, 3),
    }


def measure_latency(arch: str | Architecture, latent_size: int | None) -> dict[str, float]:
    """Median ms of a step and peak memory in GiB (of the process on a CPU), batch 1.

    Where the peak cannot be reset, in processes not on Linux, it is the highest so far.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build(arch).eval().to(device)
    size = latent_size or model.architecture.latent_size
    sample = torch.randn(1, model.architecture.in_channels, size, size, device=device)
    ids = category_ids(torch.zeros(1, device=device), model.architecture.context_length)
    times = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with suppress(OSError):  # Linux alone can forget a process's peak
            Path("/proc/self/clear_refs").write_text("5")
    with torch.inference_mode():
        for _ in range(REPEATS + 1):
            start = time.perf_counter()
            model(sample, 500, ids)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else _peak_bytes()
    # The first call warms up.
    median = sorted(times[1:])[REPEATS // 2]
    return {"ms_per_step": round(1000 * median, 1), "peak_gib": round(peak / 2**30, 2)}


def _peak_bytes() -> int:
    """The most that this process held; `getrusage` alone begins with what its parent held."""
    with suppress(OSError):  # Linux alone has it
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def difference_rows(counted: Complexity, baseline: Complexity) -> list[dict[str, Any]]:
    """Block by block, what an architecture has more or less than the baseline."""
    rows = []
    for block in dict.fromkeys([*counted.blocks, *baseline.blocks]):
        own, other = counted.blocks.get(block), baseline.blocks.get(block)
        values = [(0, 0) if b is None else (b.params, b.macs) for b in (own, other)]
        rows.append(
            {
                "arch": counted.arch,
                "block": block,
                "kind": "-" if own is None else own.kind,
                "against": "-" if other is None else other.kind,
                "params": values[0][0],
                "params_change": values[0][0] - values[1][0],
                "gmacs": round(values[0][1] / 1e9, 3),
                "gmacs_change": round((values[0][1] - values[1][1]) / 1e9, 3),
            }
        )
    return rows


def render(rows: Sequence[dict[str, Any]], format: Format) -> str:
    """Rows as JSON, CSV, Markdown or a terminal table."""
    if format == "json":
        return json.dumps(list(rows), indent=1)
    keys = list(rows[0])
    if format == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().rstrip()
    cells = [[_cell(row[key]) for key in keys] for row in rows]
    titles = [TITLES.get(key, key) for key in keys]
    right = [not isinstance(rows[0][key], str) for key in keys]
    if format == "markdown":
        rules = ["---:" if r else "---" for r in right]
        lines = ["| " + " | ".join(line) + " |" for line in (titles, rules, *cells)]
        return "\n".join(lines)
    table = Table()
    for title, numeric in zip(titles, right, strict=True):
        table.add_column(title, justify="right" if numeric else "left", no_wrap=True)
    for line in cells:
        table.add_row(*line)
    # As wide as its cells: a table that wraps numbers cannot be read.
    columns = zip(titles, *cells, strict=True)
    console = Console(width=1 + sum(3 + max(map(len, column)) for column in columns))
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip()


def main(options: Options) -> None:
    """Counts, measures where asked, prints."""
    if options.latent_size is not None and options.latent_size < LEAST_LATENT:
        raise ValueError(f"--latent-size is {options.latent_size}: use at least {LEAST_LATENT}")
    names = [n for name in options.arch for n in (NAMES if name == "all" else (name,))]
    counted = [measure_complexity(name, options.latent_size) for name in names]
    if options.against is not None:
        baseline = measure_complexity(options.against, options.latent_size)
        blocks = [row for one in counted for row in difference_rows(one, baseline)]
        print(render(blocks, options.format))
        return
    rows = [profile_row(one) for one in counted]
    if options.latency:
        print("latency: made-up weights, which time does not depend on", file=sys.stderr)
        for row, name in zip(rows, names, strict=True):
            row |= measure_latency(name, options.latent_size)
    print(render(rows, options.format))


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    guard(lambda: main(tyro.cli(Options)))
