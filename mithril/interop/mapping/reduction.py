"""Reductions, sorting, and products of matrices."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from mithril.interop.mapping.registry import MAPPINGS, axes, cast, maps, rank_of
from mithril.logical.connection import record


def _reduction(name: str) -> Any:
    def reduce(node: Node, input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
        source: Any = node.args[0]
        value = cast(input, source.meta["val"].dtype, dtype)
        return record(name, input=value, axis=axes(dim), keepdims=keepdim)

    return reduce


NAMES = {
    "sum": "sum", "mean": "mean", "prod": "prod", "amax": "max", "amin": "min", "any": "any", "all": "all",
    "argmax": "argmax", "argmin": "argmin", "logsumexp": "logsumexp", "max.default": "max", "min.default": "min",
}  # fmt: skip
MAPPINGS.update({aten: _reduction(name) for aten, name in NAMES.items()})


@maps("max.dim", "min.dim")
def extremum(node: Node, input: Any, dim: int, keepdim: bool = False) -> Any:
    word = "max" if "max" in str(node.target) else "min"
    return tuple(record(name, input=input, axis=dim, keepdims=keepdim) for name in (word, f"arg{word}"))


@maps("max.other", "min.other")
def larger(node: Node, left: Any, right: Any) -> Any:
    return record("maximum" if "max" in str(node.target) else "minimum", left=left, right=right)


@maps("var.correction", "std.correction")
def spread(node: Node, input: Any, dim: Any = None, *, correction: Any = 1, keepdim: bool = False) -> Any:
    name = "variance" if "var" in str(node.target) else "std"
    correction = 1 if correction is None else correction
    return record(name, input=input, axis=axes(dim), keepdims=keepdim, correction=correction)


@maps("var.dim", "std.dim", "var.default", "std.default")
def spread_unbiased(node: Node, input: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False) -> Any:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return spread(node, input, dim, correction=int(unbiased), keepdim=keepdim)


@maps("var_mean.correction")
def variance_and_mean(node: Node, input: Any, dim: Any = None, *, correction: Any = 1, keepdim: bool = False) -> Any:
    variance = spread(node, input, dim, correction=correction, keepdim=keepdim)
    return variance, record("mean", input=input, axis=axes(dim), keepdims=keepdim)


@maps("linalg_vector_norm", "norm.ScalarOpt_dim")
def vector_norm(
    node: Node, input: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    return record("norm", input=input, ord=2 if ord is None else ord, axis=axes(dim), keepdims=keepdim)


@maps("cumsum", "cumprod", "logcumsumexp")
def cumulative(node: Node, input: Any, dim: int, *, dtype: Any = None) -> Any:
    source: Any = node.args[0]
    name = str(node.target).split(".")[1]
    return record(name, input=cast(input, source.meta["val"].dtype, dtype), axis=dim)


@maps("topk")
def topk(node: Node, input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    found = record("topk", input=input, k=k, axis=dim, largest=largest)
    return found.values, found.indices


@maps("sort")
def sort(node: Node, input: Any, dim: int = -1, descending: bool = False) -> Any:
    return tuple(record(name, input=input, axis=dim, descending=descending) for name in ("sort", "argsort"))


@maps("sort.stable")
def sort_stable(node: Node, input: Any, *, stable: Any = None, dim: int = -1, descending: bool = False) -> Any:
    return sort(node, input, dim, descending)


@maps("argsort.default")
def argsort(node: Node, input: Any, dim: int = -1, descending: bool = False) -> Any:
    return record("argsort", input=input, axis=dim, descending=descending)


@maps("argsort.stable")
def argsort_stable(node: Node, input: Any, *, stable: bool, dim: int = -1, descending: bool = False) -> Any:
    return record("argsort", input=input, axis=dim, descending=descending)


# Products


@maps("matmul", "mm", "bmm", "mv", "dot", "linalg_matmul")
def matmul(node: Node, left: Any, right: Any) -> Any:
    return left @ right


@maps("addmm", "baddbmm")
def addmm(node: Node, input: Any, left: Any, right: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    product = left @ right if alpha == 1 else (left @ right) * alpha
    return product + (input if beta == 1 else input * beta)


@maps("linear")
def linear(node: Node, input: Any, weight: Any, bias: Any = None) -> Any:
    optional = {} if bias is None else {"bias": bias}
    return record("linear", input=input, weight=weight, **optional)


@maps("einsum")
def einsum(node: Node, equation: str, inputs: Any, *, path: Any = None) -> Any:
    return record("einsum", input=list(inputs), equation=equation.replace(" ", ""))


@maps("outer")
def outer(node: Node, left: Any, right: Any) -> Any:
    return record("outer", left=left, right=right)


@maps("cosine_similarity")
def cosine_similarity(node: Node, left: Any, right: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    norms = (record("clip", input=record("norm", input=v, axis=dim, keepdims=True), min=eps) for v in (left, right))
    first, second = norms
    return (left / first * (right / second)).sum(axis=dim)


@maps("linalg_inv", "inverse")
def inverse(node: Node, input: Any) -> Any:
    return record("inverse", input=input)


@maps("cdist", "_cdist_forward")
def cdist(node: Node, left: Any, right: Any, p: float = 2, mode: Any = None) -> Any:
    assert rank_of(node) >= 2
    difference = left.expand_dims(-2) - right.expand_dims(-3)
    return record("norm", input=difference, ord=p, axis=-1)
