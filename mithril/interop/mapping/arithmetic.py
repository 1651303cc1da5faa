"""Elementwise operators, casts, and arithmetic of sizes."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from mithril.interop.mapping.registry import (
    MAPPINGS,
    Mapping,
    cast,
    dtype_of,
    maps,
    of_vectors,
    rank_of,
    shape_of,
)
from mithril.logical.connection import Expression, Operand, Size, record

SAME_NAME = {
    "relu": "relu", "relu6": "relu6", "sigmoid": "sigmoid", "silu": "silu", "mish": "mish", "selu": "selu",
"hardswish": "hard_swish", "hardsigmoid": "hard_sigmoid", "log_sigmoid": "log_sigmoid",
    "logical_not": "logical_not", "bitwise_not": "bitwise_not", "isnan": "isnan", "isinf": "isinf",
    "isfinite": "isfinite", "neg": "negative", "abs": "absolute", "sign": "sign", "sgn": "sign", "square": "square",
    "reciprocal": "reciprocal", "sqrt": "sqrt", "rsqrt": "rsqrt", "exp": "exp", "expm1": "expm1", "log": "log",
    "log1p": "log1p", "log2": "log2", "log10": "log10", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "arcsin",
    "acos": "arccos", "atan": "arctan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "asinh": "arcsinh",
    "acosh": "arccosh", "atanh": "arctanh", "erf": "erf", "floor": "floor", "ceil": "ceil", "round": "round",
    "trunc": "trunc", "special_expit": "sigmoid", "special_erf": "erf",
}  # fmt: skip
"""Functions of one argument: aten's name to ours."""

BINARY = {
    "mul": "multiply", "maximum": "maximum", "minimum": "minimum", "atan2": "arctan2",
    "logaddexp": "logaddexp", "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater",
    "ge": "greater_equal", "logical_and": "logical_and", "logical_or": "logical_or", "logical_xor": "logical_xor",
    "bitwise_and": "bitwise_and", "bitwise_or": "bitwise_or", "bitwise_xor": "bitwise_xor", "__and__": "bitwise_and",
    "__or__": "bitwise_or", "__xor__": "bitwise_xor", "remainder": "remainder", "floor_divide": "floor_divide",
    "pow": "power", "fmod": "fmod",
}  # fmt: skip
"""Functions of two arguments without options."""


def _unary(name: str) -> Mapping:
    return lambda node, input: record(name, input=input)


def _binary(name: str) -> Mapping:
    return lambda node, left, right: record(name, left=left, right=right)


MAPPINGS.update({aten: _unary(name) for aten, name in SAME_NAME.items()})
MAPPINGS.update({aten: _binary(name) for aten, name in BINARY.items()})


@maps("add")
def add(node: Node, left: Operand, right: Operand, *, alpha: float = 1) -> Operand:
    if not isinstance(right, Expression) and right == 0 and node.args and _keeps_dtype(node):
        return left
    return left + (right if alpha == 1 else right * alpha)


def _keeps_dtype(node: Node) -> bool:
    """Whether the result has the first operand's dtype and shape, so that a neutral operand changes nothing."""
    first: Any = node.args[0]
    return isinstance(first, Node) and first.meta["val"].dtype == node.meta["val"].dtype


@maps("sub")
def subtract(node: Node, left: Operand, right: Operand, *, alpha: float = 1) -> Operand:
    return left - (right if alpha == 1 else right * alpha)


@maps("rsub")
def subtract_from(node: Node, left: Operand, right: Operand, alpha: float = 1) -> Operand:
    return right - (left if alpha == 1 else left * alpha)


@maps("div", "divide", "true_divide")
def divide(node: Node, left: Operand, right: Operand, *, rounding_mode: str | None = None) -> Operand:
    if rounding_mode == "floor":
        return left // right
    if rounding_mode is None:
        return left / right
    return _cut_off(left, right) if not node.meta["val"].is_floating_point() else record("trunc", input=left / right)


