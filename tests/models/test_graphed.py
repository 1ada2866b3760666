"""Recording and replaying, with a recorder that stands in for CUDA's where there is none."""

import pytest
import torch

from moebius.models import graphed
from moebius.models.graphed import GRAPHS, Graphed


def step(sample, timesteps, context):
    noise = sample * timesteps[:, None] + context
    return noise, {"mid": noise + 1}, [noise + 2]


class Replayed:
    """Runs the function again at every replay, as a graph does with its own inputs."""

    def __init__(self, run, sample, timesteps, context):
        self.run, self.context = run, context

    def replay(self, sample, timesteps):
        return self.run(sample, timesteps, self.context)


class OnGpu(torch.Tensor):
    is_cuda = True


def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="CUDA device"):
        Graphed(step)(torch.ones(1, 2), torch.ones(1), torch.ones(2))


def test_a_recording_belongs_to_a_shape_and_a_context(monkeypatch) -> None:
    monkeypatch.setattr(graphed, "_Recording", Replayed)
    run, contexts = Graphed(step), [torch.zeros(2), torch.ones(2)]
    for _ in range(2):
        for context in contexts:
            for batch in (1, 3):
                sample = torch.ones(batch, 2).as_subclass(OnGpu)
                noise, _, _ = run(sample, torch.full((batch,), 2.0), context)
                assert torch.equal(noise.as_subclass(torch.Tensor), sample * 2 + context)
    assert len(run.recordings) == 4
    for _ in range(GRAPHS):
        contexts.append(torch.zeros(2))
        run(torch.ones(1, 2).as_subclass(OnGpu), torch.ones(1), contexts[-1])
    assert len(run.recordings) <= GRAPHS


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_replay_is_the_function() -> None:
    run = Graphed(step)
    context, outputs = torch.randn(2, device="cuda"), []
    inputs = [(torch.randn(3, 2, device="cuda"), torch.randn(3, device="cuda")) for _ in range(3)]
    for given in inputs:
        outputs.append(run(*given, context))
    for given, (noise, features, border) in zip(inputs, outputs, strict=True):
        expected = step(*given, context)
        torch.testing.assert_close(noise, expected[0])
        torch.testing.assert_close(features, expected[1])
        torch.testing.assert_close(border, expected[2])
