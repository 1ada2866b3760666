"""A run on Ray goes on by itself when a worker, its controller or a node is lost."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moebius import restarts
from moebius.assembly import train_run
from moebius.data.copies import bring, open_place
from moebius.distill.checkpoints import NotSaved, write_checkpoint
from moebius.recipes import read_recipe

pytest.importorskip("ray")
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

PLUGIN = '''
"""Kills {victim} once, with the gradients of step 4 there and its update not."""
import os, shutil, signal, time
from pathlib import Path
from moebius.distill.trainer import Trainer

STEPS, plain = Path({steps!r}), Trainer._set_learning_rate

def siblings(title):
    """Processes of this node's Ray by their title: another Ray may run beside."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getppid() and title in (folder / "cmdline").read_text():
                yield int(folder.name)
        except OSError:
            continue

def rate(self):
    first = not STEPS.exists() or "\\n4 " not in STEPS.read_text()
    with STEPS.open("a") as file:
        file.write(f"{{self.step + 1}} {{time.time()}}\\n")
    if first and self.step + 1 == 4:
        if {wipes!r}:  # as when the node's disk goes with it
            shutil.rmtree(Path(os.environ["MOEBIUS_COPIES"]) / "worker")
        if {victim!r} == "worker":
            os.kill(os.getpid(), signal.SIGKILL)
        if {victim!r} == "node":
            os.kill(os.getppid(), signal.SIGKILL)
        else:
            (controller,) = siblings("TrainController")
            os.kill(controller, signal.SIGKILL)
        time.sleep(600)  # Ray ends who has lost its owner or its node
    return plain(self)

