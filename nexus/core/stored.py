"""Tensors that still lie in their file: type and shape are known, their numbers are read when asked for.

A file is compared with a model by these, before anything of its size is allocated.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nexus.core.documents import FileError

LARGEST_TENSOR = 1 << 40
"""Elements; more is no weight of anybody's, and products of sizes stay far from overflow."""


class WeightsError(FileError):
    """A weight file cannot be had, cannot be read, or does not fit the model. The message names the file."""


class Damaged(Exception):
    """What is wrong inside a file. Whoever opened it says which file it is."""


@dataclass(frozen=True)
class Storage:
    """Numbers in a row somewhere in a file.

    Attributes:
        dtype: Of each.
        count: How many.
        read: Returns the bytes, as many as `count` needs.
    """

    dtype: torch.dtype
    count: int
    read: Callable[[], bytearray] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: a view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        whole = (self.offset, *self.shape, *self.stride)
        if any(type(number) is not int or not 0 <= number <= LARGEST_TENSOR for number in whole):
            raise Damaged(f"a tensor has the shape {self.shape}, which cannot be")
        last = self.offset + sum((length - 1) * step for length, step in zip(self.shape, self.stride, strict=True))
        if self.numel() > LARGEST_TENSOR or (self.numel() and last >= self.storage.count):
            raise Damaged("a tensor reaches beyond its storage")

    @classmethod
    def dense(cls, storage: Storage, shape: tuple[int, ...]) -> "Stored":
        """Returns a tensor that fills its storage row by row."""
        stride = [1]
        for length in reversed(shape[1:]):
            stride.append(stride[-1] * length if type(length) is int else -1)
        return cls(storage, 0, shape, tuple(reversed(stride[: len(shape)])))

    @property
    def dtype(self) -> torch.dtype:
        return self.storage.dtype

    def numel(self) -> int:
        return math.prod(self.shape)

    def meta(self) -> Tensor:
        """Returns a tensor without memory that has its type and shape."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta")

    def load(self, loaded: dict[int, Tensor]) -> Tensor:
        """Returns the tensor on the CPU; tensors that share a storage share it again through `loaded`."""
        if not self.numel():
            return torch.empty(self.shape, dtype=self.dtype)
        flat = loaded.get(id(self.storage))
        if flat is None:
            flat = loaded[id(self.storage)] = self._flat()
        return flat.as_strided(self.shape, self.stride, self.offset)

    def _flat(self) -> Tensor:
        data, size = self.storage.read(), self.storage.count * self.dtype.itemsize
        if len(data) < size:
            raise Damaged(f"a storage has {len(data)} bytes instead of {size}")
        return torch.frombuffer(data, dtype=self.dtype, count=self.storage.count)


StoredState = dict[str, Stored]


def load_all(state: StoredState) -> dict[str, Tensor]:
    """Returns the tensors of a file on the CPU."""
    loaded: dict[int, Tensor] = {}
    return {key: value.load(loaded) for key, value in state.items()}
