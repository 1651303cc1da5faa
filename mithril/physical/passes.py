"""Rewrites of the physical graph. Each takes a graph and returns it, better; `optimise` runs them in order."""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

from mithril.physical.graph import Graph, Node, Value, mapped, verify
from mithril.physical.rules import hashable

Pass = Callable[[Graph], Graph]


def optimise(graph: Graph, passes: Iterable[Pass]) -> Graph:
    """All passes in order, with the graph checked after each."""
    for rewrite in passes:
        graph = verify(rewrite(graph))
    return graph


def remove_dead(graph: Graph) -> Graph:
    """Drop nodes whose outputs nobody needs, and inputs that nothing reads."""
    needed = {id(v) for v in graph.results()}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(id(v) in needed for v in node.outputs):
            kept.append(node)
            needed.update(id(v) for v in node.values())
    graph.nodes = kept[::-1]
    graph.unused |= {k: v for k, v in graph.inputs.items() if id(v) not in needed}
    graph.inputs = {k: v for k, v in graph.inputs.items() if id(v) in needed}
    return graph


def remove_duplicates(graph: Graph) -> Graph:
    """Compute equal operators on equal inputs once. Random operators have keys of their own, so they stay apart."""
    seen: dict[Any, Node] = {}
    same: dict[int, Value] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        node.inputs = _replaced(node.inputs, same)
        key = (node.op.name, mapped(node.inputs, lambda v: (id(v), "value"), hashable), hashable(node.attributes))
        first = seen.setdefault(key, node)
        if first is node:
            kept.append(node)
        else:
            same.update((id(old), new) for old, new in zip(node.outputs, first.outputs))
    graph.nodes = kept
    return replace_values(graph, same)


def replace_values(graph: Graph, same: dict[int, Value]) -> Graph:
    """Let nodes, outputs and state read other values."""
    if not same:
        return graph
    for node in graph.nodes:
        node.inputs = _replaced(node.inputs, same)
    graph.outputs = {k: _replaced(v, same) for k, v in graph.outputs.items()}
    graph.new_state = {k: _replaced(v, same) for k, v in graph.new_state.items()}
    return graph


def count_uses(graph: Graph) -> Counter[int]:
    """How often each value is read, results counted."""
    read = (value for node in graph.nodes for value in node.values())
    return Counter(map(id, chain(read, graph.results())))


def _replaced(item: object, same: dict[int, Value]) -> Any:
    return mapped(item, lambda value: same.get(id(value), value))
