"""What a batch is: a mapping with the key `index`, the places of its items in the data set.

Values of its length belong to the items one by one: they are split and put together with them. Others are shared.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Batch = Mapping[str, Any]


def batch_length(batch: Batch) -> int:
    """Returns how many items a batch has.

    Raises:
        ValueError: It has no `index`.
    """
    if "index" not in batch:
        raise ValueError(
            f"A batch has the keys {', '.join(map(str, batch))}; it must have 'index', places in the data."
        )
    return len(batch["index"])


def split(batch: Batch, count: int) -> list[dict[str, Any]]:
    """Returns `count` batches of equal length.

    Raises:
        ValueError: The items cannot be shared evenly.
    """
    length = batch_length(batch)
    if length % count:
        raise ValueError(f"A batch of {length} items cannot be split into {count} equal parts.")
    size = length // count
    return [
        {
            key: value[i * size : (i + 1) * size] if _is_per_item(value, length) else value
            for key, value in batch.items()
        }
        for i in range(count)
    ]


def place(value: Any, device: torch.device) -> Any:
    """Returns a batch, or a value of one, with all tensors in it on the device, also those in mappings and lists."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: place(inner, device) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(place(inner, device) for inner in value)
    return value


def _is_per_item(value: Any, length: int) -> bool:
    if isinstance(value, Tensor):
        return value.ndim > 0 and len(value) == length
    return isinstance(value, list | tuple) and len(value) == length
