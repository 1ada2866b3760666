"""What a tracker is, and the trackers of a run, open while it trains."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Protocol

from moebius.config import Recipe
from moebius.distill.run_folder import RunFolder
from moebius.distill.tracking.mlflow import MlflowTracker
from moebius.distill.tracking.tensorboard import TensorBoardTracker
from moebius.distill.tracking.wandb import WandbTracker
from moebius.distill.world import World

logger = logging.getLogger(__name__)

Metrics = dict[str, float]
Track = Callable[[Metrics], None]
"""Told the metrics of a log interval, `step` among them."""


class Tracker(Protocol):
    """One run in one tracker; a run that resumes goes on in the same."""

    def log(self, metrics: Metrics) -> None:
        """Takes the metrics of a log interval."""

    def close(self, finished: bool) -> None:
        """Ends the run as finished, or as failed."""


TRACKERS: dict[str, Callable[[Recipe, RunFolder], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}


def check_trackers(names: Iterable[str]) -> None:
    """Refuses trackers that are not installed.

    Raises:
        ValueError: naming the package and how to install it.
    """
    for name in names:
        if find_spec(name) is None:
            raise ValueError(
                f"trackers: {name} is not installed: pip install 'moebius-inpainting[trackers]'"
            )


@contextmanager
def tracked(recipe: Recipe, folder: RunFolder, world: World) -> Iterator[Track]:
    """Opens the recipe's trackers on rank 0, elsewhere none; what happens inside ends them.

    A tracker that fails later does not stop the run, whose metrics are in its folder anyway.

    Raises:
        ValueError: a tracker is not installed, or refuses the run.
    """
    names = list[str](dict.fromkeys(recipe.trackers)) if world.rank == 0 else []
    check_trackers(names)
    trackers, finished = dict[str, Tracker](), False

    def log(metrics: Metrics) -> None:
        for name, tracker in trackers.items():
            _warned(name, partial(tracker.log, metrics))

    try:
        for name in names:
            trackers[name] = TRACKERS[name](recipe, folder)
        yield log
        finished = True
    finally:
        for name, tracker in trackers.items():
            _warned(name, partial(tracker.close, finished))


def _warned(name: str, call: Callable[[], None]) -> None:
    try:
        call()
    except Exception as error:
        logger.warning("tracker %s: %s: %s", name, type(error).__name__, error)
