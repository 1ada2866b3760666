"""The pool of actors: what a cluster must have for it."""

from pathlib import Path

import pytest
import torch

from moebius import encode, evaluate, pool
from moebius.config import Scoring
from moebius.evaluation.methods import MeanMethod
from moebius.pool import Actor, fit_pool, pick_device
from moebius.recipes import read_recipe


def test_a_pool_that_does_not_fit_is_refused_before_it_waits():
    fit_pool(3, 0, {"CPU": 4.0})
    fit_pool(2, 1, {"CPU": 4.0, "GPU": 2.0})
    with pytest.raises(ValueError, match=r"4 workers need 5 CPUs.*use at most --workers 3"):
        fit_pool(4, 0, {"CPU": 4.0})
    with pytest.raises(ValueError, match="work in this process"):
        fit_pool(1, 0, {"CPU": 1.0})
    with pytest.raises(ValueError, match="a GPU each, the cluster has 1"):
        fit_pool(2, 1, {"CPU": 4.0, "GPU": 1.0})


def test_actors_with_loaders_take_more_cores():
    fit_pool(2, 0, {"CPU": 7.0}, cpus=3)
    with pytest.raises(ValueError, match=r"2 workers need 7 CPUs.*use at most --workers 1"):
        fit_pool(2, 0, {"CPU": 6.0}, cpus=3)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto", on_ray=False) == "cpu"
    with pytest.raises(ValueError, match="device cuda is not available"):
        pick_device("cuda", on_ray=False)


@pytest.mark.parametrize("error", [ValueError("no picture"), TimeoutError("it hangs")])
def test_a_worker_passes_on_what_it_refuses_and_nothing_else(error: Exception):
    """Ray would wrap it into pages; here it comes back as it was said."""

    def make(job: Exception):
        def work(row):
            if row["bad"]:
                raise job
            return {"count": 1}

        return work

    actor = Actor(make, error)
    hangs = isinstance(error, TimeoutError)
    assert actor({"bad": False}) == {"count": 1, "refused": "", "hangs": False}
    assert actor({"bad": True}) == {"refused": str(error), "hangs": hangs}
    with pytest.raises(KeyError):
        Actor(make, KeyError("a fault of ours"))({"bad": True})


PAGES = """\x1b[36mray::MapWorker(Map(Actor)).submit()\x1b[39m (pid=1, ip=192.0.2.2)
  File "worker.py", line 3, in work
    raise RuntimeError("of our own")
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB

The above exception was the direct cause of the following exception:

ray.data.exceptions.UserCodeException: Failed to process the following data block

To change retry attempts, configure `ray.data.DataContext.get_current()`."""


def test_what_a_worker_raised_is_found_among_what_ray_says():
    assert pool._reason(RuntimeError(PAGES)) == (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    )
    assert pool._reason(RuntimeError("The actor died.\nIts node is gone.")) == "Its node is gone."


def test_workers_that_do_not_see_the_folder_are_found_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(folder: Path) -> None:
        raise ValueError(f"{folder} is not shared by all nodes")

    for door in (encode, evaluate):
        monkeypatch.setattr(door, "pick_device", lambda name, on_ray: "cpu")
        monkeypatch.setattr(door, "check_shared", refuse)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=f"{out} is not shared"):
        encode.encode(read_recipe("builtin"), str(out), workers=2)
    with pytest.raises(ValueError, match=f"{out} is not shared"):
        evaluate.evaluate(MeanMethod("mean"), Scoring(limit=1), out, workers=2)
    assert not out.exists()
    assert evaluate.evaluate(MeanMethod("mean"), Scoring(limit=1), out)["metrics"]
