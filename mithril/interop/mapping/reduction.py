"""Reductions, sorting, and products of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from mithril.errors import ConversionError
from mithril.interop.mapping.registry import MAPPINGS, Mapping, axes, cast, maps, of_vectors, rank_of, shape_of
from mithril.logical.connection import Expression, Operand, record


def _reduction(name: str) -> Mapping:
    def reduce(
        node: Node,
        input: Operand,
        dim: int | Sequence[int] | None = None,
        keepdim: bool = False,
        *,
        dtype: torch.dtype | None = None,
    ) -> Operand:
        source: Any = node.args[0]
        value = cast(input, source.meta["val"].dtype, dtype)
        return record(name, input=value, axis=axes(dim), keepdims=keepdim)

    return of_vectors(reduce)


NAMES = {
    "sum": "sum", "mean": "mean", "prod": "prod", "amax": "max", "amin": "min", "any": "any", "all": "all",
    "argmax": "argmax", "argmin": "argmin", "logsumexp": "logsumexp", "max.default": "max", "min.default": "min",
}  # fmt: skip
MAPPINGS.update({aten: _reduction(name) for aten, name in NAMES.items()})


@maps("max.dim", "min.dim")
@of_vectors
def extremum(node: Node, input: Operand, dim: int, keepdim: bool = False) -> tuple[Operand, ...]:
    """The value at its index, which alone has the gradient where several are equal."""
    word = "max" if "max" in str(node.target) else "min"
    index = record(f"arg{word}", input=input, axis=dim, keepdims=True)
    found = record("take_along_axis", input=input, index=index, axis=dim), index
    return found if keepdim else tuple(record("squeeze", input=value, axis=dim) for value in found)


@maps("max.other", "min.other")
def larger(node: Node, left: Operand, right: Operand) -> Operand:
    return record("maximum" if "max" in str(node.target) else "minimum", left=left, right=right)


@maps("var.correction", "std.correction")
@of_vectors
def spread(
    node: Node,
    input: Operand,
    dim: int | Sequence[int] | None = None,
    *,
    correction: float | None = 1,
    keepdim: bool = False,
) -> Operand:
    name = "variance" if "var" in str(node.target) else "std"
    correction = 1 if correction is None else correction
    return record(name, input=input, axis=axes(dim), keepdims=keepdim, correction=correction)


@maps("var.dim", "std.dim", "var.default", "std.default")
@of_vectors
def spread_unbiased(
    node: Node, input: Operand, dim: int | Sequence[int] | None = None, unbiased: bool = True, keepdim: bool = False
) -> Operand:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return spread(node, input, dim, correction=int(unbiased), keepdim=keepdim)


@maps("var_mean.correction")
@of_vectors
def variance_and_mean(
    node: Node,
    input: Operand,
    dim: int | Sequence[int] | None = None,
    *,
    correction: float | None = 1,
    keepdim: bool = False,
) -> tuple[Operand, ...]:
    variance = spread(node, input, dim, correction=correction, keepdim=keepdim)
    return variance, record("mean", input=input, axis=axes(dim), keepdims=keepdim)


@maps("linalg_vector_norm", "norm.ScalarOpt_dim")
@of_vectors
def vector_norm(
    node: Node,
    input: Operand,
    ord: float | None = 2,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Operand:
    source: Any = node.args[0]
    value = cast(input, source.meta["val"].dtype, dtype)
    return record("norm", input=value, ord=2 if ord is None else ord, axis=axes(dim), keepdims=keepdim)


@maps("cumsum", "cumprod", "logcumsumexp")
@of_vectors
def cumulative(node: Node, input: Operand, dim: int, *, dtype: torch.dtype | None = None) -> Operand:
    source: Any = node.args[0]
    name = str(node.target).split(".")[1]
    return record(name, input=cast(input, source.meta["val"].dtype, dtype), axis=dim)


@maps("topk")
@of_vectors
def topk(
    node: Node, input: Operand, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Operand, ...]:
    found = record("topk", input=input, k=k, axis=dim, largest=largest)
    return found.values, found.indices


@maps("sort")
@of_vectors
def sort(node: Node, input: Operand, dim: int = -1, descending: bool = False) -> tuple[Operand, ...]:
    return tuple(record(name, input=input, axis=dim, descending=descending) for name in ("sort", "argsort"))


@maps("sort.stable")
@of_vectors
def sort_stable(
    node: Node, input: Operand, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Operand, ...]:
    return sort(node, input, dim, descending)


@maps("argsort.default")
@of_vectors
def argsort(node: Node, input: Operand, dim: int = -1, descending: bool = False) -> Operand:
    return record("argsort", input=input, axis=dim, descending=descending)


@maps("argsort.stable")
@of_vectors
def argsort_stable(node: Node, input: Operand, *, stable: bool, dim: int = -1, descending: bool = False) -> Operand:
    return record("argsort", input=input, axis=dim, descending=descending)


# Products


@maps("matmul", "mm", "bmm", "mv", "dot", "linalg_matmul")
def matmul(node: Node, left: Expression, right: Expression) -> Operand:
    return left @ right


@maps("addmm", "baddbmm")
def addmm(
    node: Node, input: Operand, left: Expression, right: Expression, *, beta: float = 1, alpha: float = 1
) -> Operand:
    product = left @ right if alpha == 1 else (left @ right) * alpha
    return product + (input if beta == 1 else input * beta)


@maps("addbmm")
def addbmm(
    node: Node, input: Operand, left: Expression, right: Expression, *, beta: float = 1, alpha: float = 1
) -> Operand:
    return input * beta + (left @ right).sum(axis=0) * alpha


@maps("_trilinear")
def trilinear(
    node: Node,
    first: Operand,
    second: Operand,
    third: Operand,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int = 1,
) -> Operand:
    """The product of three tensors, each with new axes, summed over some: what `bilinear` is made of."""
    parts = zip((first, second, third), (expand1, expand2, expand3))
    wide = [record("expand_dims", input=v, axis=tuple(axes)) if axes else v for v, axes in parts]
    product: Any = wide[0] * wide[1] * wide[2]
    return product.sum(axis=tuple(sumdim)) if sumdim else product


@maps("linalg_cholesky", "cholesky")
def cholesky(node: Node, input: Operand, upper: bool = False) -> Operand:
    found = record("cholesky", input=input)
    return record("swapaxes", input=found, axis1=-2, axis2=-1) if upper else found


@maps("linalg_solve")
def solve(node: Node, left: Operand, right: Operand, *, left_side: bool = True) -> Operand:
    if not left_side or rank_of(node.args[1]) != rank_of(node.args[0]):
        raise ConversionError("linalg.solve has a counterpart for matrices on the right only.")
    return record("solve", left=left, right=right)


@maps("linear")
def linear(node: Node, input: Operand, weight: Operand, bias: Operand | None = None) -> Operand:
    optional = {} if bias is None else {"bias": bias}
    return record("linear", input=input, weight=weight, **optional)


@maps("einsum")
def einsum(node: Node, equation: str, inputs: Sequence[Operand], *, path: Sequence[int] | None = None) -> Operand:
    return record("einsum", input=list(inputs), equation=equation.replace(" ", ""))


@maps("outer")
def outer(node: Node, left: Operand, right: Operand) -> Operand:
    return record("outer", left=left, right=right)


@maps("cosine_similarity")
@of_vectors
def cosine_similarity(node: Node, left: Operand, right: Operand, dim: int = 1, eps: float = 1e-8) -> Operand:
    if shape_of(node.args[0]) != shape_of(node.args[1]):
        whole = tuple(torch.broadcast_shapes(shape_of(node.args[0]), shape_of(node.args[1])))
        left, right = (record("broadcast_to", input=v, shape=whole) for v in (left, right))
    norms = (record("clip", input=record("norm", input=v, axis=dim, keepdims=True), min=eps) for v in (left, right))
    first, second = norms
    return (left / first * (right / second)).sum(axis=dim)


@maps("linalg_inv", "inverse")
def inverse(node: Node, input: Operand) -> Operand:
    return record("inverse", input=input)


@maps("cdist", "_cdist_forward")
def cdist(node: Node, left: Expression, right: Expression, p: float = 2, mode: int | None = None) -> Operand:
    assert rank_of(node) >= 2
    difference = left.expand_dims(-2) - right.expand_dims(-3)
    return record("norm", input=difference, ord=p, axis=-1)
