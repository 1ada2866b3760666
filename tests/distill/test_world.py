"""Two workers with half the batch each take the step of one worker with the whole."""

import subprocess
import sys
from pathlib import Path

import torch

from moebius.distill.run_folder import RunFolder
from moebius.distill.world import World

SPARE = """
import sys
import torch
from torch import distributed
from moebius.distill.world import World

rank, store = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=3)
world = World.current(lambda there: there - 1)
assert (world.rank, world.size, world.spare) == (rank, 2, rank == 2)
if not world.spare:
    world.barrier()
    assert world.mean(torch.tensor(float(rank))).item() == 0.5
    layer = world.wrap(torch.nn.Linear(1, 1, bias=False))
    layer(torch.full((1, 1), float(rank))).sum().backward()
    assert layer.module.weight.grad.item() == 0.5
"""
SCRIPT = Path(__file__).with_name("two_workers.py")


def run_workers(size: int, folder: Path) -> list[tuple[dict, dict]]:
    folder.mkdir()
    commands = [[sys.executable, SCRIPT, str(rank), str(size), folder] for rank in range(size)]
    workers = [subprocess.Popen(command) for command in commands]
    assert [worker.wait(timeout=200) for worker in workers] == [0] * size
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(size)]


def test_two_workers_take_the_same_step_as_one(tmp_path: Path) -> None:
    ((_, alone),) = run_workers(1, tmp_path / "one")
    (weights_0, gradients_0), (weights_1, _) = run_workers(2, tmp_path / "two")
    assert all(torch.equal(weights_0[key], weights_1[key]) for key in weights_0)
    # Biases before a norm have no gradient but rounding: errors count against the whole, too.
    whole = torch.stack([gradient.norm() for gradient in alone.values()]).norm()
    for key, expected in alone.items():
        error = (gradients_0[key] - expected).norm()
        assert error < 1e-4 * expected.norm() + 1e-6 * whole, key
    one, two = (RunFolder(tmp_path / name / "run").read_metrics() for name in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        for key in a:
            if key.split("/")[0] in ("loss", "weight", "norm", "grad_norm"):
                assert abs(a[key] - b[key]) < 1e-4 * abs(a[key]) + 1e-7, key


def test_one_process_is_a_world() -> None:
    world = World.current()
    assert (world.rank, world.size) == (0, 1)
    module = torch.nn.Linear(2, 2)
    assert world.wrap(module) is module
    assert world.mean(torch.tensor(3.0)).item() == 3.0
    assert not world.spare


def test_a_spare_worker_has_no_part_and_is_not_waited_for(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SPARE]
    workers = [subprocess.Popen([*command, str(rank), tmp_path / "store"]) for rank in range(3)]
    assert [worker.wait(timeout=200) for worker in workers] == [0, 0, 0]
