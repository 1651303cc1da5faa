"""How aten operators become operators of the table: one function per operator, looked up by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import Argument

from mithril.errors import ConversionError
from mithril.logical.connection import Expression, Operand, Size, record
from mithril.types import DType

Mapping = Callable[..., Any]
"""Called as `f(node, *arguments, **keywords)` with the arguments of aten's schema, tensors as connections. Returns an
expression, a number, or a tuple of expressions for several outputs. `node` tells shapes and dtypes."""

Sizes = Sequence[Size]
"""A shape, of which some sizes may be open."""
Setting = int | str | Sequence[int] | None
"""What is said of the axes of a layer: one number for all, one for each, a word, or nothing."""

MAPPINGS: dict[str, Mapping] = {}
"""By name and overload (`add.Tensor`), or by name alone for all overloads."""

IGNORED = {"device", "layout", "pin_memory", "memory_format", "non_blocking", "requires_grad", "generator"}
"""Keywords that say where a tensor is, not what it is."""


def maps(*names: str) -> Callable[[Mapping], Mapping]:
    """Decorator: the function maps these aten operators."""

    def register(function: Mapping) -> Mapping:
        for name in names:
            assert name not in MAPPINGS, f"{name} is mapped twice"
            MAPPINGS[name] = function
        return function

    return register


def mapping(node: Node) -> Mapping | None:
    """The function for a node. In-place operators are mapped as what they compute."""
    return mapping_of(node.target)


def mapping_of(target: object) -> Mapping | None:
    """The function for an operator, or for a Python function that a graph calls."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return MAPPINGS.get(f"python.{getattr(target, '__name__', target)}")
    name = schema.name.split("::")[1]
    name = name.removesuffix("_") if schema.is_mutable else name
    return MAPPINGS.get(f"{name}.{schema.overload_name or 'default'}") or MAPPINGS.get(name)


def shape_of(node: Argument) -> tuple[int, ...]:
    """The shape of a tensor of the graph; sizes that stay open are torch's symbols, which act as numbers."""
    assert isinstance(node, Node), f"{node!r} is no tensor of the graph"
    return tuple(node.meta["val"].shape)


def rank_of(node: Argument) -> int:
    """The number of axes of a tensor of the graph."""
    return len(shape_of(node))


def size_of(value: Operand, node: Argument, axis: int) -> Size:
    """A size of the node's tensor as a number, or read off the value where it is open."""
    size = shape_of(node)[axis]
    return value.shape[axis] if isinstance(value, Expression) and not isinstance(size, int) else size


def sizes_of(value: Operand, node: Argument) -> tuple[Size, ...]:
    """All sizes of the node's tensor, each as `size_of` gives it."""
    return tuple(size_of(value, node, axis) for axis in range(rank_of(node)))


def axis_of(node: Argument, axis: int) -> int:
    """`axis` of a tensor of the graph, counted from the front."""
    return axis % max(rank_of(node), 1)


def dtype_of(dtype: torch.dtype) -> DType:
    """Ours for torch's.

    Raises:
        ConversionError: there is none, as for complex numbers.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DType.__members__:
        raise ConversionError(f"The dtype {name} has no counterpart; there are {', '.join(DType.__members__)}.")
    return DType(name)


def of_vectors(function: Mapping) -> Mapping:
    """Decorator: to a mapping, tensors without axes are vectors of one value, as they are to torch's reductions."""

    @wraps(function)
    def mapped(node: Node, *args: Any, **options: object) -> Any:
        sources = [part for part in node.args if isinstance(part, Node)]
        if not sources or rank_of(sources[0]):
            return function(node, *args, **options)
        bare = [isinstance(part, Node) and not rank_of(part) for part in node.args]
        lifted = [record("reshape", input=arg, shape=(1,)) if lift else arg for arg, lift in zip(args, bare)]
        found = function(node, *lifted, *args[len(lifted) :], **options)
        kinds: Any = node.meta["val"]
        if not isinstance(found, tuple):
            return record("reshape", input=found, shape=tuple(kinds.shape))
        return tuple(record("reshape", input=part, shape=tuple(kind.shape)) for part, kind in zip(found, kinds))

    return mapped


def cast(value: Operand, found: torch.dtype, wanted: torch.dtype | None) -> Operand:
    """The value in another dtype; unchanged where it has it."""
    return value if wanted is None or wanted == found else record("cast", input=value, dtype=dtype_of(wanted))


def axes(value: int | Sequence[int] | None) -> int | tuple[int, ...] | None:
    """One axis, a tuple of several, or None for all (torch's empty list)."""
    if value is None or isinstance(value, int):
        return value
    return (value[0] if len(value) == 1 else tuple(value)) if value else None


def one_or_tuple(values: Setting) -> Setting:
    """`3` for `[3, 3]`: sizes that are the same on every axis are written once."""
    if not isinstance(values, list | tuple):
        return values
    alike = values and all(isinstance(v, int) for v in values) and len(set(values)) == 1
    return values[0] if alike else tuple(values)
