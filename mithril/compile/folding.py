"""Constant folding: operators on constants are run once, on NumPy, when a model is compiled."""

from __future__ import annotations

from typing import Any

from mithril.physical.graph import Graph, Node, Value
from mithril.types import Dim, DType


def fold_constants(graph: Graph, backend: Any) -> Graph:
    """Replace nodes that read constants only by their values."""
    constants = {id(v) for v in graph.inputs.values() if v.kind == "constant"}
    if not constants:
        return graph
    folded: list[Node] = []
    for node in graph.nodes:
        read = list(node.values())
        if read and all(id(v) in constants for v in read) and not node.op.random and not _is_open(node):
            folded.append(node)
            constants |= {id(v) for v in node.outputs}
    if folded:
        _run(folded, graph, backend)
    return graph


def _is_open(node: Node) -> bool:
    return any(
        isinstance(v, Dim) or (isinstance(v, tuple) and any(isinstance(p, Dim) for p in v))
        for v in node.attributes.values()
    )


def _run(folded: list[Node], graph: Graph, backend: Any) -> None:
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
    text = generate(Graph(graph.name, sources, folded, dict(names)), reference.name, reference.xp, reference.imports)
    namespace: dict[str, Any] = {}
    exec(compile(text, "<mithril constants>", "exec"), namespace)  # noqa: S102  (our own source)
    data = {k: _numpy(v, backend, reference) for k, v in sources.items()}
    results = namespace["evaluate"](data, {})
    for key, value in names.items():
        value.kind, value.node = "constant", None
        value.name = _free_name(graph, value.hint or "constant")
        value.data, value.shape = results[key], tuple(results[key].shape)
        value.origin = "the shape of a constant"
        graph.inputs[value.name] = value
    graph.nodes = rest


def _numpy(value: Value, backend: Any, reference: Any) -> Any:
    data = backend.to_numpy(value.data) if backend.is_array(value.data) else value.data
    return reference.array(data, DType.float32 if value.dtype is DType.bfloat16 else value.dtype)


def _free_name(graph: Graph, name: str) -> str:
    number, unique = 1, name
    while unique in graph.inputs:
        number += 1
        unique = f"{name}_{number}"
    return unique
