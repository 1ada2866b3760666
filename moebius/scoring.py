"""A protocol's scoring without its machinery: what is to do, and how one worker does its part.

A method's folder, beside `benchmark` (see `moebius.evaluation.benchmark`):

    settings.json  results/<id>.png  shards/*  scores.jsonl  result.json

Pictures are filled and scored in shards, fixed groups of ids, whoever works through them. What is
finished is not made anew.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moebius.config import Protocol, Sampling, Scoring, load_yaml, parse
from moebius.data.copies import bring, here, is_copy, open_place, place_of, publish
from moebius.distill.run_folder import write_text
from moebius.evaluation.batch_scores import BatchScores
from moebius.evaluation.benchmark import (
    SETTINGS,
    Benchmark,
    Item,
    check_settings,
)
from moebius.evaluation.fid import Moments, load_moments, save_moments
from moebius.evaluation.methods import Fill, Method
from moebius.evaluation.pixels import checksum, read_picture, write_png
from moebius.evaluation.scores import DDOF
from moebius.evaluation.suite import MetricSuite

FOLDER = files("moebius") / "assets" / "protocols"
BATCHES = {"cpu": 1, "cuda": 8}


# --- protocols ------------------------------------------------------------------------------


def protocol_names() -> list[str]:
    """Names of the protocols that come with the package."""
    return sorted(item.name.removesuffix(".yaml") for item in FOLDER.iterdir())


def read_protocol(source: str | Path | Mapping[str, Any]) -> Protocol:
    """A validated protocol, by its name, a YAML file or a mapping."""
    if isinstance(source, Mapping):
        return parse(Protocol, source, "protocol")
    if str(source).endswith((".yaml", ".yml")):
        return parse(Protocol, load_yaml(source), str(source))
    if str(source) not in protocol_names():
        known = ", ".join(protocol_names())
        raise ValueError(f"unknown protocol {str(source)!r}; known: {known}, or a .yaml file")
    return parse(Protocol, load_yaml(str(FOLDER / f"{source}.yaml")), f"protocol {source}")


def resolve_protocol(scoring: Scoring) -> Protocol:
    """The protocol with what the scoring sets in its place."""
    protocol = read_protocol(scoring.protocol)
    given = {"steps": scoring.steps, "guidance": scoring.guidance}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if scoring.parity:
        changes["start"] = "release"
    sampling = parse(Sampling, {**protocol.sampling.model_dump(), **changes}, "sampling")
    metrics = scoring.metrics or protocol.metrics
    return protocol.model_copy(update={"sampling": sampling, "metrics": metrics})


# --- shards ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shard:
    """Pictures that are filled together, and the files that say so."""

    names: list[str]
    record: Path
    """Checksums of the results; written after them."""
    scores: Path
    """Their `BatchScores`, by the metrics that were asked for."""

    def row(self) -> dict[str, Any]:
        """As Ray Data carries it."""
        return {"names": self.names, "record": str(self.record), "scores": str(self.scores)}

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Shard":
        """What `row` was made of."""
        return cls([str(name) for name in row["names"]], Path(row["record"]), Path(row["scores"]))

    def within(self, folder: Path) -> "Shard":
        """The same shard in another copy of the method's folder."""
        record, scores = (folder / "shards" / path.name for path in (self.record, self.scores))
        return Shard(self.names, record, scores)


