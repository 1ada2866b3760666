"""Door: encode photographs and masks to shards of latents (`python -m moebius.encode`)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from moebius.assembly import make_samples
from moebius.cluster import check_shared
from moebius.config import Recipe
from moebius.console import Begin, bars, guard, silent
from moebius.data.shards.index import Encoding, Index, describe_encoding
from moebius.data.shards.storage import open_storage
from moebius.data.shards.writer import ShardWriter, claim, draw_bytes, finish
from moebius.distill.cost import encoding_cost
from moebius.models.codec import LatentCodec, load_codec
from moebius.planning.machines import load_machine
from moebius.planning.plan import bytes_text, duration_text, flops_text
from moebius.pool import Row, pick_device, work_through
from moebius.recipes import read_recipe
from moebius.train import parse_recipe, quiet

DEFAULT_OUT = "runs/latents"
PLANNED_ON = "L40S"
"""Whose hours `--dry-run` gives, by `moebius/assets/machines.yaml`."""


# --- what others call -----------------------------------------------------------------------


def encode(
    recipe: Recipe,
    out: str,
    masks: int = 1,
    shard_draws: int = 1024,
    workers: int = 0,
    device: str = "auto",
    begin: Begin = silent,
) -> tuple[Index, list[str]]:
    """Encodes the first epochs of a recipe's stream; shards that are there are not made anew.

    Each draw is a crop and its hole, as training without latents would draw them: where the crop
    lies depends on its hole, so masks of one photograph do not share a crop.

    Args:
        recipe: its data, seed and codec are read.
        out: folder or URL.
        masks: draws of each photograph.
        shard_draws: draws of a shard.
        workers: Ray actors; 0 works in this process, without Ray.
        device: `auto`, `cpu` or `cuda`.
        begin: shows progress.

    Returns:
        The finished index, and the names of unreadable photographs that others stand in for.

    Raises:
        ValueError: bad input, another set in `out`, or a node that does not see it.
    """
    quiet()
    samples = make_samples(recipe)
    encoding = describe_encoding(
        samples, load_codec(recipe.codec), recipe.data.source, masks, shard_draws
    )
    chosen = pick_device(device, on_ray=workers > 0)
    if workers and "://" not in out:
        check_shared(Path(out))
    storage = open_storage(out)
    todo = claim(storage, encoding)
    advance = begin("latents", sum(len(encoding.numbers(number)) for number in todo))
    job = Job(recipe.model_dump(mode="json", by_alias=True), out, encoding, chosen)
    unreadable = set[str]()
    for row in work(job, todo, min(workers, len(todo))):
        advance(int(row["count"]))
        unreadable |= set(row["unreadable"])
    return finish(storage, encoding), sorted(unreadable)


# --- workers --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """All that a worker needs; it travels to other processes."""

    recipe: Mapping[str, Any]
    out: str
    encoding: Encoding
    device: str

    @property
    def loaders(self) -> int:
        """Processes of each worker that decode photographs."""
        return int(self.recipe["data"]["workers"])


def work(job: Job, todo: Sequence[int], workers: int) -> Iterator[Mapping[str, Any]]:
    """Makes shards in this process, or by a pool of Ray actors."""
    rows = [{"shard": number} for number in todo]
    if workers:
        yield from work_through(RayWorker, job, rows, workers, job.device, 1 + job.loaders)
    elif rows:
        make = writer(job)
        yield from (report(make, row) for row in rows)


def writer(job: Job) -> ShardWriter:
    """A job's writer in this process."""
    recipe = parse_recipe(job.recipe)
    codec = load_codec(recipe.codec, device=job.device)
    return ShardWriter(
        make_samples(recipe), codec, open_storage(job.out), job.encoding, job.loaders
    )


def report(make: ShardWriter, row: Mapping[str, Any]) -> Row:
    """Makes one shard and says what came of it."""
    count = make(int(row["shard"]))
    return {"count": count, "unreadable": make.samples.unreadable}


class RayWorker:
    """What an actor of the pool runs."""

    def __init__(self, job: Job) -> None:
        quiet()
        self.make = writer(job)

    def __call__(self, row: Row) -> Row:
        """Makes one shard."""
        return report(self.make, row)


