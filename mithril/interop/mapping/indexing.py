"""Operators that pick and place values by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx import Node

from mithril.errors import ConversionError
from mithril.interop.mapping.registry import axis_of, maps, of_vectors, rank_of, shape_of
from mithril.logical.connection import Expression, Operand, Size, record

Item = Operand | slice | None
"""A part of a key."""

END = 2**63 - 1
"""torch's word for the end of an axis."""


def _key(node: Node, dim: int, item: Item) -> tuple[Item, ...]:
    """`(:, :, item)` for axis 2."""
    return (*(slice(None),) * axis_of(node.args[0], dim), item)


def _bounds(start: Size | None, end: Size | None, step: int) -> slice:
    """A slice without the parts that say nothing."""
    start = None if not isinstance(start, Expression) and start in (None, 0) else start
    end = None if not isinstance(end, Expression) and (end is None or end >= END) else end
    return slice(start, end, None if step == 1 else step)


@maps("slice.Tensor")
def slice_tensor(
    node: Node, input: Operand, dim: int = 0, start: Size | None = None, end: Size | None = None, step: int = 1
) -> Operand:
    source: Any = node.args[0]
    if tuple(map(str, shape_of(source))) == tuple(map(str, shape_of(node))):
        return input
    return record("index", input=input, key=_key(node, dim, _bounds(start, end, step)))


@maps("select.int")
def select(node: Node, input: Operand, dim: int, index: Size) -> Operand:
    return record("index", input=input, key=_key(node, dim, index))


@maps("narrow")
def narrow(node: Node, input: Operand, dim: int, start: Size, length: Size) -> Operand:
    return record("index", input=input, key=_key(node, dim, _bounds(start, start + length, 1)))


@maps("slice_scatter")
def slice_scatter(
    node: Node,
    input: Operand,
    source: Operand,
    dim: int = 0,
    start: Size | None = None,
    end: Size | None = None,
    step: int = 1,
) -> Operand:
    key = _key(node, dim, _bounds(start, end, step))
    whole = shape_of(node.args[1]) == shape_of(node)
    return source if whole else record("slice_scatter", input=input, source=source, key=key)


@maps("select_scatter")
def select_scatter(node: Node, input: Operand, source: Operand, dim: int, index: int) -> Operand:
    return record("slice_scatter", input=input, source=source, key=_key(node, dim, index))


@maps("copy")
def copy(node: Node, input: Expression, source: Operand, non_blocking: bool = False) -> Operand:
    """What `input[...] = source` leaves; its shape is the input's."""
    shape = shape_of(node)
    if shape_of(node.args[1]) == shape:
        return source
    sizes = (size if isinstance(size, int) else input.shape[axis] for axis, size in enumerate(shape))
    return record("broadcast_to", input=source, shape=tuple(sizes))


@maps("index.Tensor")
def index(node: Node, input: Operand, indices: Sequence[Expression | None]) -> Operand:
    sources: Any = node.args[1]
    for source in sources:
        if source is not None and str(source.meta["val"].dtype) == "torch.bool":
            raise _depends("Picking by a mask", "Keep the shape: torch.where(mask, x, 0).")
    return record("index", input=input, key=tuple(slice(None) if i is None else i for i in indices))


@maps("nonzero", "masked_select", "unique", "_unique2", "unique_consecutive")
def counted(node: Node, *args: object, **options: object) -> Operand:
    raise _depends(str(node.target), "Keep the shape, with torch.where or topk.")


def _depends(what: str, advice: str) -> ConversionError:
    return ConversionError(f"{what} gives a shape that depends on the values of the data.", [advice])


@maps("index_select")
@of_vectors
def index_select(node: Node, input: Operand, dim: int, index: Operand) -> Operand:
    return record("take", input=input, index=index, axis=axis_of(node.args[0], dim))


@maps("gather")
@of_vectors
def gather(node: Node, input: Operand, dim: int, index: Operand, *, sparse_grad: bool = False) -> Operand:
    source: Any = node.args[0]
    axis = axis_of(source, dim)
    have, wanted = shape_of(source) or (1,), shape_of(node) or (1,)
    cut = tuple(
        slice(None) if a == axis or str(size) == str(wanted[a]) else slice(None, wanted[a])
        for a, size in enumerate(have)
    )
    if any(c != slice(None) for c in cut):
        input = record("index", input=input, key=cut)
    return record("take_along_axis", input=input, index=index, axis=axis)


@maps("scatter.src", "scatter_add")
@of_vectors
def scatter(node: Node, input: Operand, dim: int, index: Operand, source: Operand) -> Operand:
    name = "scatter_add" if "scatter_add" in str(node.target) else "scatter"
    return record(name, input=input, index=index, updates=source, axis=axis_of(node.args[0], dim))


@maps("scatter.value")
@of_vectors
def scatter_value(node: Node, input: Operand, dim: int, index: Operand, value: Operand) -> Operand:
    sizes: Any = node.args[2]
    updates = record("full_like", input=record("cast", input=index, dtype=_dtype(node)), value=value)
    assert rank_of(sizes) == rank_of(node)
    return record("scatter", input=input, index=index, updates=updates, axis=axis_of(node.args[0], dim))


def _dtype(node: Node) -> str:
    return str(node.meta["val"].dtype).removeprefix("torch.")


@maps("embedding")
def embedding(
    node: Node,
    weight: Operand,
    indices: Expression,
    padding_idx: int = -1,
    scale_grad: bool = False,
    sparse: bool = False,
) -> Operand:
    """The row `padding_idx` is read but not learned."""
    rows = record("embedding", input=indices, weight=weight)
    if padding_idx < 0:
        return rows
    return record(
        "where",
        condition=record("equal", left=indices, right=padding_idx)[..., None],
        input=record("detach", input=rows),
        other=rows,
    )


@maps("one_hot")
def one_hot(node: Node, input: Operand, num_classes: int) -> Operand:
    return record("one_hot", input=input, num_classes=num_classes, dtype=_dtype(node))