Trainer._set_learning_rate = rate
'''


NODES = """
import os, sys
from pathlib import Path
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
for _ in range(2):
    own = {"MOEBIUS_COPIES": f"{sys.argv[3]}/node{_}"}  # a node's own disk
    cluster.add_node(num_cpus=1, env_vars=own)
os.environ["RAY_ADDRESS"] = cluster.address

from moebius.console import guard
from moebius.train import Options, main

guard(lambda: main(Options(recipe=sys.argv[1], out=sys.argv[2], cpus_per_worker=1)))
"""
"""A head without cores, two nodes with one, and a run by the door."""


@pytest.mark.ray
@pytest.mark.parametrize(
    ("victim", "lost", "kept"),
    [
        ("worker", "worker 0 of the run was lost", "folder"),
        pytest.param("worker", "worker 0 of the run was lost", "bucket", marks=pytest.mark.slow),
        ("controller", "the run's controller was lost", "folder"),
        pytest.param("node", "worker 0 of the run was lost", "folder", marks=pytest.mark.slow),
        pytest.param("node", "worker 0 of the run was lost", "bucket", marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(600)
def test_a_run_goes_on_when_a_process_of_it_is_killed(
    tiny_recipe, write_yaml, tmp_path: Path, request, monkeypatch, victim: str, lost: str, kept: str
) -> None:
    """Kept in a bucket it goes on where nothing of it lies: the killed one's disk is gone, too."""
    disks, in_bucket = tmp_path / "disks", kept == "bucket"
    monkeypatch.setenv("MOEBIUS_COPIES", str(disks))
    recipe = {**tiny_recipe, "distill": {"losses": ["task"]}}
    train_run(read_recipe(recipe), tmp_path / "undisturbed", tmp_path)
    steps, run = tmp_path / "steps.txt", str(tmp_path / "run")
    if in_bucket:
        run = request.getfixturevalue("bucket").format(f"{victim}/run")
    plugin = PLUGIN.format(victim=victim, steps=str(steps), wipes=in_bucket)
    (tmp_path / "kills_once.py").write_text(plugin)
    path = write_yaml("killed.yaml", {**recipe, "plugins": ["kills_once"]})
    search = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    door = ["-m", "moebius.train", "--recipe", path, "--out", run]
    done = subprocess.run(
        [sys.executable, *(["-c", NODES, path, run, disks] if victim == "node" else door)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(search),
            "RAY_memory_monitor_refresh_ms": "0",  # what else runs here must not decide
        },
        timeout=590,
    )
    assert "PSNR in the hole" in done.stderr, done.stderr
    # Ray's `Cluster` itself exits with 1 once a node of it has died.
    assert done.returncode == (1 if victim == "node" else 0), done.stderr
    notices = [line for line in done.stderr.splitlines() if "going on from step" in line]
    assert notices == [f"{lost}; going on from step 2"]
    taken = [line.split() for line in steps.read_text().splitlines()]
    assert [int(step) for step, _ in taken] == [1, 2, 3, 4, 3, 4, 5, 6]
    print(f"{victim}: back in step 3 after {float(taken[4][1]) - float(taken[3][1]):.1f} s")
    saved = "model/denoiser/diffusion_pytorch_model.safetensors"
    folder = bring(open_place(run, "driver"))
    assert (folder / saved).read_bytes() == (tmp_path / "undisturbed" / saved).read_bytes()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_picture_that_hangs_in_a_loader_ends_the_run_in_one_line(
    tiny_recipe, write_yaml, tmp_path: Path
) -> None:
    """What a worker raises is no loss of it: by the door, from a loader's process."""
    os.mkfifo(tmp_path / "pipe.png")
    manifest = tmp_path / "photographs.jsonl"
    manifest.write_text('{"image": "pipe.png", "category": "background"}')
    data = {"source": str(manifest), "cache": 0, "workers": 1, "timeout_s": 2}
    recipe = {**tiny_recipe, "distill": {"losses": ["task"]}}
    recipe["data"] = {**tiny_recipe["data"], **data}
    path, run = write_yaml("hung.yaml", recipe), tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", "moebius.train", "--recipe", path, "--out", run],
        capture_output=True,
        text=True,
        timeout=590,
    )
    reason = (
        f"TimeoutError: reading pipe.png ({tmp_path / 'pipe.png'}; data.timeout_s is the limit) "
        "takes longer than 2 s"
    )
    assert done.returncode == 1 and "lost" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1] == f"failed: {reason}"
    assert (run / "error.txt").read_text().splitlines()[-1] == reason


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """No cluster and no waiting; what would be freed is counted."""
    calls: list[bool] = []
    monkeypatch.setattr(restarts, "POLL_S", 0.0)
    monkeypatch.setattr(restarts, "_release_groups", lambda: calls.append(True))
    return calls


class Fits:
    """Trainers whose fits end as told, one after the other."""

    def __init__(self, *ends: Exception | None) -> None:
        self.ends, self.made = list(ends), 0

    def __call__(self) -> Any:
        self.made += 1
        return SimpleNamespace(fit=self.fit)

    def fit(self) -> None:
        end = self.ends.pop(0)
        if end is not None:
            raise end


def lost(*ranks: int, **raised: Exception) -> WorkerGroupError:
    failures: dict[int, Exception] = {
        rank: WorkerHealthCheckFailedError("gone", failure=ActorDiedError()) for rank in ranks
    }
    failures |= {int(name[1:]): error for name, error in raised.items()}
    return WorkerGroupError("...", failures)


def test_what_is_lost_is_named_and_counted_anew_after_a_checkpoint(
    tmp_path: Path, capsys, released
) -> None:
    def save(step: int) -> Exception:
        write_checkpoint(tmp_path, step, {}, keep=9)
        return ActorDiedError()

    fits = Fits(lost(1), ControllerError(RuntimeError("no room")), ActorDiedError(), None)
    restarts.fit(fits, tmp_path)
    assert fits.made == 4 and len(released) == 3
    assert capsys.readouterr().err.splitlines() == [
        "worker 1 of the run was lost; going on from step 0",
        "the run's workers did not start (no room); going on from step 0",
        "the run's controller was lost; going on from step 0",
    ]
    restarts.fit(Fits(OutOfMemoryError("a\npage"), None), tmp_path)
    assert "out of memory; going on from step 0" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="given up after 3 restarts .* goes on from step 0"):
        restarts.fit(Fits(*[ActorDiedError()] * 4), tmp_path)

    class Saves(Fits):
        def fit(self) -> None:
            save(10 * (7 - len(self.ends)))
            super().fit()

    restarts.fit(Saves(*[ActorDiedError()] * 6, None), tmp_path)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (lost(r0=ValueError("no data at x")), "no data at x"),
        (lost(r0=KeyError("x")), "KeyError: 'x'"),
        (
            lost(r0=TimeoutError("Caught in process 0.\nstack\nOSError: it hangs")),
            "OSError: it hangs",
        ),
        # A worker that stops by itself ends the others, too: its word counts.
        (lost(0, r1=NotSaved("disk")), "disk"),
        (lost(r0=RuntimeError("peer closed"), r1=FloatingPointError("nan")), "nan"),
    ],
)
def test_what_python_raises_is_not_tried_again(tmp_path: Path, error, said: str) -> None:
    fits = Fits(error)
    with pytest.raises(RuntimeError, match=f"^{re.escape(said)}$"):
        restarts.fit(fits, tmp_path)
    assert fits.made == 1


def test_who_lost_a_peer_is_tried_again(tmp_path: Path, capsys, released) -> None:
    restarts.fit(Fits(lost(1, r0=RuntimeError("connection closed by peer")), None), tmp_path)
    assert "worker 1 of the run was lost" in capsys.readouterr().err


def test_a_run_waits_until_the_cluster_has_room_again(
    tmp_path: Path, capsys, monkeypatch, released
) -> None:
    fits, refusals = Fits(lost(0), None), [None, "3 workers do not fit", "3 do not fit", None]

    def make() -> Any:
        refusal = refusals.pop(0)
        if refusal is not None:
            raise ValueError(refusal)
        return fits()

    restarts.fit(make, tmp_path)
    assert refusals == []
    assert "waiting for a node: 3 workers do not fit" in capsys.readouterr().err
    monkeypatch.setattr(restarts, "WAIT_S", -1.0)
    refusals[:] = [None, "3 workers do not fit"]
    fits.ends[:] = [lost(0)]
    with pytest.raises(RuntimeError, match="no node came back .* 3 workers do not fit"):
        restarts.fit(make, tmp_path)


def test_a_cluster_that_is_too_small_is_refused_at_once(tmp_path: Path) -> None:
    def make() -> Any:
        raise ValueError("2 workers do not fit")

    with pytest.raises(ValueError, match="do not fit"):
        restarts.fit(make, tmp_path)