# --- the command ----------------------------------------------------------------------------


@dataclass
class Options:
    """Encode photographs, each with its own crops and holes, to shards of latents that training
    reads in their place; the same command again goes on where it stood."""

    overrides: tyro.conf.Positional[tuple[str, ...]] = ()
    """Dotted keys of the recipe, such as data.size=256."""
    recipe: str = "builtin"
    """The recipe that will be trained: `builtin`, `paper`, or a YAML file."""
    data: str | None = None
    """Folder of images or JSONL manifest."""
    codec: str | None = None
    """Latent codec: `builtin`, a folder or a Hub name."""
    masks: int = 1
    """Draws of each photograph, each with its own crop and hole."""
    shard_draws: int = 1024
    """Draws of a shard."""
    out: str | None = None
    """Folder or URL (s3://bucket/folder); by default the recipe's data.latents, or runs/latents."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to encode."""
    workers: int = 1
    """Ray actors, a GPU each where there are any."""
    in_process: bool = False
    """Work in this process, in plain PyTorch, where there is no Ray."""
    dry_run: bool = False
    """Print what it takes, and start nothing."""


def resolve_options(options: Options) -> tuple[Recipe, str]:
    """The recipe with the command line's values, and where its latents go.

    Raises:
        ValueError: something is not named, or a count is below 1.
    """
    named = {"data.source": options.data, "codec": options.codec}
    given = [f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None]
    recipe = read_recipe(options.recipe, [*given, *options.overrides])
    missing = [
        f"--{key}"
        for key, value in (("data", recipe.data.source), ("codec", recipe.codec))
        if not value
    ]
    if missing:
        raise ValueError(f"recipe {options.recipe!r} needs {' and '.join(missing)}")
    for name in ("masks", "shard_draws", "workers"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be 1 or more")
    out = options.out or recipe.data.latents or DEFAULT_OUT
    return recipe, out if "://" in out else str(Path(out).absolute())


def describe(recipe: Recipe, encoding: Encoding, codec: LatentCodec, missing: int) -> Table:
    """What encoding takes: draws, shards, bytes, FLOPs and hours."""
    cost = encoding_cost(codec, recipe.data.size).times(encoding.draws)
    machine = load_machine(PLANNED_ON)
    hours = duration_text(machine.seconds(cost))
    size = draw_bytes(codec, recipe.data.size)
    table = Table("what", "value", show_header=False)
    table.add_row("draws", f"{encoding.draws:,} of {recipe.data.size} px")
    table.add_row(
        "shards",
        f"{encoding.shards:,} of {bytes_text(size * encoding.shard_draws)}, {missing:,} to make",
    )
    table.add_row("size", bytes_text(size * encoding.draws))
    table.add_row("work", f"{flops_text(cost.total)}, {hours} on one {machine.name} (estimate)")
    return table


def main(options: Options) -> None:
    """Resolves the command line, encodes, and says how to train from it."""
    console = Console(stderr=True)
    recipe, out = resolve_options(options)
    if options.dry_run:
        codec, samples = load_codec(recipe.codec), make_samples(recipe)
        source, counts = recipe.data.source, (options.masks, options.shard_draws)
        encoding = describe_encoding(samples, codec, source, *counts)
        missing = claim(open_storage(out), encoding, dry_run=True)
        Console().print(describe(recipe, encoding, codec, len(missing)))
        return
    workers = 0 if options.in_process else options.workers
    with bars(console) as begin:
        index, unreadable = encode(
            recipe, out, options.masks, options.shard_draws, workers, options.device, begin
        )
    if unreadable:
        console.print(
            f"[yellow]{len(unreadable)} unreadable photographs, others stand in for them: "
            f"{', '.join(unreadable[:3])}[/]",
            highlight=False,
        )
    console.print(
        f"{index.encoding.draws:,} draws in {len(index.shards):,} shards, "
        f"{bytes_text(sum(shard.bytes for shard in index.shards))}; train with --latents {out}",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    guard(lambda: main(tyro.cli(Options)))
