"""Door: score inpainting by a benchmark's protocol (`python -m moebius.evaluate`)."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from moebius.cluster import check_shared
from moebius.config import Polarity, Scoring, parse
from moebius.console import Begin, bars, guard, print_table, silent
from moebius.data.copies import bring, here, publish, shown
from moebius.distill.occupation import occupied
from moebius.distill.run_folder import slug, write_text
from moebius.evaluation.benchmark import prepare_benchmark
from moebius.evaluation.compare import write_comparison
from moebius.evaluation.evaluated import BENCHMARK
from moebius.evaluation.features import builtin_pairs, features_figure
from moebius.evaluation.methods import FILLS, DenoiserMethod, Method, ResultsMethod
from moebius.evaluation.peers import find_peer
from moebius.evaluation.results import describe_result, result_table
from moebius.evaluation.suite import MetricSuite
from moebius.models.architectures import TEACHER
from moebius.models.codec import load_codec
from moebius.models.loading import load_denoiser
from moebius.pool import pick_device, work_through
from moebius.scoring import (
    BATCHES,
    Job,
    Sent,
    Shard,
    Statistics,
    Worker,
    load_scores,
    make_shards,
    method_settings,
    open_folder,
    protocol_names,
    read_protocol,
    resolve_protocol,
    write_scores,
)
from moebius.storage import kept_folder, run_folder
from moebius.train import quiet

# --- what others call -----------------------------------------------------------------------


def evaluate(
    method: Method, scoring: Scoring, out: Path, workers: int = 0, begin: Begin = silent
) -> dict[str, Any]:
    """Fills and scores a benchmark; what is finished in `out` is not made anew.

    Args:
        method: what fills the holes.
        scoring: protocol, files and settings.
        out: folder of the benchmark and of every method scored on it.
        workers: Ray workers; 0 works in this process, without Ray.
        begin: shows progress.

    Returns:
        What `out/<method>/result.json` holds.

    Raises:
        ValueError: files or weights that are missing or do not fit, other settings in `out`, or a
            node that does not see it.
    """
    quiet()
    protocol, out = resolve_protocol(scoring), out.absolute()
    device = pick_device(scoring.device, on_ray=workers > 0)
    if workers:
        check_shared(out)
    # Asked before hours are spent.
    suite = MetricSuite(protocol.metrics, weights=scoring.weights, device=device)
    weights = suite.provenance()
    benchmark = prepare_benchmark(protocol, scoring, out / BENCHMARK, _counting(begin, "pictures"))
    publish(benchmark.folder)
    folder = out / method.name
    batch = scoring.batch or BATCHES[device]
    settings = method_settings(method, protocol, benchmark, batch)
    open_folder(folder, settings)
    shards = make_shards(benchmark, folder, batch, weights)
    statistics = Statistics(benchmark, weights)
    job = Job(
        method,
        protocol.sampling,
        benchmark,
        folder,
        protocol.metrics,
        scoring.weights,
        suite.needs_pairs or statistics.load() is None,
        device,
    )
    todo = [shard for shard in shards if not job.is_done(shard)]
    with occupied(folder):
        work(job, todo, workers, begin(method.name, sum(len(shard.names) for shard in todo)))
    if workers:
        bring(folder)
    statistics.keep(suite, shards)
    metrics = suite.reduce(load_scores(shards), statistics.load())
    write_scores(shards, folder)
    result = describe_result(method, scoring, protocol, benchmark, settings, metrics, weights)
    write_text(folder / "result.json", json.dumps(result, indent=1))
    for path in (benchmark.folder, folder):
        publish(path)
    return result


# --- workers --------------------------------------------------------------------------------


def work(job: Job, shards: Sequence[Shard], workers: int, advance: Callable[[int], None]) -> None:
    """Works through shards in this process, or by a pool of Ray workers."""
    if workers and shards:
        return work_on_ray(job, shards, min(workers, len(shards)), advance)
    worker = Worker(job)
    for shard in shards:
        advance(worker(shard))


def work_on_ray(
    job: Job, shards: Sequence[Shard], workers: int, advance: Callable[[int], None]
) -> None:
    """Works through shards by Ray Data, an actor a worker.

    Raises:
        ValueError: the cluster is too small, or a worker met bad input.
        RuntimeError: a worker failed.
    """
    rows = [shard.row() for shard in shards]
    for row in work_through(RayWorker, Sent.of(job), rows, workers, job.device):
        advance(int(row["count"]))


class RayWorker:
    """What an actor of the pool runs."""

    def __init__(self, sent: Sent) -> None:
        quiet()
        self.worker = Worker(sent.arrived())

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Works through one shard."""
        return {"count": self.worker(Shard.of(row).within(self.worker.job.folder))}


