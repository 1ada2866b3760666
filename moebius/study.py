"""Door: a blind preference study (`python -m moebius.study build`, then `report`)."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.markup import escape
from rich.table import Table

from moebius.console import guard, print_table
from moebius.evaluation.evaluated import EvaluatedFolder
from moebius.evaluation.study.build import Scenario, build_study, key_path
from moebius.evaluation.study.report import write_report


@dataclass
class Build:
    """Make one page that asks participants which method's picture is best, and the key to it."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """What `python -m moebius.evaluate` wrote, one folder a scenario."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """HTML file to write; the key lies beside it, `study.key.json` for `study.html`."""
    methods: tuple[str, ...] = ()
    """Folders of results that compete, 2 to 9; all of the first folder's by default."""
    scenario: tuple[str, ...] = ()
    """Names of the scenarios, in the folders' order; the folders' own by default."""
    cases: Annotated[int, tyro.conf.arg(metavar="N")] = 50
    """Pictures of each scenario."""
    quality: Annotated[int, tyro.conf.arg(metavar="1..100")] = 95
    """Of the embedded WebP pictures; 100 is lossless, and several times as large."""
    seed: int | None = None
    """Of the draw of cases and the hidden names; a secret one by default, kept in the key."""


@dataclass
class Report:
    """Sum up what participants saved."""

    key: tyro.conf.Positional[Path]
    """The key that `build` wrote."""
    answers: tyro.conf.Positional[tuple[Path, ...]]
    """Files that participants saved."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder for report.md, report.csv and report.png."""
    seed: int = 0
    """Of the bootstrap."""


Options = (
    Annotated[Build, tyro.conf.subcommand("build")]
    | Annotated[Report, tyro.conf.subcommand("report")]
)


def build(options: Build) -> None:
    """Writes page and key, and says what to do with them."""
    if not options.folders:
        raise ValueError("name at least one folder that python -m moebius.evaluate wrote")
    names = options.scenario or tuple(folder.resolve().name for folder in options.folders)
    if len(names) != len(options.folders):
        raise ValueError(f"{len(names)} --scenario names for {len(options.folders)} folders")
    folders = map(EvaluatedFolder, options.folders)
    key = build_study(
        [Scenario(name, folder) for name, folder in zip(names, folders, strict=True)],
        options.output,
        options.methods or None,
        options.cases,
        options.quality,
        options.seed,
    )
    megabytes = options.output.stat().st_size / 1e6
    print(f"Wrote {options.output} ({len(key.cases)} cases, {megabytes:.1f} MB): for participants")
    print(f"Wrote {key_path(options.output)}: keep it to yourself, the report needs it")


def report(options: Report) -> None:
    """Writes the report and prints its table; refused files go to standard error."""
    made = write_report(options.key, options.answers, options.output, options.seed)
    table = Table(title=f"{made.participants} participants")
    for title in ("Scenario", "Method"):
        table.add_column(title)
    for title in ("Preferred [%]", "95 % interval"):
        table.add_column(title, justify="right")
    for row in made.preferences:
        interval = "–" if row.interval is None else "{:.1f} to {:.1f}".format(*row.interval)
        table.add_row(escape(row.scenario), escape(row.method), f"{row.share:.2f}", interval)
    print_table(table)
    for line in made.refused:
        print(f"refused: {line}", file=sys.stderr)
    print(f"Wrote {options.output}/report.md, report.csv, report.png")


def main(options: Build | Report) -> None:
    """Builds or reports."""
    if isinstance(options, Build):
        build(options)
    else:
        report(options)


if __name__ == "__main__":
    guard(lambda: main(tyro.cli(Options, prog="python -m moebius.study")))  # type: ignore[arg-type]
