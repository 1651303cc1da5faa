"""Sums over the processes of a run; without a process group they are what they are."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def sum_over_processes(tensors: Iterable[Tensor]) -> None:
    """Replaces each tensor, in place, by its sum over all processes. Every process passes the same shapes in order."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    for tensor in tensors:
        total = tensor.to(device)
        dist.all_reduce(total)
        tensor.copy_(total)
