"""Running the blocks of a model and keeping what each of them returns."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def collect(
    blocks: Iterable[Callable[[Tensor], Tensor]], x: Tensor, *, checkpointing: bool = False, keep: bool = True
) -> list[Tensor]:
    """Returns the output of every block, each fed with the one before it.

    Args:
        blocks: Modules (or functions of modules) from a tensor to a tensor.
        x: Input of the first.
        checkpointing: Keep only the outputs, and compute what is inside a block again in the backward pass.
        keep: Return all outputs; otherwise only the last, and the others are freed on the way.
    """
    features: list[Tensor] = []
    for block in blocks:
        if checkpointing and torch.is_grad_enabled():
            x = checkpoint(block, x, use_reentrant=False)
        else:
            x = block(x)
        if not keep:
            features.clear()
        features.append(x)
    return features
