"""Operators that change shapes, join, and cut."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.fx import Node

from mithril.errors import ConversionError
from mithril.interop.mapping.registry import (
    Sizes,
    axis_of,
    dtype_of,
    maps,
    one_or_tuple,
    rank_of,
    shape_of,
    size_of,
    sizes_of,
)
from mithril.logical.connection import Expression, IOKey, Operand, Size, record
from mithril.types import DType

Pairs = Sequence[tuple[int, int]]
"""Padding before and after, for each axis."""


@maps("view.default", "_unsafe_view", "reshape")
def reshape(node: Node, input: Operand, shape: Sizes) -> Operand:
    return record("reshape", input=input, shape=tuple(shape))


@maps("view_as", "reshape_as")
def reshape_as(node: Node, input: Operand, other: Expression) -> Operand:
    return record("reshape", input=input, shape=tuple(other.shape[a] for a in range(rank_of(node))))


@maps("flatten")
def flatten(node: Node, input: Operand, start_dim: int = 0, end_dim: int = -1) -> Operand:
    rank = rank_of(node.args[0])
    start, end = start_dim % max(rank, 1), end_dim % max(rank, 1)
    if start == end and rank:
        return input
    return record("flatten", input=input, start_dim=start, end_dim=-1 if end == rank - 1 else end)


@maps("unflatten")
def unflatten(node: Node, input: Operand, dim: int, sizes: Sizes) -> Operand:
    axis = axis_of(node.args[0], dim)
    outer = [size_of(input, node.args[0], a) for a in range(rank_of(node.args[0]))]
    return record("reshape", input=input, shape=(*outer[:axis], *sizes, *outer[axis + 1 :]))


@maps("permute")
def permute(node: Node, input: Operand, dims: Sequence[int]) -> Operand:
    return record("transpose", input=input, axes=tuple(axis_of(node, d) for d in dims))


@maps("transpose", "swapaxes", "swapdims")
def transpose(node: Node, input: Operand, first: int, second: int) -> Operand:
    return record("swapaxes", input=input, axis1=first, axis2=second)


@maps("t", "numpy_T", "mT", "adjoint")
def turn(node: Node, input: Operand) -> Operand:
    if rank_of(node) < 2:
        return input
    if "numpy_T" in str(node.target):
        return record("transpose", input=input)
    return record("swapaxes", input=input, axis1=-2, axis2=-1)


@maps("movedim", "moveaxis")
def movedim(node: Node, input: Operand, source: int | Sequence[int], target: int | Sequence[int]) -> Operand:
    sources, targets = ([v] if isinstance(v, int) else list(v) for v in (source, target))
    moved = {axis_of(node, t): axis_of(node, s) for s, t in zip(sources, targets)}
    rest = iter(a for a in range(rank_of(node)) if a not in moved.values())
    return record(
        "transpose", input=input, axes=tuple(moved[a] if a in moved else next(rest) for a in range(rank_of(node)))
    )


@maps("unsqueeze")
def unsqueeze(node: Node, input: Operand, dim: int) -> Operand:
    return record("expand_dims", input=input, axis=dim)


@maps("squeeze")
def squeeze(node: Node, input: Operand, dim: int | Sequence[int] | None = None) -> Operand:
    before = shape_of(node.args[0])
    named = range(len(before)) if dim is None else [dim] if isinstance(dim, int) else dim
    dropped = tuple(sorted({d % max(len(before), 1) for d in named if before and before[d] == 1}))
    return record("squeeze", input=input, axis=dropped[0] if len(dropped) == 1 else dropped) if dropped else input


@maps("expand")
def expand(node: Node, input: Operand, sizes: Sizes, *, implicit: bool = False) -> Operand:
    if shape_of(node) == shape_of(node.args[0]):
        return input
    return record("broadcast_to", input=input, shape=tuple(sizes))


@maps("expand_as", "broadcast_to")
def expand_as(node: Node, input: Operand, other: Expression | Sizes) -> Operand:
    if shape_of(node) == shape_of(node.args[0]):
        return input
    shape = sizes_of(other, node) if isinstance(other, Expression) else tuple(other)
    return record("broadcast_to", input=input, shape=shape)


@maps("repeat", "tile")
def tile(node: Node, input: Operand, repeats: Sizes) -> Operand:
    if all(isinstance(r, int) and r == 1 for r in repeats) and len(repeats) == rank_of(node.args[0]):
        return input
    return record("tile", input=input, repeats=(1,) * (rank_of(node) - len(repeats)) + tuple(repeats))


@maps("repeat_interleave.self_int")
def repeat(
    node: Node, input: Expression, repeats: int, dim: int | None = None, *, output_size: int | None = None
) -> Operand:
    if dim is None:
        return record("repeat", input=input.reshape(-1), repeats=repeats, axis=0)
    return record("repeat", input=input, repeats=repeats, axis=dim)


@maps("roll")
def roll(node: Node, input: Expression, shifts: int | Sequence[int], dims: Sequence[int] = ()) -> Operand:
    if not dims:
        flat = record("roll", input=input.reshape(-1), shift=one_or_tuple(shifts), axis=0)
        return record("reshape", input=flat, shape=sizes_of(input, node))
    return record("roll", input=input, shift=_pair(shifts), axis=_pair(dims))


def _pair(values: int | Sequence[int]) -> int | Sequence[int]:
    return values if isinstance(values, int) else values[0] if len(values) == 1 else tuple(values)


@maps("flip")
def flip(node: Node, input: Operand, dims: Sequence[int]) -> Operand:
    return record("flip", input=input, axis=_pair(dims))


@maps("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d")
def pad(node: Node, input: Operand, pad: Sequence[int], mode: Any = None, value: float | None = None) -> Operand:
    name = str(node.target)
    if "constant_pad_nd" in name:
        mode, value = "constant", mode
    elif "_pad" in name:
        mode = "reflect" if "reflection" in name else "replicate"
    pairs = tuple((pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2))
    if all(side == 0 for pair in pairs for side in pair):
        return input
    if any(isinstance(side, int) and side < 0 for pair in pairs for side in pair):
        return _crop(node, input, pairs, mode, value)
    return record("pad", input=input, padding=pairs, mode=mode or "constant", value=value or 0)


def _crop(node: Node, input: Operand, pairs: Pairs, mode: str | None, value: float | None) -> Operand:
    """Negative padding cuts away; what is filled in comes from the whole input all the same."""
    if mode in ("replicate", "reflect"):
        return _from_places(node, input, pairs, mode)
    key = (..., *(slice(max(-a, 0), -max(-b, 0) or None) for a, b in pairs))
    rest = tuple((max(a, 0), max(b, 0)) for a, b in pairs)
    cut = record("index", input=input, key=key)
    if not any(side for pair in rest for side in pair):
        return cut
    return record("pad", input=cut, padding=rest, mode=mode or "constant", value=value or 0)


def _from_places(node: Node, input: Operand, pairs: Pairs, mode: str) -> Operand:
    """Padding by the places that each value comes from."""
    for axis, (before, after) in enumerate(pairs, rank_of(node) - len(pairs)):
        size = shape_of(node.args[0])[axis]
        place = np.arange(-before, size + after)
        if mode == "reflect":
            place = np.abs((place + size - 1) % max(2 * (size - 1), 1) - (size - 1))
        index = IOKey(value=np.clip(place, 0, size - 1), type=DType.int64)
        input = record("take", input=input, index=index, axis=axis)
    return input


@maps("tril", "triu")
def triangle(node: Node, input: Operand, diagonal: int = 0) -> Operand:
    return record("tril" if "tril" in str(node.target) else "triu", input=input, diagonal=diagonal)


@maps("pixel_shuffle")
def pixel_shuffle(node: Node, input: Operand, factor: int) -> Operand:
    return record("pixel_shuffle", input=input, factor=factor)


@maps("pixel_unshuffle")
def pixel_unshuffle(node: Node, input: Expression, factor: int) -> Operand:
    b, c, h, w = sizes_of(input, node.args[0])
    cells = input.reshape(b, c, h // factor, factor, w // factor, factor).transpose(0, 1, 3, 5, 2, 4)
    return cells.reshape(b, c * factor * factor, h // factor, w // factor)


@maps("channel_shuffle")
def channel_shuffle(node: Node, input: Expression, groups: int) -> Operand:
    b, c, h, w = sizes_of(input, node)
    return input.reshape(b, groups, c // groups, h, w).transpose(0, 2, 1, 3, 4).reshape(b, c, h, w)


@maps("im2col")
def im2col(
    node: Node,
    input: Operand,
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Operand:
    b, c = (size_of(input, node.args[0], axis) for axis in range(2))
    pieces = windows(node, input, kernel, stride, padding, dilation)
    count = shape_of(node)[-1]
    return pieces.reshape(b, c * kernel[0] * kernel[1], count if isinstance(count, int) else -1)


def windows(
    node: Node,
    input: Operand,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    fill: float = 0,
) -> Expression:
    """Windows of images (b, c, h, w) as (b, c, k, rows, columns): one strided slice per place in the window."""
    sizes = [size_of(input, node.args[0], axis) for axis in (2, 3)]
    counts = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in zip(sizes, kernel, dilation, padding, stride)]
    if any(padding):
        input = record("pad", input=input, padding=tuple((p, p) for p in padding), mode="constant", value=fill)
    pieces = []
    for offset in itertools.product(*(range(0, k * d, d) for k, d in zip(kernel, dilation))):
        cut = (slice(at, at + (n - 1) * s + 1, s) for at, n, s in zip(offset, counts, stride))
        pieces.append(record("index", input=input, key=(slice(None), slice(None), *cut)))
    return record("stack", input=pieces, axis=2)


@maps("col2im")
def col2im(
    node: Node,
    input: Expression,
    size: Sequence[int],
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Operand:
    """Columns added up where windows overlap: a transposed convolution whose kernels are single ones."""
    options = list(zip(size, kernel, dilation, padding, stride))
    counts = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in options]
    rest = tuple((n + 2 * p - d * (k - 1) - 1) % s for n, k, d, p, s in options)
    channels, places = shape_of(node)[-3], kernel[0] * kernel[1]
    ones = np.tile(np.eye(places).reshape(places, 1, *kernel), (channels, 1, 1, 1))
    batch = (size_of(input, node.args[0], 0),) if rank_of(node) == 4 else (1,)
    images = record(
        "conv_transpose2d", input=input.reshape(*batch, channels * places, *counts), weight=IOKey(value=ones),
        stride=tuple(stride), padding=tuple(padding), output_padding=rest, groups=channels, dilation=tuple(dilation),
    )  # fmt: skip
    return images if rank_of(node) == 4 else record("squeeze", input=images, axis=0)


# Joining and cutting


@maps("cat", "concat", "concatenate")
def concat(node: Node, inputs: Sequence[Expression], dim: int = 0) -> Operand:
    kept = [value for value, source in zip(inputs, node.args[0]) if tuple(shape_of(source)) != (0,)]  # type: ignore[arg-type]
    return kept[0] if len(kept) == 1 else record("concat", input=kept, axis=dim)


@maps("stack")
def stack(node: Node, inputs: Sequence[Expression], dim: int = 0) -> Operand:
    return record("stack", input=list(inputs), axis=dim)


@maps("split", "split_with_sizes")
def split(node: Node, input: Operand, sizes: int | Sequence[int], dim: int = 0) -> Operand:
    return record("split", input=input, split_size=sizes if isinstance(sizes, int) else tuple(sizes), axis=dim)


@maps("chunk", "tensor_split.sections")
def chunk(node: Node, input: Operand, chunks: int, dim: int = 0) -> Operand:
    axis = axis_of(node.args[0], dim)
    sizes = tuple(piece.shape[axis] for piece in node.meta["val"])
    equal = sizes[:-1] == sizes[1:]
    return record("split", input=input, split_size=sizes[0] if equal else sizes, axis=dim)


@maps("unbind")
def unbind(node: Node, input: Operand, dim: int = 0) -> Operand:
    return record("unbind", input=input, axis=dim)


@maps("meshgrid")
def meshgrid(node: Node, inputs: Sequence[Expression], *, indexing: str = "ij") -> Operand:
    sources: Any = node.args[0]
    vectors = [x if rank_of(s) else record("reshape", input=x, shape=(1,)) for x, s in zip(inputs, sources)]
    return record("meshgrid", input=vectors, indexing=indexing)


# Constants


def _full(node: Node, shape: Sizes, value: Operand) -> Operand:
    return record("full", shape=tuple(shape), value=value, dtype=dtype_of(node.meta["val"].dtype))


@maps("zeros", "new_zeros", "ones", "new_ones", "empty", "new_empty")
def zeros_or_ones(node: Node, *args: Any, **options: object) -> Operand:
    shape = args[-1] if "new_" in str(node.target) else args[0]
    return _full(node, shape, 1 if "ones" in str(node.target) else 0)


@maps("full")
def full(node: Node, shape: Sizes, value: Operand, **options: object) -> Operand:
    return _full(node, shape, value)


@maps("new_full")
def new_full(node: Node, input: Operand, shape: Sizes, value: Operand, **options: object) -> Operand:
    return _full(node, shape, value)


@maps("zeros_like", "ones_like", "full_like", "empty_like", "fill")
def like(node: Node, input: Operand, value: Operand = 0, **options: object) -> Operand:
    value = 1 if "ones" in str(node.target) else value
    if isinstance(value, Expression):
        return record("broadcast_to", input=value, shape=sizes_of(input, node))
    return _full(node, sizes_of(input, node), value)


@maps(
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "bernoulli", "normal", "uniform", "multinomial"
)
def draw(node: Node, *args: object, **options: object) -> Operand:
    raise ConversionError(
        f"The module draws random numbers ({node.target}), which no other framework repeats.",
        ["Draw them outside and make them an input of forward."],
    )


@maps("arange")
def arange(node: Node, *bounds: Operand, **options: object) -> Operand:
    start, stop, step = {1: (0, *bounds, 1), 2: (*bounds, 1), 3: bounds}[len(bounds)]
    return record("arange", start=start, stop=stop, step=step, dtype=dtype_of(node.meta["val"].dtype))


@maps("linspace")
def linspace(node: Node, start: float, end: float, steps: int, **options: object) -> Operand:
    dtype = dtype_of(node.meta["val"].dtype)
    places = record("arange", start=0, stop=steps, step=1, dtype=dtype)
    return places * ((end - start) / max(steps - 1, 1)) + start


@maps("eye")
def eye(node: Node, rows: int, columns: Size | None = None, **options: object) -> Operand:
    shape = (rows, rows if columns is None or not isinstance(columns, int) else columns)
    ones = _full(node, shape, 1)
    return record("tril", input=record("triu", input=ones))
