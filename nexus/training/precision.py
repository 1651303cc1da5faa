"""Mixed precision: the type of autocast, and the scaling of fp16's loss."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast, backward pass and optimizer step in one of "fp32", "bf16" and "fp16".

    Attributes:
        scaler: Scales the loss in fp16; in the other types it does nothing.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.device = device
        self.dtype = _TYPES.get(name)
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the context of a forward pass."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of the loss."""
        self.scaler.scale(loss).backward()

    def step(self, optimizer: Optimizer, parameters: Iterable[nn.Parameter], clip_norm: float | None) -> Tensor | None:
        """Clips and takes a step; fp16 skips it where a gradient is infinite. Returns the norm before clipping."""
        norm = None
        if clip_norm is not None:
            self.scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update()
        return norm
