"""Operators that choose by order or by place: medians, bins, writing by index, bags of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.fx import Node
from torch.fx.node import Argument

from mithril.errors import ConversionError
from mithril.interop.mapping.registry import axis_of, dtype_of, maps, of_vectors, rank_of, shape_of
from mithril.logical.connection import Expression, IOKey, Operand, record
from mithril.types import DType


def fixed_shape(node: Argument, what: str) -> tuple[int, ...]:
    """A shape whose sizes are all known.

    Raises:
        ConversionError: a size is open.
    """
    shape = shape_of(node)
    if not all(isinstance(size, int) for size in shape):
        raise ConversionError(f"{what} needs a tensor of a fixed size, not {shape}.")
    return shape


def integers(values: npt.ArrayLike) -> IOKey:
    """A constant of integers."""
    return IOKey(value=np.asarray(values, np.int64), type=DType.int64)


def logical_and(left: Operand, right: Operand) -> Expression:
    return record("logical_and", left=left, right=right)


# Order


def _picked(input: Operand, place: int, axis: int, keepdim: bool) -> tuple[Operand, ...]:
    """The value that is at `place` in order along an axis, and its index."""
    order = record("argsort", input=input, axis=axis)
    index = record("take", input=order, index=integers([place]), axis=axis)
    found = record("take_along_axis", input=input, index=index, axis=axis), index
    return found if keepdim else tuple(record("squeeze", input=value, axis=axis) for value in found)  # type: ignore[return-value]


@maps("kthvalue")
@of_vectors
def kthvalue(node: Node, input: Operand, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Operand, ...]:
    return _picked(input, k - 1, axis_of(node.args[0], dim), keepdim)


@maps("median.dim")
@of_vectors
def median(node: Node, input: Operand, dim: int = -1, keepdim: bool = False) -> tuple[Operand, ...]:
    axis = axis_of(node.args[0], dim)
    shape = shape_of(node.args[0]) or (1,)
    return _picked(input, (shape[axis] - 1) // 2, axis, keepdim)


@maps("median.default")
def median_of_all(node: Node, input: Operand) -> Operand:
    count = math.prod(fixed_shape(node.args[0], "A median"))
    return _picked(record("reshape", input=input, shape=(-1,)), (count - 1) // 2, 0, False)[0]


@maps("cummax", "cummin")
@of_vectors
def running_extremum(node: Node, input: Operand, dim: int) -> tuple[Operand, ...]:
    axis, name = axis_of(node.args[0], dim), str(node.target).split(".")[1]
    shape = fixed_shape(node.args[0], "A running extremum") or (1,)
    value = record(name, input=input, axis=axis)
    places = integers(np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))]))
    own = record("where", condition=input == value, input=places, other=0)
    return value, record("cummax", input=own, axis=axis)


def _rank_in(sequence: Expression, values: Expression, right: bool) -> Operand:
    """How many of the sorted `sequence` (..., s) are before each of `values` (..., v)."""
    before = "less_equal" if right else "less"
    found = record(before, left=sequence.expand_dims(-2), right=values.expand_dims(-1))
    return record("cast", input=found, dtype=DType.int64).sum(axis=-1)


@maps("searchsorted.Tensor", "bucketize.Tensor")
def searchsorted(
    node: Node,
    first: Expression,
    second: Expression,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Expression | None = None,
) -> Operand:
    if sorter is not None:
        raise ConversionError("searchsorted with a sorter has no counterpart.", ["Sort the sequence: x.gather(-1, i)."])
    sequence, values = (second, first) if "bucketize" in str(node.target) else (first, second)
    sizes = shape_of(node)
    flat = len(shape_of(node.args[1 if sequence is second else 0])) == 1
    if flat:
        values = record("reshape", input=values, shape=(-1,))
    found = _rank_in(sequence, values, right or side == "right")
    found = record("reshape", input=found, shape=tuple(sizes)) if flat else found
    return record("cast", input=found, dtype=DType.int32) if out_int32 else found


@maps("searchsorted.Scalar", "bucketize.Scalar")
def searchsorted_number(node: Node, first: Operand, second: Operand, **options: object) -> Operand:
    sequence, value = (second, first) if "bucketize" in str(node.target) else (first, second)
    right = options.get("right", False) or options.get("side") == "right"
    found = record("cast", input=sequence <= value if right else sequence < value, dtype=DType.int64).sum(axis=-1)
    return record("cast", input=found, dtype=DType.int32) if options.get("out_int32") else found


@maps("histc")
def histc(node: Node, input: Expression, bins: int = 100, min: float = 0, max: float = 0) -> Operand:
    """Equal bins; the bounds of the data where none are given."""
    low, high = (min, max) if min != max else (input.min(), input.max())
    if min == max and min != 0:
        raise ConversionError("histc with min equal to max, other than 0, has no counterpart.")
    if min == max:  # of equal data the bounds lie one below and one above
        equal = record("cast", input=high <= low, dtype=dtype_of(node.meta["val"].dtype))
        low, high = low - equal, high + equal
    values = record("reshape", input=record("detach", input=input), shape=(-1,))
    place = record("floor", input=(values - low) * bins / (high - low))
    place = record("cast", input=record("clip", input=place, min=0, max=bins - 1), dtype=DType.int64)
    inside = record("cast", input=logical_and(values >= low, values <= high), dtype=dtype_of(node.meta["val"].dtype))
    hits = record("one_hot", input=place, num_classes=bins, dtype=dtype_of(node.meta["val"].dtype))
    return (hits * inside.expand_dims(-1)).sum(axis=0)


# Writing by index


@maps("index_put", "_index_put_impl", "_unsafe_index_put")
def index_put(
    node: Node,
    input: Operand,
    indices: Sequence[Expression | None],
    values: Operand,
    accumulate: bool = False,
    unsafe: bool = False,
) -> Operand:
    sources: Any = node.args[1]
    masks = [s is not None and str(s.meta["val"].dtype) == "torch.bool" for s in sources]
    if any(masks):
        return _put_by_mask(node, input, indices, values, accumulate)
    shape = fixed_shape(node.args[0], "Writing by index")
    chosen = [axis for axis, index in enumerate(indices) if index is not None]
    rest = [axis for axis in range(len(shape)) if axis not in chosen]
    place, width = _flat_places([shape_of(s) for s in sources if s is not None], indices, shape, chosen)
    order = (*chosen, *rest)
    table = record("transpose", input=input, axes=order).reshape(math.prod(shape[a] for a in chosen), -1)
    count, inner = math.prod(width), math.prod(shape[a] for a in rest)
    updates = _rows_of(node, values, width, chosen, [shape[a] for a in rest]).reshape(count, inner)
    spread = record("broadcast_to", input=place.reshape(count, 1), shape=(count, inner))
    name = "scatter_add" if accumulate else "scatter"
    done = record(name, input=table, index=spread, updates=updates, axis=0)
    done = record("reshape", input=done, shape=tuple(shape[a] for a in order))
    return record("transpose", input=done, axes=tuple(order.index(a) for a in range(len(shape))))


def _flat_places(
    shapes: list[tuple[int, ...]], indices: Sequence[Expression | None], shape: tuple[int, ...], chosen: list[int]
) -> tuple[Expression, tuple[int, ...]]:
    """Indices along several axes as one along all of them, and its shape."""
    width = np.broadcast_shapes(*shapes)
    place: Any = 0
    for axis in chosen:
        given = indices[axis]
        assert given is not None
        index = record("where", condition=given < 0, input=given + shape[axis], other=given)
        place = index if isinstance(place, int) else place * shape[axis] + index
    return record("broadcast_to", input=place, shape=width), width


def _rows_of(node: Node, values: Operand, width: tuple[int, ...], chosen: list[int], rest: list[int]) -> Expression:
    """The values to write, broadcast, with the axes of the index in front."""
    together = chosen == list(range(chosen[0], chosen[-1] + 1))
    front = chosen[0] if together else 0
    whole = (*rest[:front], *width, *rest[front:])
    values = record("broadcast_to", input=values, shape=whole)
    places = [*range(front, front + len(width)), *range(front), *range(front + len(width), len(whole))]
    return record("transpose", input=values, axes=tuple(places))


def _put_by_mask(
    node: Node, input: Operand, indices: Sequence[Expression | None], values: Operand, accumulate: bool
) -> Operand:
    """Values that are one for all places, or one for each place of the axes that the mask leaves out."""
    mask, source, rank = indices[0], node.args[2], rank_of(node)
    sources: Any = node.args[1]
    one = mask is not None and len([i for i in indices if i is not None]) == 1
    left = rank - len(shape_of(sources[0])) if one else 0
    shape = shape_of(source)
    if mask is None or not one or len(shape) > left or (len(shape) == left + 1 and shape[0] != 1):
        raise ConversionError(
            "Writing by a mask needs as many values as it is true for, a number that depends on the data.",
            ["Write one value for all places, or choose between tensors of one shape: torch.where(mask, y, x)."],
        )
    for _ in range(left):
        mask = mask.expand_dims(-1)
    return record("where", condition=mask, input=input + values if accumulate else values, other=input)


@maps("masked_scatter")
def masked_scatter(node: Node, input: Operand, mask: Operand, source: Operand) -> Operand:
    """The values of `source` in their order, to where the mask is true."""
    shape = fixed_shape(node, "masked_scatter")
    whole = record("cast", input=record("broadcast_to", input=mask, shape=shape), dtype=DType.int64)
    last = math.prod(fixed_shape(node.args[2], "masked_scatter")) - 1
    number = record("cumsum", input=record("reshape", input=whole, shape=(-1,)), axis=0) - 1
    number = record("clip", input=number, min=0, max=max(last, 0))
    values = record("take", input=record("reshape", input=source, shape=(-1,)), index=number, axis=0)
    values = record("reshape", input=values, shape=shape)
    return record("where", condition=mask, input=values, other=input)


@maps("as_strided")
def as_strided(
    node: Node, input: Operand, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> Operand:
    """The values at these steps through memory, which holds the input as torch laid it out."""
    source: Any = node.args[0]
    value, shape = source.meta["val"], fixed_shape(source, "as_strided")
    places = sum((np.arange(n).reshape(-1, *(1,) * (len(shape) - 1 - a)) * s
                  for a, (n, s) in enumerate(zip(shape, value.stride()))), np.zeros(shape, np.int64))  # fmt: skip
    where = {int(place): number for number, place in enumerate(np.ravel(places))}
    start = value.storage_offset() if offset is None else offset
    steps = np.full(tuple(size), start, np.int64)
    for axis, (n, s) in enumerate(zip(size, stride)):
        steps = steps + np.arange(n).reshape(-1, *(1,) * (len(size) - 1 - axis)) * s
    if not all(int(step) in where for step in np.ravel(steps)):
        raise ConversionError("as_strided reads memory that is not of its input.", ["Slice or reshape instead."])
    index = integers([where[int(step)] for step in np.ravel(steps)])
    found = record("take", input=record("reshape", input=input, shape=(-1,)), index=index, axis=0)
    return record("reshape", input=found, shape=tuple(size))


@maps("linalg_diagonal")
def linalg_diagonal(node: Node, input: Operand, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Operand:
    return diagonal(node, input, offset, dim1, dim2)


@maps("diagonal")
def diagonal(node: Node, input: Operand, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Operand:
    """Along the last axis, what both axes have at places `offset` apart."""
    rows, columns = (axis_of(node.args[0], dim) for dim in (dim1, dim2))
    count = fixed_shape(node, "A diagonal")[-1]
    start = max(-offset, 0), max(offset, 0)
    rest = tuple(a for a in range(rank_of(node.args[0])) if a not in (rows, columns))
    turned = record("transpose", input=input, axes=(rows, columns, *rest))
    picked = record("index", input=turned, key=tuple(integers(np.arange(count) + s) for s in start))
    return record("transpose", input=picked, axes=(*range(1, len(rest) + 1), 0))


# Bags


@maps("embedding_bag")
def embedding_bag(
    node: Node,
    weight: Operand,
    indices: Operand,
    offsets: Expression,
    scale_grad: bool = False,
    mode: int = 0,
    sparse: bool = False,
    sample_weights: Expression | None = None,
    include_last: bool = False,
    padding: int | None = None,
) -> tuple[Operand, ...]:
    """Sum, mean or maximum of the rows of each bag; `offsets` say where bags begin."""
    count = fixed_shape(node.args[1], "embedding_bag")[0]
    bags = fixed_shape(node.args[2], "embedding_bag")[0] - include_last
    starts = offsets[:bags] if include_last else offsets
    last = record("cast", input=starts.expand_dims(1) <= integers(np.arange(count)), dtype=DType.int64).sum(axis=0) - 1
    member = last == integers(np.arange(bags)[:, None])
    if padding is not None and not (padding == -1 and "_embedding_bag" in str(node.target)):  # whose -1 is none
        member = logical_and(member, indices != padding % fixed_shape(node.args[0], "embedding_bag")[0])
    rows = record("embedding", input=indices, weight=weight)
    share = record("cast", input=member, dtype=dtype_of(node.meta["val"][0].dtype))
    if mode == 2:
        filled = record("where", condition=member.expand_dims(-1), input=rows, other=-math.inf).max(axis=1)
        some = record("any", input=member, axis=1, keepdims=True)
        return (record("where", condition=some, input=filled, other=0.0),)
    if sample_weights is not None:
        rows = rows * sample_weights.expand_dims(-1)
    total = share @ rows
    if mode == 0:
        return (total,)
    return (total / record("clip", input=share.sum(axis=1, keepdims=True), min=1),)