def make_shards(benchmark: Benchmark, folder: Path, batch: int, metrics: Any) -> list[Shard]:
    """All shards of a method.

    Args:
        benchmark: what is scored.
        folder: the method's.
        batch: pictures that it fills at once.
        metrics: what scores depend on beside the pictures, for JSON.
    """
    text = json.dumps([metrics, benchmark.sha256], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    groups = [benchmark.names[n : n + batch] for n in range(0, len(benchmark.names), batch)]
    stems = [folder / "shards" / f"{n:06d}" for n in range(len(groups))]
    return [
        Shard(
            names, stem.with_name(f"{stem.name}.json"), stem.with_name(f"{stem.name}-{key}.scores")
        )
        for names, stem in zip(groups, stems, strict=True)
    ]


@dataclass(frozen=True)
class Job:
    """All that a worker needs; it travels to other processes."""

    method: Method
    sampling: Sampling
    benchmark: Benchmark
    folder: Path
    """Of the method."""
    metrics: list[str]
    weights: str | None
    real: bool
    """Whether the truth's features are wanted as well as the results'."""
    device: str

    def is_filled(self, shard: Shard) -> bool:
        """Whether a shard's record and pictures are there."""
        return shard.record.is_file() and all(self.result(n).is_file() for n in shard.names)

    def is_done(self, shard: Shard) -> bool:
        """Whether a shard is filled and scored."""
        return self.is_filled(shard) and shard.scores.is_file()

    def result(self, name: str) -> Path:
        """Where a picture's result lies."""
        return self.folder / "results" / f"{name}.png"


@dataclass(frozen=True)
class Sent:
    """A job on its way to another process: what lies in copies by its URL."""

    job: Job
    folder: str
    benchmark: str

    @classmethod
    def of(cls, job: Job) -> "Sent":
        """A job as it is sent."""
        return cls(job, place_of(job.folder), place_of(job.benchmark.folder))

    def arrived(self) -> Job:
        """The job with this machine's copies."""
        benchmark = Benchmark(Path(here(self.benchmark)))
        folder = open_place(self.folder, "worker")
        for name in ("results", "shards"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        return replace(self.job, benchmark=benchmark, folder=folder)


class Worker:
    """Works through shards; weights are read when they are first needed."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self, shard: Shard) -> int:
        """Fills and scores what is not yet; returns the number of pictures."""
        files = [*map(self.job.result, shard.names), shard.scores, shard.record]
        for file in files if is_copy(self.job.folder) else ():
            bring(file)
        items = [self.job.benchmark.read(name) for name in shard.names]
        if not self.job.is_filled(shard):
            for stale in shard.record.parent.glob(f"{shard.record.stem}-*"):
                stale.unlink()
            self._fill(shard, items)
        if not shard.scores.is_file():
            self._score(shard, items)
        for file in files:
            publish(file)
        return len(items)

    def _fill(self, shard: Shard, items: Sequence[Item]) -> None:
        with one_thread(self.job.device):
            pictures = self._filler(items)
        sums = {}
        for item, picture in zip(items, pictures, strict=True):
            result = picture if self.job.method.as_is else composite(item, picture)
            write_png(self.job.result(item.name), result)
            sums[item.name] = checksum(result)
        write_text(shard.record, json.dumps(sums))

    def _score(self, shard: Shard, items: Sequence[Item]) -> None:
        """Scores the results as they lie on disk (protocols, trap 12)."""
        results, sums = [], json.loads(shard.record.read_text())
        for item in items:
            results.append(read_picture(self.job.result(item.name)))
            if checksum(results[-1]) != sums[item.name]:
                raise ValueError(
                    f"{self.job.result(item.name)} has changed since it was made: remove it"
                )
        truth, holes = np.stack([i.image for i in items]), np.stack([i.hole for i in items])
        scores = self._suite.score(np.stack(results), truth, holes, real=self.job.real)
        scores.save(shard.scores)

    @cached_property
    def _filler(self) -> Fill:
        return self.job.method.load(self.job.sampling, torch.device(self.job.device))

    @cached_property
    def _suite(self) -> MetricSuite:
        return MetricSuite(self.job.metrics, weights=self.job.weights, device=self.job.device)


def load_scores(shards: Sequence[Shard]) -> Iterator[BatchScores]:
    """Finished scores, one shard in memory at a time."""
    return (BatchScores.load(shard.scores) for shard in shards)


class Statistics:
    """What FID needs of the benchmark's own pictures, kept in its folder for the next method."""

    def __init__(self, benchmark: Benchmark, weights: Mapping[str, Any]) -> None:
        used = {name: of for name, of in weights.items() if name in DDOF}
        self.provenance = {"manifest": benchmark.sha256, "metrics": json.dumps(used)}
        digest = hashlib.sha256(json.dumps(self.provenance).encode()).hexdigest()[:16]
        self.path = benchmark.folder / f"statistics-{digest}.safetensors" if used else None

    def load(self) -> dict[str, Moments] | None:
        """What was kept; `None` where nothing was, or where no FID is asked for."""
        if self.path is None or not self.path.is_file():
            return None
        return load_moments(self.path, self.provenance)

    def keep(self, suite: MetricSuite, shards: Sequence[Shard]) -> None:
        """Sums up shards that were scored with the truth's features."""
        if self.path is not None and not self.path.is_file():
            save_moments(self.path, suite.real_moments(load_scores(shards)), self.provenance)


def composite(item: Item, picture: np.ndarray) -> np.ndarray:
    """The picture inside the hole and the truth, to the bit, everywhere else (trap 4)."""
    assert picture.dtype == np.uint8 and picture.shape == item.image.shape
    return np.where(item.hole[..., None], picture, item.image)


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """On a CPU, sums must not depend on how many threads share them."""
    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# --- results --------------------------------------------------------------------------------


def method_settings(
    method: Method, protocol: Protocol, benchmark: Benchmark, batch: int
) -> dict[str, Any]:
    """All that decides a method's pictures."""
    return {
        "method": method.provenance(benchmark.names),
        "sampling": method.uses(protocol.sampling),
        "as_is": method.as_is,
        "batch": batch,
        "manifest_sha256": benchmark.sha256,
    }


def open_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Makes a method's folder, or checks that what it holds, if anything, was made alike."""
    for name in ("results", "shards"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if (folder / SETTINGS).is_file() and any((folder / "results").iterdir()):
        check_settings(folder / SETTINGS, settings)
    write_text(folder / SETTINGS, json.dumps(settings, indent=1))
    publish(folder / SETTINGS)


def write_scores(shards: Sequence[Shard], folder: Path) -> None:
    """Writes every picture's own scores, one JSON object a line."""
    lines = [
        json.dumps({"id": name, **row})
        for shard, batch in zip(shards, load_scores(shards), strict=True)
        for name, row in zip(shard.names, batch.rows, strict=True)
    ]
    write_text(folder / "scores.jsonl", "".join(f"{line}\n" for line in lines))