# --- the command ----------------------------------------------------------------------------


@dataclass
class Options:
    """Score inpainting by a benchmark's protocol; the same command again goes on.

    Name what is scored by one of --model, --results, --peer and --method. Without any, the
    benchmark's pictures and masks are written, for other programs to fill.
    """

    protocol: str = "builtin"
    """A name of --list, or a YAML file."""
    list: bool = False
    """List the protocols and stop."""
    model: str | None = None
    """Model folder, released checkpoint or Hub name."""
    arch: str = "lmi_dw_mixffn"
    """Architecture of a released checkpoint: name or YAML file; the teacher's is pixelhacker."""
    codec: str | None = None
    """Latent codec, where the model is saved without: builtin, a folder or a Hub name."""
    results: str | None = None
    """Folder of pictures that anything else made, called as the benchmark's."""
    as_is: bool = False
    """Score them without pasting the known pixels back."""
    peer: str | None = None
    """FLUX.1-Fill-dev, SD3.5-inpainting, SD-inpainting, or module.Class of your own."""
    method: Literal["mean", "telea"] | None = None
    """A simple fill: mean of the known pixels, or OpenCV's Telea."""
    name: str | None = None
    """What to call it; by default after its source."""
    compare: str | Path | None = None
    """Lay what was scored in this folder or URL side by side: compare.png, a page with sliders."""
    features: tuple[str, str] | None = None
    """Student and teacher: draw their feature maps and how alike they are, as features.png."""
    images: str | None = None
    """Folder or manifest of the benchmark's pictures."""
    ids: str | None = None
    """Text file of picture names to score, one a line, in place of the protocol's choice."""
    masks: str | None = None
    """Folder of published masks; by default masks are drawn."""
    white: Polarity | None = None
    """What white means in that folder, where the protocol does not say it or is wrong for it."""
    limit: int | None = None
    """Score the first pictures only."""
    parity: bool = False
    """Start as the release does, from the truth's latent at strength 0.99."""
    steps: int | None = None
    """Denoiser evaluations in place of the protocol's."""
    guidance: float | None = None
    """Guidance scale in place of the protocol's."""
    metrics: tuple[str, ...] = ()
    """Metrics in place of the protocol's."""
    weights: str | None = None
    """Folder of the metrics' weights; by default they are downloaded."""
    batch: int | None = None
    """Pictures filled at once; by default 8 on a GPU, 1 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run."""
    workers: int = 0
    """Ray workers, one CPU (and GPU) each; 0 works in this process."""
    out: str | Path | None = None
    """Folder or s3:// URL; by default evaluate/<protocol> in $MOEBIUS_STORAGE, or in runs."""


def make_scoring(options: Options) -> Scoring:
    """The scoring that a command line means."""
    keys = Scoring.model_fields.keys() - {"metrics", "protocol"}
    values = {key: getattr(options, key) for key in keys}
    metrics = [*options.metrics] or None
    return parse(
        Scoring, {**values, "metrics": metrics, "protocol": options.protocol}, "command line"
    )


