"""Runs and sweeps in processes of their own that are killed at a chosen point.

They are forked from a server that has imported moebius once, so a kill costs no new start.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "shutil.copyfile"}
"""Events of Python's audit that change files."""
CONTEXT.set_forkserver_preload(["moebius.torchvision_schemas", "moebius.tune"])
KILLED = -9
"""Exit code of what was killed."""

QUICKSTART = Path(__file__).parents[1] / "ablations" / "quickstart.yaml"
SHRUNKEN = (
    "recipe.model={widths: [8, 8, 16], norm_groups: 8, heads: 4, lcg_dim: 16, context_dim: 8, "
    "latent_size: 8}",
    "recipe.teacher.train={model: {widths: [8, 8, 16, 16]}, training: {steps: 4}}",
    "recipe.data={size: 64, short_side: [64, 96], cache: 16}",
    "recipe.training={steps: 6, global_batch: 4, log_every: 2, checkpoint_every: 2}",
    "recipe.validation={pairs: 2, steps: 2, pictures: 2}",
    "promote.overrides={training.steps: 10}",
)
"""Overrides that make it seconds long."""


def start_apart(target: Callable[..., None], *args: Any) -> Any:
    """Calls in a process of its own."""
    process = CONTEXT.Process(target=target, args=args)
    process.start()
    return process


def run_apart(target: Callable[..., None], *args: Any) -> int:
    """Calls in a process of its own; returns its exit code, -9 where it was killed."""
    process = start_apart(target, *args)
    process.join()
    return process.exitcode


def train(
    recipe: dict[str, Any], folder: Path, kill_step: int | None = None, kill_sync: int | None = None
) -> None:
    """Trains; killed in a step, or at so many of its checkpoints' `fsync`s, counted from 1.

    Every step that is taken is added to `steps.txt`.
    """
    from moebius.assembly import train_run
    from moebius.distill.trainer import Trainer
    from moebius.recipes import read_recipe

    plain_rate, plain_sync, syncs = Trainer._set_learning_rate, os.fsync, [0]

    def rate(self: Trainer) -> float:
        with (folder.parent / f"{folder.name}-steps.txt").open("a") as file:
            file.write(f"{self.step + 1}\n")
        if self.step + 1 == kill_step:  # the gradients are there, the update is not
            os.kill(os.getpid(), signal.SIGKILL)
        return plain_rate(self)

    def sync(descriptor: int) -> None:
        syncs[0] += 1
        if syncs[0] == kill_sync:
            os.kill(os.getpid(), signal.SIGKILL)
        plain_sync(descriptor)

    Trainer._set_learning_rate = rate  # type: ignore[method-assign]
    os.fsync = sync  # type: ignore[assignment]
    train_run(read_recipe(recipe), folder, folder.parent)


def sweep(path: Path, overrides: tuple[str, ...], out: Path, kill: int | str = 0) -> None:
    """Runs a sweep in one process, killed at a change to files under its folder.

    Args:
        path: the sweep's file.
        overrides: of its keys.
        out: its folder; how many changes there were is left in `changes.txt` beside it.
        kill: before which change: the so-manieth, counted from 1, or the first whose path has
            this text.
    """
    from moebius.tune import Options, main

    count, root = [0], str(out.absolute())

    def watch(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[1], str) and args[1][:1] in "wax"
        if not (writes or event in CHANGES) or not str(args[0]).startswith(root):
            return
        count[0] += 1
        if count[0] == kill or (isinstance(kill, str) and kill in str(args[0])):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    main(Options(path, overrides, out=out, in_process=True))
    (out.parent / "changes.txt").write_text(str(count[0]))


def hang(folder: Path, limit: float) -> None:
    """A trial that logs one step and then hangs."""
    from moebius.distill.run_folder import RunFolder
    from moebius.sweeps.stalls import ends_when_stalled

    folder.mkdir()
    with ends_when_stalled(folder, limit):
        RunFolder(folder).log({"step": 2})
        time.sleep(600)


# --- what a run or sweep has left ---------------------------------------------------------------


def weights(folder: Path) -> bytes:
    """Of the model that a run or sweep has left."""
    return (folder / "model" / "denoiser" / "diffusion_pytorch_model.safetensors").read_bytes()


def outcome(out: Path) -> dict[str, bytes]:
    """What a sweep is run for: its table, and the promoted weights."""
    return {"table": (out / "results.csv").read_bytes(), "weights": weights(out)}


def logged(out: Path) -> int:
    """Lines that the runs of a sweep have logged: 16 of the shrunken one, two in its promotion."""
    return sum(len(path.read_text().splitlines()) for path in out.rglob("metrics.jsonl"))
