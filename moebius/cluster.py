"""What a run asks of a cluster, before it starts: workers that fit, storage that all nodes see."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from moebius.config import Recipe
from moebius.data.copies import is_copy, place_of
from moebius.data.origins import probe
from moebius.data.shards.storage import first_line
from moebius.sources import missing_source
from moebius.storage import VARIABLE

ANSWER_S = 120.0
"""Seconds that a node may take to start a process and answer."""


@dataclass(frozen=True)
class Workers:
    """How many workers a run takes, and what each of them takes."""

    count: int = 1
    cpus: float | None = None
    """`None` shares the cluster's cores among the workers."""
    gpus: float = 0
    least: int | None = None
    """The run goes on with so few where nodes are lost, and grows again; `None` is `count`."""
    look_every: float = 60
    """Seconds between looks for nodes to grow on."""

    @property
    def fewest(self) -> int:
        """Workers that the run cannot do without."""
        return self.count if self.least is None else self.least


def parse_workers(text: str) -> tuple[int, int]:
    """`8` as (8, 8), and `8:16` as (8, 16).

    Raises:
        ValueError: it is neither.
    """
    match = re.fullmatch(r"(\d+)(?::(\d+))?", text)
    least = int(match[1]) if match else 0
    most = int(match[2] or least) if match else 0
    if not 1 <= least <= most:
        raise ValueError(f"workers are a number or least:most, such as 8 or 8:16, got {text!r}")
    return least, most


def fit_workers(workers: Workers) -> Workers:
    """Workers with their cores filled in, once the cluster is known to hold them.

    Ray waits in silence for what a cluster lacks, so this is asked before anything starts.
    """
    import ray

    total = ray.cluster_resources()
    cpus = workers.cpus or max(1, int(total.get("CPU", 1) // workers.count))
    for name, each in (("CPU", cpus), ("GPU", workers.gpus)):
        if each * workers.fewest > total.get(name, 0):
            raise ValueError(
                f"{workers.fewest} workers with {each:g} {name} each do not fit: the cluster has "
                f"{total.get(name, 0):g} {name}; use fewer workers or less for each"
            )
    return replace(workers, cpus=cpus)


# --- inputs -----------------------------------------------------------------------------------


def check_inputs(recipes: Sequence[Recipe]) -> None:
    """Refuses recipes that name what neither this machine nor another node of the cluster has.

    Raises:
        ValueError: what this machine misses, where nobody has it.
    """
    import ray

    problem = missing_source(recipes)
    if problem is None:
        return
    own = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != own]
    asked = [_ask(node, miss, list(recipes)) for node in others]
    if all(_answered(reference) is not None for reference in asked):
        raise ValueError(problem)


def miss(recipes: Sequence[Recipe], name: str) -> str | None:
    """What a node misses of what recipes name, or `None`."""
    return missing_source(recipes)


# --- storage ----------------------------------------------------------------------------------


def check_shared(folder: Path) -> None:
    """Makes a folder, and sure that it is one and the same on every node of the cluster.

    Of a copy, that every node reaches its object store.

    Raises:
        ValueError: naming the nodes where it is not so, and why.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if is_copy(folder):
        _check_reached(place_of(folder), nodes)
        return
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if len(nodes) == 1:
        return
    mark = folder / f".seen-{uuid4().hex}"
    mark.write_text(mark.name)
    try:
        asked = [(node, _ask(node, answer, mark)) for node in nodes]
        heard = [(node, _hear(node, reference, mark)) for node, reference in asked]
    finally:
        for left in folder.glob(f"{mark.name}*"):
            left.unlink()
    problems = [f"{node['NodeManagerHostname']} {what}" for node, what in heard if what]
    if problems:
        raise ValueError(
            f"{folder} is not shared by all nodes: {'; '.join(problems)}. Mount one storage on "
            f"every node and name it in --out or {VARIABLE}"
        )


def answer(mark: Path, name: str) -> str | None:
    """Does on a node what runs do in their folders; returns what is wrong, or `None`.

    Args:
        mark: file that the driver wrote, its own name in it.
        name: of the node.
    """
    try:
        if mark.read_text() != mark.name:
            return "reads something else there"
        mine = mark.with_name(f"{mark.name}.{name}")
        partial = mine.with_name(f"{mine.name}.partial")
        partial.write_text(name[:1])
        os.replace(partial, mine)
        with mine.open("a") as file:
            file.write(name[1:])
    except FileNotFoundError:
        return "does not see what the driver wrote there"
    except OSError as error:
        return f"cannot replace and append to files there ({error.strerror})"
    return None


def reach(place: str, name: str) -> str | None:
    """Writes, reads and removes an object on a node; returns what is wrong, or `None`."""
    try:
        probe(place, f".seen-{name}")
    except (OSError, ValueError) as error:
        return first_line(error)
    return None


def _check_reached(place: str, nodes: Sequence[Mapping[str, Any]]) -> None:
    asked = [(node, _ask(node, reach, place)) for node in nodes]
    heard = [(node, _answered(reference)) for node, reference in asked]
    problems = [f"{node['NodeManagerHostname']}: {what}" for node, what in heard if what]
    if problems:
        raise ValueError(
            f"{place} is not reached by all nodes: {'; '.join(problems)}. Give every node the "
            "store's credentials and address (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...)"
        )


def _ask(node: Mapping[str, Any], question: Callable[[Any, str], str | None], about: Any) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    task = ray.remote(num_cpus=0, scheduling_strategy=there)(question)
    return task.remote(about, node["NodeID"])


def _answered(reference: Any) -> str | None:
    import ray

    try:
        return ray.get(reference, timeout=ANSWER_S)
    except ray.exceptions.RayError as error:
        return f"does not answer ({type(error).__name__})"


def _hear(node: Mapping[str, Any], reference: Any, mark: Path) -> str | None:
    """What is wrong on a node, also by what the driver sees of its answer."""
    problem = _answered(reference)
    if problem is not None:
        return problem
    written = mark.with_name(f"{mark.name}.{node['NodeID']}")
    if not written.is_file() or written.read_text() != node["NodeID"]:
        return "writes what the driver does not see"
    return None
