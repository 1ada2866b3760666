"""What doors share on Ray Data: rows worked through by a pool of actors."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch

from moebius.restarts import last_line
from moebius.train import start_ray

MAX_BLOCKS = 1024
"""Of Ray Data; a row is seen as done when its block is."""

REFUSED = "refused"
"""Key of a row: why its worker did nothing."""

RAISED = re.compile(r"\s*(?!ray\.)[A-Za-z_][\w.]*(Error|Exception|Interrupt)(: |$)")
"""How the last line of a traceback begins."""

Row = dict[str, Any]


def pick_device(name: str, on_ray: bool) -> Literal["cpu", "cuda"]:
    """Where work is done: `auto` is CUDA where this machine, or the cluster, has it.

    Raises:
        ValueError: CUDA is asked for and not there.
    """
    there = torch.cuda.is_available()
    if on_ray:
        start_ray()
        import ray

        there = ray.cluster_resources().get("GPU", 0) > 0
    if name == "cuda" and not there:
        raise ValueError("device cuda is not available here: use --device auto")
    return "cuda" if there and name != "cpu" else "cpu"


def work_through(
    worker: Callable[[Any], Callable[[Row], Row]],
    job: Any,
    rows: Sequence[Row],
    workers: int,
    device: str,
    cpus: int = 1,
) -> Iterator[Mapping[str, Any]]:
    """Has a pool of actors work through rows; what they make of them, in any order.

    Args:
        worker: built once an actor, from the job.
        job: it travels to the actors.
        rows: what is to do.
        workers: actors.
        device: `cuda` gives each a GPU.
        cpus: of each actor.

    Raises:
        ValueError: the cluster is too small, or a worker met bad input.
        TimeoutError: a worker met a file that hangs.
        RuntimeError: a worker failed.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    gpus = 1 if device == "cuda" else 0
    fit_pool(workers, gpus, ray.cluster_resources(), cpus)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    DataContext.get_current().enable_progress_bars = False
    data = ray.data.from_items(list(rows), override_num_blocks=min(len(rows), MAX_BLOCKS)).map(
        Actor,
        fn_constructor_args=(worker, job),
        compute=ActorPoolStrategy(size=workers),
        num_cpus=cpus,
        num_gpus=gpus,
    )
    try:
        for row in data.iter_rows():
            if row[REFUSED]:
                raise (TimeoutError if row["hangs"] else ValueError)(row[REFUSED])
            yield row
    except ray.exceptions.RayError as error:
        raise RuntimeError(_reason(error)) from error


def _reason(error: BaseException) -> str:
    """What a worker raised: Ray Data closes its pages with advice of its own."""
    raised = [line.strip() for line in str(error).splitlines() if RAISED.match(line)]
    return raised[-1] if raised else last_line(error)


class Actor:
    """A worker whose word on its input comes back whole: Ray would wrap it into pages."""

    def __init__(self, worker: Callable[[Any], Callable[[Row], Row]], job: Any) -> None:
        self.work = worker(job)

    def __call__(self, row: Row) -> Row:
        """What the worker makes of a row, or why it does not."""
        try:
            return {**self.work(row), REFUSED: "", "hangs": False}
        except (ValueError, TimeoutError) as error:
            return {REFUSED: str(error), "hangs": isinstance(error, TimeoutError)}


def fit_pool(workers: int, gpus: int, total: Mapping[str, float], cpus: int = 1) -> None:
    """Refuses a pool that the cluster cannot hold beside Ray Data's own core: it would wait."""
    there, gpus_there = int(total.get("CPU", 0)), int(total.get("GPU", 0))
    if workers * cpus + 1 > there:
        most = (there - 1) // cpus
        fitting = f"use at most --workers {most}" if most > 0 else "work in this process"
        raise ValueError(
            f"{workers} workers need {workers * cpus + 1} CPUs, one of them for Ray Data; the "
            f"cluster has {there}: {fitting}"
        )
    if gpus * workers > gpus_there:
        raise ValueError(
            f"{workers} workers need a GPU each, the cluster has {gpus_there}: use fewer workers"
        )
