"""Folding: what depends on constants only is computed once, on NumPy, when a model is compiled."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mithril.errors import OperatorError
from mithril.physical.graph import Graph, Node, Value
from mithril.physical.passes import count_uses, replace_values
from mithril.types import Dim, DType, free_name

if TYPE_CHECKING:
    from mithril.backends.base import Backend

MAX_FOLDED = 2**24
"""Most values that are computed from fewer when a model is compiled."""

CHANNEL_AXIS = {"linear": 0, **{f"conv{n}d": 0 for n in (1, 2, 3)}, **{f"conv_transpose{n}d": 1 for n in (1, 2, 3)}}
"""Operators that a batch norm can be folded into, with the axis of their weight that holds output channels."""


def fold_batch_norms(graph: Graph, backend: Backend) -> Graph:
    """Put batch norms whose parameters are constants into the weight and bias of the operator before them."""
    uses = count_uses(graph)
    kept: list[Node] = []
    same: dict[int, Value] = {}
    for node in graph.nodes:
        before = node.inputs[0].node if node.op.name == "batch_norm" and isinstance(node.inputs[0], Value) else None
        if before is not None and uses[id(node.inputs[0])] == 1 and _folds(node, before):
            _fold_batch_norm(node, before, graph, backend, uses)
            before.outputs[0].hint = node.outputs[0].hint
            same[id(node.outputs[0])] = before.outputs[0]
        else:
            kept.append(node)
    graph.nodes = kept
    return replace_values(graph, same)


def _folds(norm: Node, before: Node) -> bool:
    name, groups = before.op.name, before.attributes.get("groups", 1)
    if name not in CHANNEL_AXIS or ("transpose" in name and groups != 1):
        return False
    if name == "linear" and len(before.outputs[0].shape) != 2:
        return False  # its channels are the last axis, those of the norm the second
    values = [v for v in (*norm.inputs[1:], *before.inputs[1:]) if v is not None]
    return all(isinstance(v, Value) and v.kind == "constant" for v in values)


def _fold_batch_norm(norm: Node, before: Node, graph: Graph, backend: Backend, uses: dict[int, int]) -> None:
    """In float64: weight * scale, and bias or 0, normalized like an output."""
    mean, var, gain, shift = (_float64(v, backend) for v in norm.inputs[1:])
    weight, bias = before.inputs[1:]
    scale = (1.0 if gain is None else gain) / np.sqrt(var + norm.attributes["eps"])
    start = (0.0 if bias is None else _float64(bias, backend)) - mean
    data = _float64(weight, backend)
    axis = CHANNEL_AXIS[before.op.name]
    data = data * scale.reshape(-1, *(1,) * (data.ndim - axis - 1))
    folded_bias = start * scale + (0.0 if shift is None else shift)
    stem = weight.name.removesuffix("weight")
    names = [weight.name, f"{stem}bias" if bias is None else bias.name]
    for old, name in zip((weight, bias), names):
        if old is not None and uses[id(old)] == 1:
            del graph.inputs[name]  # its name is free for the folded one
    folded = [_add_constant(graph, n, d, weight.dtype) for n, d in zip(names, (data, folded_bias))]
    before.inputs = (before.inputs[0], *folded)


def _float64(value: Value | None, backend: Backend) -> Any:
    if value is None:
        return None
    data = backend.to_numpy(value.data) if backend.is_array(value.data) else value.data
    return np.asarray(data, np.float64)


def _add_constant(graph: Graph, name: str, data: Any, dtype: DType, value: Value | None = None) -> Value:
    """A value, new or formerly computed, as a constant input of the graph."""
    name = free_name(name, graph.inputs)
    value = value or Value(name, (), dtype)
    value.kind, value.node, value.name, value.data = "constant", None, name, data
    value.shape, value.origin, value.hint = tuple(data.shape), "the shape of a constant", value.hint or name
    graph.inputs[name] = value
    return value


def fold_constants(graph: Graph, backend: Backend) -> Graph:
    """Replace nodes that read constants only by their values."""
    constants = {id(v) for v in graph.inputs.values() if v.kind == "constant"}
    if not constants:
        return graph
    folded: list[Node] = []
    for node in graph.nodes:
        read = list(node.values())
        fixed = read and all(id(v) in constants for v in read) and not node.op.random
        if fixed and not _is_open(node) and not _is_large(node):
            folded.append(node)
            constants |= {id(v) for v in node.outputs}
    if folded:
        _run(folded, graph, backend)
    return graph


def _is_open(node: Node) -> bool:
    return any(isinstance(p, Dim) for v in node.attributes.values() for p in (v if isinstance(v, tuple) else (v,)))


def _is_large(node: Node) -> bool:
    """Whether it makes many values of few, which are better made when they are needed."""
    made, read = ([math.prod(v.shape) for v in part if not v.is_open] for part in (node.outputs, node.values()))  # type: ignore[type-var]
    return max(made, default=0) > max(MAX_FOLDED, *read)  # type: ignore[type-var]


def _run(folded: list[Node], graph: Graph, backend: Backend) -> None:
    """Evaluate a part of the graph and keep the values that the rest reads."""
    from mithril.backends import NumpyBackend
    from mithril.codegen.module import generate

    inner = {id(v) for node in folded for v in node.outputs}
    chosen = {id(n) for n in folded}
    rest = [n for n in graph.nodes if id(n) not in chosen]
    wanted = {id(v): v for n in rest for v in n.values() if id(v) in inner}
    wanted |= {id(v): v for v in graph.results() if id(v) in inner}
    sources = {v.name: v for n in folded for v in n.values() if v.kind == "constant"}
    names = {f"folded_{i}": v for i, v in enumerate(wanted.values())}
    reference = NumpyBackend()
    text = generate(Graph(graph.name, sources, folded, dict(names)), reference)
    namespace: dict[str, Any] = {}
    exec(compile(text, "<mithril constants>", "exec"), namespace)  # noqa: S102  (our own source)
    data = {k: _numpy(v, backend, reference) for k, v in sources.items()}
    try:
        results = namespace["evaluate"](data, {})
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        steps = ", ".join(node.op.name for node in folded[:5])
        raise OperatorError(f"{graph.name}: its constants cannot be computed with ({steps}): {error}.") from error
    graph.nodes = rest
    for key, value in names.items():
        assert value.node is not None
        path = [step.name for step in value.node.scope[:-1]]
        _add_constant(graph, "_".join([*path, value.hint or "constant"]), results[key], value.dtype, value)


def _numpy(value: Value, backend: Backend, reference: Backend) -> Any:
    data = backend.to_numpy(value.data) if backend.is_array(value.data) else value.data
    return reference.array(data, DType.float32 if value.dtype is DType.bfloat16 else value.dtype)
