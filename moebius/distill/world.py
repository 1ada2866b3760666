"""The workers of a run: one process, or a `torch.distributed` group that Ray Train started."""

import os
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

    @classmethod
    def current(cls) -> "World":
        """The process group that is initialised, else one process; a CUDA device where it is."""
        grouped = distributed.is_available() and distributed.is_initialized()
        rank = distributed.get_rank() if grouped else 0
        size = distributed.get_world_size() if grouped else 1
        if torch.cuda.is_available():
            index = int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count()
            return cls(rank, size, torch.device("cuda", index))
        return cls(rank, size, torch.device("cpu"))

    def mean(self, tensor: Tensor) -> Tensor:
        """The tensor averaged over the workers."""
        if self.size == 1:
            return tensor
        summed = tensor.clone()
        distributed.all_reduce(summed)
        return summed / self.size

    def wrap(self, module: nn.Module, unused: bool = False) -> nn.Module:
        """DDP over the workers, or the module itself where there is one."""
        if self.size == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids, find_unused_parameters=unused)

    def barrier(self) -> None:
        """Waits for every worker."""
        if self.size > 1:
            distributed.barrier()
