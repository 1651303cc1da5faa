"""Sums and lists over the processes of a run; without a process group they are what they are."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def sum_over_processes(tensors: Iterable[Tensor]) -> None:
    """Replaces each tensor, in place, by its sum over all processes. Every process passes the same shapes in order."""
    if not _many():
        return
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    for tensor in tensors:
        total = tensor.to(device)
        dist.all_reduce(total)
        tensor.copy_(total)


def gather_over_processes(own: list[Any]) -> list[Any]:
    """Returns the entries of all processes' lists, those of the first process first."""
    if not _many():
        return own
    shares: list[list[Any]] = [[]] * dist.get_world_size()
    dist.all_gather_object(shares, own)
    return [one for share in shares for one in share]


def process_share() -> tuple[int, int]:
    """Returns the number of this process and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if _many() else (0, 1)


def _many() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
