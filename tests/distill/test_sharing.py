"""Muon's work shared by two workers: each matrix once, the results those of one worker."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from moebius.distill.sharing import gather, share_out
from moebius.distill.world import World

sys.path.insert(0, str(Path(__file__).parent))
from shared_muon import SHAPES, STEPS, make, take_steps

SCRIPT = Path(__file__).with_name("shared_muon.py")


@pytest.fixture(scope="module")
def workers(tmp_path_factory) -> list[tuple[list, dict[str, Any], int]]:
    """Weights, optimiser state and count of each of two."""
    folder = tmp_path_factory.mktemp("muon")
    started = [
        subprocess.Popen([sys.executable, SCRIPT, str(rank), "2", folder]) for rank in range(2)
    ]
    assert [worker.wait(timeout=200) for worker in started] == [0, 0]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_workers_update_as_one_does(workers) -> None:
    parameters, optimizer = make(None)
    take_steps(parameters, optimizer, range(STEPS))
    for weights, _, _ in workers:
        for a, b in zip(weights, parameters, strict=True):
            torch.testing.assert_close(a, b.detach(), rtol=0, atol=1e-6)
    assert all(a.equal(b) for a, b in zip(workers[0][0], workers[1][0], strict=True))


def test_each_matrix_is_orthogonalised_once(workers) -> None:
    counts = [count for _, _, count in workers]
    assert sum(counts) == STEPS * len(SHAPES) and min(counts) > 0


def test_another_number_of_workers_goes_on_from_a_saved_state(workers) -> None:
    weights, state, _ = workers[0]
    straight, optimizer = make(None)
    take_steps(straight, optimizer, range(STEPS + 1))
    resumed, optimizer = make(None)
    for parameter, saved in zip(resumed, weights, strict=True):
        parameter.data.copy_(saved)
    optimizer.load_state_dict(state)
    take_steps(resumed, optimizer, range(STEPS, STEPS + 1))
    for a, b in zip(resumed, straight, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_loads_are_close() -> None:
    costs = [1.0, 9.0, 4.0, 4.0, 1.0, 8.0, 1.0]
    owners = share_out(costs, 3)
    loads = [sum(c for c, o in zip(costs, owners, strict=True) if o == w) for w in range(3)]
    assert sorted(loads) == [9.0, 9.0, 10.0]
    assert share_out(costs, 1) == [0] * 7 and share_out([], 2) == []


def test_alone_there_is_nothing_to_gather() -> None:
    piece = torch.ones(2, 3)
    alone = World(0, 1, torch.device("cpu"))
    assert gather(alone, {0: piece}, [0], [piece.shape], piece.dtype)[0] is piece


def test_spare_workers_are_left_out_of_the_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        "moebius.distill.sharing.distributed.all_gather_into_tensor",
        lambda *tensors, group=None: asked.append(group),
    )
    working: Any = object()
    piece, world = torch.ones(2, 3), World(0, 2, torch.device("cpu"), working)
    gather(world, {0: piece}, [0, 1], [piece.shape, piece.shape], piece.dtype)
    assert asked == [working]
