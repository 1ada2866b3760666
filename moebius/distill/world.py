"""The workers of a run: one process, or a `torch.distributed` group that Ray Train started."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device
    group: distributed.ProcessGroup | None = None
    """Of the first `size` workers; `None` is all of them."""

    @classmethod
    def current(cls, usable: Callable[[int], int] = lambda there: there) -> "World":
        """The process group that is initialised, else one process; a CUDA device where it is.

        Args:
            usable: of the workers that are there, how many can share the work. Those beyond, the
                last ones, are spare.
        """
        grouped = distributed.is_available() and distributed.is_initialized()
        rank = distributed.get_rank() if grouped else 0
        there = distributed.get_world_size() if grouped else 1
        size = usable(there)
        # Every worker must take part in making a group, the spare ones too.
        group = distributed.new_group(list(range(size))) if size < there else None
        device = torch.device("cpu")
        if torch.cuda.is_available():
            index = int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count()
            device = torch.device("cuda", index)
        return cls(rank, size, device, group)

    @property
    def spare(self) -> bool:
        """Whether this worker has no part in the work; it must not wait for the others."""
        return self.rank >= self.size

    def mean(self, tensor: Tensor) -> Tensor:
        """The tensor averaged over the workers."""
        if self.size == 1:
            return tensor
        summed = tensor.clone()
        distributed.all_reduce(summed, group=self.group)
        return summed / self.size

    def wrap(self, module: nn.Module, unused: bool = False) -> nn.Module:
        """DDP over the workers, or the module itself where there is one."""
        if self.size == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            module, device_ids=ids, find_unused_parameters=unused, process_group=self.group
        )

    def barrier(self) -> None:
        """Waits for every worker."""
        if self.size > 1:
            distributed.barrier(group=self.group)
