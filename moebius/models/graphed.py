"""A U-Net through CUDA graphs: a step is launched as a whole instead of kernel by kernel."""

from collections.abc import Callable

import torch
from torch import Tensor

GRAPHS = 8
"""Recordings that are kept, each with its own memory."""
WARM_UP = 3
"""Runs before the recording, in which libraries choose their kernels and contexts are kept."""

Outputs = tuple[Tensor, dict[str, Tensor], list[Tensor]]
Run = Callable[[Tensor, Tensor, Tensor], Outputs]


class Graphed:
    """Records a function once for each shape and context, and replays it from then on.

    Args:
        run: takes sample (B, C, H, W), timesteps (B,) and context; see `UNet.forward`. What it
            computes of a context it may keep, so that a recording belongs to one context.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.recordings: dict[tuple[torch.Size, torch.dtype, int], _Recording] = {}

    def __call__(self, sample: Tensor, timesteps: Tensor, context: Tensor) -> Outputs:
        """As the function; raises a RuntimeError without a CUDA device."""
        if not sample.is_cuda:
            raise RuntimeError("they need a CUDA device")
        key = (sample.shape, sample.dtype, id(context))
        if key not in self.recordings:
            if len(self.recordings) == GRAPHS:
                self.recordings.clear()
            self.recordings[key] = _Recording(self.run, sample, timesteps, context)
        return self.recordings[key].replay(sample, timesteps)


class _Recording:
    def __init__(self, run: Run, sample: Tensor, timesteps: Tensor, context: Tensor) -> None:
        self.context = context  # the graph reads it, and its id names the recording
        self.inputs = sample.clone(), timesteps.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                run(*self.inputs, context)
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = run(*self.inputs, context)

    def replay(self, sample: Tensor, timesteps: Tensor) -> Outputs:
        for kept, new in zip(self.inputs, (sample, timesteps), strict=True):
            kept.copy_(new)
        self.graph.replay()
        noise, features, border = self.outputs  # overwritten by the next replay
        copies = {name: feature.clone() for name, feature in features.items()}
        return noise.clone(), copies, [tensor.clone() for tensor in border]