def make_method(options: Options) -> Method | None:
    """What the command line asks to score; `None` where it names nothing.

    Raises:
        ValueError: it names several, or a name that cannot be a folder's.
    """
    keys = ("model", "results", "peer", "method")
    given = [key for key in keys if getattr(options, key) is not None]
    if len(given) > 1:
        raise ValueError(
            f"name one thing to score, not {' and '.join('--' + key for key in given)}"
        )
    if not given:
        return None
    source = str(getattr(options, given[0]))
    name = options.name or slug(source)
    if name != slug(name) or name == BENCHMARK:
        raise ValueError(f"--name {name!r} cannot be a folder here: use letters, digits, . _ -")
    ours = ("codec", "parity", "steps", "guidance")
    unused = [f"--{key}" for key in ours if getattr(options, key)]
    if unused and given != ["model"]:
        raise ValueError(f"{', '.join(unused)}: for --model alone")
    if options.as_is and given != ["results"]:
        raise ValueError("--as-is is for --results: everything else is pasted back")
    if options.model is not None:
        codec = None if options.codec is None else _here(options.codec)
        return DenoiserMethod(name, _here(source), options.arch, codec)
    if options.results is not None:
        return ResultsMethod(name, _here(source), options.as_is)
    return find_peer(source)(name) if options.peer is not None else FILLS[source](name)


def main(options: Options) -> None:
    """Lists, prepares, or fills and scores; prints the table."""
    console = Console(stderr=True)
    if options.list:
        print_table(list_protocols())
        return
    if options.compare is not None:
        compared = Path(here(str(options.compare)))
        out = compared if options.out is None else kept_folder(options.out, "")
        write_comparison(compared, out)
        console.print(f"open {out / 'compare.html'}")
        return
    if options.features is not None:
        draw_features(options, console)
        return
    scoring, method = make_scoring(options), make_method(options)
    out = run_folder(options.out, default_name(options))
    with bars(console) as begin:
        if method is None:
            protocol = resolve_protocol(scoring)
            prepare_benchmark(protocol, scoring, out / BENCHMARK, _counting(begin, "pictures"))
            publish(out / BENCHMARK)
            console.print(
                f"pictures and masks (white = hole) in {shown(out / BENCHMARK)}; name what to "
                "score by --model, --results, --peer or --method"
            )
            return
        result = evaluate(method, scoring, out, options.workers, begin)
    print_table(result_table(out, result))
    for note in result["notes"]:
        console.print(f"[yellow]{note}[/]", highlight=False)
    place = shown(out / method.name)
    console.print(f"result, scores and pictures in {place}", soft_wrap=True)


def draw_features(options: Options, console: Console) -> None:
    """Draws features of built-in photographs, and prints how alike the two models' are (Fig. 4)."""
    assert options.features is not None
    student = load_denoiser(options.features[0], options.arch)
    teacher = load_denoiser(options.features[1], TEACHER)
    codec = load_codec(options.codec or "builtin")
    out = kept_folder(options.out, "evaluate/features")
    out.mkdir(parents=True, exist_ok=True)
    images, masks = builtin_pairs(codec.factor * student.architecture.latent_size)
    alike = features_figure(student, teacher, codec, images, masks, out / "features.png")
    table = Table("feature", "similarity", box=None)
    for name, value in alike.items():
        table.add_row(name, f"{value:.3f}")
    print_table(table)
    console.print(f"figure in {out / 'features.png'}")


def default_name(options: Options) -> str:
    """evaluate/<protocol>; a part of a benchmark lies beside the whole."""
    part = "" if options.limit is None else f"-first{options.limit}"
    return f"evaluate/{Path(options.protocol).stem}{part}"


def list_protocols() -> Table:
    """A line a protocol."""
    table = Table("protocol", "what", "pictures", "px", "masks", box=None)
    for name in protocol_names():
        p = read_protocol(name)
        numbers = f"{p.images.count:,}", str(p.size)
        table.add_row(name, p.title, *numbers, p.masks.generator)
    return table


def _counting(begin: Begin, title: str) -> Callable[[int], Callable[[], None]]:
    def start(total: int) -> Callable[[], None]:
        advance = begin(title, total)
        return lambda: advance(1)

    return start


def _here(source: str) -> str:
    """Workers run in other folders."""
    return os.path.abspath(source) if Path(source).exists() else source


if __name__ == "__main__":
    guard(lambda: main(tyro.cli(Options)))
