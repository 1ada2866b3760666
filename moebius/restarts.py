"""A run on Ray Train goes on when a process of it is lost: a worker, the controller, a node.

Ray's own retry is off: it says nothing, retries what Python raises, and is the controller's.
"""

import re
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from moebius.data.copies import is_copy, names_there
from moebius.distill.checkpoints import (
    MANIFEST,
    NotSaved,
    checkpoint_step,
    newest_checkpoint,
)

RESTARTS = 3
"""Times that a run is started again without a new checkpoint in between."""
WAIT_S = 600.0
"""How long a run waits for a lost node to come back."""
POLL_S = 2.0
FINAL = (ValueError, FloatingPointError, TimeoutError, NotSaved)
"""What would be raised again: bad input, not a number, a picture that hangs, a full disk."""


def fit(make_trainer: Callable[[], Any], checkpoints: Path) -> None:
    """Fits a trainer, and a new one each time that a process is lost, from the last checkpoint.

    Args:
        make_trainer: makes the trainer for the cluster as it is; a ValueError says that the
            cluster is too small for it.
        checkpoints: folder of the run's.

    Raises:
        RuntimeError: the run failed by itself, or was lost too often.
    """
    console, lost, restarts = Console(stderr=True), "", 0
    reached = newest_step(checkpoints)
    while True:
        trainer = make_trainer() if not lost else _once_there_is_room(make_trainer, console)
        again = _fit_once(trainer)
        if again is None:
            return
        lost, step = again, newest_step(checkpoints)
        restarts = restarts + 1 if step == reached else 1
        reached = step
        if restarts > RESTARTS:
            raise RuntimeError(
                f"{lost}; given up after {RESTARTS} restarts without a new checkpoint: the same "
                f"command goes on from step {step}"
            )
        console.print(f"{lost}; going on from step {step}", highlight=False, soft_wrap=True)
        time.sleep(POLL_S)
        _release_groups()


def last_line(error: BaseException | str) -> str:
    """The last line of the innermost failure that Ray wrapped, or of what was said of one."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _fit_once(trainer: Any) -> str | None:
    """`None` once a run has ended well, or what was lost."""
    from ray.exceptions import OutOfMemoryError, RayActorError
    from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

    try:
        trainer.fit()
    except RayActorError:
        return "the run's controller was lost"
    except OutOfMemoryError:  # its text is a page
        return "Ray ended the run's controller, as its node runs out of memory"
    except ControllerError as error:
        return f"the run's workers did not start ({last_line(error.controller_failure)})"
    except WorkerGroupError as error:
        return _what_workers_met(error.worker_failures)
    return None


def _what_workers_met(failures: dict[int, Exception]) -> str:
    """What was lost.

    Raises:
        RuntimeError: nothing was lost; the message is the worker's.
    """
    from ray.exceptions import RayError
    from ray.train.v2.api.exceptions import RayTrainError

    raised, lost = list[Exception](), list[int]()
    for rank, failure in sorted(failures.items()):
        # What a worker raises comes as it is, though in the worker Ray wraps it.
        if isinstance(failure, (RayTrainError, RayError)):
            lost.append(rank)
        else:
            raised.append(failure)
    for failure in raised:
        # Before what its peers raise because of it, and because they lost a peer.
        if isinstance(failure, FINAL):
            raise RuntimeError(last_line(failure)) from failure
    if not lost:
        said = "".join(traceback.format_exception_only(raised[0]))
        raise RuntimeError(last_line(said)) from raised[0]
    return f"worker {', '.join(map(str, lost))} of the run was lost"


def _once_there_is_room(make_trainer: Callable[[], Any], console: Console) -> Any:
    """A trainer, as soon as the cluster has what it needs again."""
    deadline, said = time.monotonic() + WAIT_S, False
    while True:
        try:
            return make_trainer()
        except ValueError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"no node came back in {WAIT_S:g} s: {error}") from error
            if not said:
                console.print(f"waiting for a node: {error}", highlight=False, soft_wrap=True)
            said = True
        time.sleep(POLL_S)


def _release_groups() -> None:
    """Frees what dead actors of this job had reserved: a lost controller's cores and GPUs.

    Ray's own cleaner of them is an actor beside the controller, and may not notice (Ray 2.60).
    """
    import ray
    from ray._private.state import state
    from ray._raylet import PlacementGroupID
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    job = ray.get_runtime_context().get_job_id()
    for record in state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(record)
        removed = group.state == PlacementGroupTableData.REMOVED
        if group.creator_actor_dead and group.creator_job_id.hex() == job and not removed:
            remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))


def whole_there(checkpoints: Path) -> list[Path]:
    """Checkpoints that an object store has the manifest of, which is published last."""
    names = [Path(name) for name in names_there(checkpoints)]
    steps = [name.parent for name in names if name.name == MANIFEST]
    return [checkpoints / step for step in steps if re.fullmatch(r"step_\d+", str(step))]


def newest_step(checkpoints: Path) -> int:
    """Of the newest whole checkpoint, 0 before the first.

    A damaged one is named in the log of this process, a worker's is far.
    """
    if is_copy(checkpoints):  # they stay in the store
        return max((checkpoint_step(path) for path in whole_there(checkpoints)), default=0)
    newest = newest_checkpoint(checkpoints)
    return 0 if newest is None else checkpoint_step(newest)
