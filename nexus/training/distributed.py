"""The processes of a run. One process is a world of size 1 and needs no process group; `torchrun` makes more."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among all.

    Attributes:
        rank: Number of this process; 0 writes files.
        size: Number of processes.
        device: Where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def barrier(self) -> None:
        """Waits for all processes."""
        if self.size > 1:
            self.sum(torch.zeros(1))

    def sum(self, tensor: Tensor) -> Tensor:
        """Returns the sum over all processes."""
        if self.size == 1:
            return tensor
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """Returns whether the flag is set in any process."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(int(flag))).item())

    def main_alone(self, work: Callable[[], T]) -> T:
        """Returns what `work` gives in the main process; its error is raised in all processes, so that none waits."""
        result, error = None, None
        if self.is_main:
            try:
                result = work()
            except Exception as raised:
                if self.size == 1:
                    raise
                error = raised
        result, error = self.gather((result, error))[0]
        if error is not None:
            raise error
        return cast(T, result)

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all processes, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Returns the device called `name`; "auto" is CUDA if there is any, else the CPU.

    Raises:
        ValueError: The name is unknown, or there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"training.device is {name!r}; it must be auto, cpu, cuda or mps.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"training.device is {name!r}, and there is no CUDA here; use training.device=cpu.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"training.device is {name!r}, and there is no MPS here; use training.device=cpu.")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", local_rank)
    return device


@contextmanager
def world(device_name: str) -> Iterator[World]:
    """Joins the processes that `torchrun` started, and leaves them at the end; alone it does nothing.

    A process group that exists already is used and left as it is.
    """
    device = choose_device(device_name, int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    joined = dist.is_available() and not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if joined:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        if dist.is_available() and dist.is_initialized():
            yield World(dist.get_rank(), dist.get_world_size(), device)
        else:
            yield World(0, 1, device)
    finally:
        if joined:
            dist.destroy_process_group()


def distribute(
    model: nn.Module, world: World, sharding: Literal["none", "fsdp"] = "none", sync_batchnorm: bool = False
) -> nn.Module:
    """Returns the module to call in training: the model itself when alone or sharded, a DDP wrapper around it else.

    FSDP2 shards the model in place: each block, then the rest. Its parameters become `DTensor`s with unchanged names.
    """
    if world.size == 1:
        return model
    if sharding == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(world.device.type, (world.size,))
        for module in _blocks(model):
            fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model
    if sync_batchnorm:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def _blocks(model: nn.Module) -> list[nn.Module]:
    """Returns the modules that FSDP gathers one at a time: the items of the model's lists of blocks."""
    lists = [m for m in model.children() if isinstance(m, nn.Sequential | nn.ModuleList)]
    return [block for blocks in lists for block in blocks if any(True for _ in block.parameters())]