def _cut_off(left: Operand, right: Operand) -> Operand:
    """Integer division towards zero: one more than the floor where there is a rest and the signs differ."""
    floor = left // right
    rest = record("not_equal", left=floor * right, right=left)
    return record("where", condition=record("logical_and", left=rest, right=floor < 0), input=floor + 1, other=floor)


@maps("hardtanh")
def hard_tanh(node: Node, input: Operand, low: float = -1, high: float = 1) -> Operand:
    if (low, high) == (0, 6):
        return record("relu6", input=input)
    return (
        record("hard_tanh", input=input) if (low, high) == (-1, 1) else record("clip", input=input, min=low, max=high)
    )


@maps("gelu")
def gelu(node: Node, input: Operand, *, approximate: str = "none") -> Operand:
    return record("gelu", input=input, approximate=approximate)


@maps("leaky_relu")
def leaky_relu(node: Node, input: Operand, negative_slope: float = 0.01) -> Operand:
    return record("leaky_relu", input=input, negative_slope=negative_slope)


@maps("elu")
def elu(node: Node, input: Operand, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Operand:
    if input_scale == 1:
        value = record("elu", input=input, alpha=alpha)
    else:
        below = record("expm1", input=record("minimum", left=input, right=0.0) * input_scale) * alpha
        value = record("where", condition=input > 0, input=input, other=below)
    return value if scale == 1 else value * scale


@maps("softplus")
def softplus(node: Node, input: Operand, beta: float = 1, threshold: float = 20) -> Operand:
    wide = input if beta == 1 else input * beta
    value = record("softplus", input=wide) if beta == 1 else record("softplus", input=wide) / beta
    # above torch's own threshold of 20, the two differ by 2e-9
    return value if threshold == 20 else record("where", condition=wide > threshold, input=input, other=value)


@maps("prelu")
def prelu(node: Node, input: Operand, weight: Operand) -> Operand:
    if rank_of(node.args[0]) < 2 or rank_of(node.args[1]) != 1 or shape_of(node.args[1]) == (1,):
        weight = record("reshape", input=weight, shape=())
        return record("where", condition=input > 0, input=input, other=weight * input)
    return record("prelu", input=input, weight=weight)


@maps("glu")
def glu(node: Node, input: Operand, dim: int = -1) -> Operand:
    source: Any = node.args[0]
    half = source.meta["val"].shape[dim] // 2
    pieces = record("split", input=input, split_size=half, axis=dim)
    return pieces[0] * record("sigmoid", input=pieces[1])


@maps("clamp", "clip")
def clamp(node: Node, input: Operand, min: Operand | None = None, max: Operand | None = None) -> Operand:
    if isinstance(min, Expression) or isinstance(max, Expression):
        value = input if min is None else record("maximum", left=input, right=min)
        return value if max is None else record("minimum", left=value, right=max)
    return record("clip", input=input, min=min, max=max)


@maps("clamp_min")
def clamp_min(node: Node, input: Operand, min: Operand) -> Operand:
    return clamp(node, input, min)


@maps("clamp_max")
def clamp_max(node: Node, input: Operand, max: Operand) -> Operand:
    return clamp(node, input, None, max)


@maps("where")
def where(node: Node, condition: Operand, input: Operand, other: Operand) -> Operand:
    return record("where", condition=condition, input=input, other=other)


@maps("masked_fill")
def masked_fill(node: Node, input: Operand, mask: Operand, value: Operand) -> Operand:
    return record("where", condition=mask, input=value, other=input)


@maps("round.decimals")
def round_decimals(node: Node, input: Operand, *, decimals: int) -> Operand:
    factor = 10.0 ** abs(decimals)
    if decimals < 0:
        return record("round", input=input / factor) * factor
    return record("round", input=input * factor) / factor if decimals else record("round", input=input)


@maps("fmax", "fmin")
def extremum_of_numbers(node: Node, left: Operand, right: Operand) -> Operand:
    """The larger or smaller of two values, of which one may be no number."""
    name = "maximum" if "fmax" in str(node.target) else "minimum"
    value = record(
        "where", condition=record("isnan", input=left), input=right, other=record(name, left=left, right=right)
    )
    return record("where", condition=record("isnan", input=right), input=left, other=value)


@maps("exp2")
def exp2(node: Node, input: Operand) -> Operand:
    return record("exp", input=input * math.log(2))


@maps("signbit")
def signbit(node: Node, input: Operand) -> Operand:
    if not node.args[0].meta["val"].is_floating_point():  # type: ignore[union-attr]
        return input < 0
    behind = record("logical_and", left=input == 0, right=1 / input < 0)
    return record("logical_or", left=input < 0, right=behind)


@maps("convert_element_type")
def convert_element_type(node: Node, input: Operand, dtype: torch.dtype | None) -> Operand:
    return to(node, input, dtype)


@maps("lerp")
def lerp(node: Node, start: Operand, end: Operand, weight: Operand) -> Operand:
    return start + weight * (end - start)


@maps("addcmul")
def addcmul(node: Node, input: Operand, left: Operand, right: Operand, *, value: float = 1) -> Operand:
    return input + left * right * value


@maps("softmax", "_softmax", "log_softmax", "_log_softmax")
@of_vectors
def softmax(node: Node, input: Operand, dim: int, dtype: torch.dtype | None = None) -> Operand:
    source: Any = node.args[0]
    name = "log_softmax" if "log" in str(node.target) else "softmax"
    wanted = dtype if isinstance(dtype, torch.dtype) else None
    return record(name, input=cast(input, source.meta["val"].dtype, wanted), axis=dim)


# Casts


@maps("to.dtype", "_to_copy", "to.dtype_layout")
def to(node: Node, input: Operand, dtype: torch.dtype | None = None, *others: object, **options: object) -> Operand:
    source: Any = node.args[0]
    return cast(input, source.meta["val"].dtype, dtype)


@maps("to.device")
def to_device(node: Node, input: Operand, device: object, dtype: torch.dtype | None = None, *others: object) -> Operand:
    return to(node, input, dtype)


@maps("type_as", "to.other")
def type_as(node: Node, input: Operand, other: Operand, *others: object) -> Operand:
    return to(node, input, node.meta["val"].dtype)


@maps("detach")
def detach(node: Node, input: Operand) -> Operand:
    """Gradients stop here; numbers have none."""
    return record("detach", input=input) if isinstance(input, Expression) else input


@maps("clone", "contiguous", "alias", "lift_fresh_copy", "lift_fresh", "_assert_tensor_metadata", "positive")
def unchanged(node: Node, input: Operand, *others: object, **options: object) -> Operand:
    return input


# Sizes


def _static(node: Node, *values: Size) -> Operand:
    """Arithmetic of sizes, which is evaluated when shapes are inferred."""
    name = node.target.__name__  # type: ignore[union-attr]
    if not any(isinstance(v, Expression) for v in values):
        return node.target(*values)  # type: ignore[operator]
    return SIZES[name](*values)


SIZES: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "mod", "truediv", "pow", "neg")},
    "sym_max": lambda left, right: record("maximum", left=left, right=right),
    "sym_min": lambda left, right: record("minimum", left=left, right=right),
    "sym_float": lambda value: value,
    "sym_int": lambda value: value,
    "_sym_sqrt": lambda value: record("sqrt", input=value),
}
MAPPINGS.update({f"python.{name}": _static for name in SIZES})


@maps("sym_size.int")
def size(node: Node, input: Expression, dim: int) -> Operand:
    return input.shape[dim]


@maps("python.getitem")
def getitem(node: Node, values: Sequence[Operand], index: int) -> Operand:
    return values[index]


@maps("scalar_tensor")
def scalar_tensor(node: Node, value: Operand, *, dtype: torch.dtype | None = None) -> Operand:
    if isinstance(value, Expression):
        return value
    return record("full", shape=(), value=value, dtype=dtype_of(node.meta["val"].dtype))
