"""What operators without a mapping consist of: torch's own decompositions into those that have one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from mithril.interop.mapping.registry import mapping_of

Table = dict[Any, Callable[..., Any]]


WRITTEN = "written_as"
"""What a node's meta calls the operator of the module that the node is a part of."""


def decompose(program: ExportedProgram) -> ExportedProgram:
    """The program with functional operators only, and in place of operators without a mapping what they consist of."""
    missing = unmapped(program)
    lines = {node.meta.get("stack_trace"): node.target for node in missing}
    known = {node.target for node in missing} & table().keys()
    program = program.run_decompositions({target: table()[target] for target in known})
    while known := {node.target for node in unmapped(program)} & table().keys():
        program = program.run_decompositions({target: table()[target] for target in known})
    for node in unmapped(program):
        node.meta[WRITTEN] = lines.get(node.meta.get("stack_trace"), node.target)
    return program


def unmapped(program: ExportedProgram) -> list[Node]:
    """Calls of operators that have no mapping, in the program and in the graphs that it calls."""
    graphs = (part.graph for part in program.graph_module.modules() if isinstance(part, GraphModule))
    return [node for graph in graphs for node in graph.nodes if is_operator(node) and mapping_of(node.target) is None]


def is_operator(node: Node) -> bool:
    """Whether the node calls an operator with a schema, and no Python function on sizes."""
    return node.op == "call_function" and hasattr(node.target, "_schema")


@cache
def table() -> Table:
    """Decompositions of all operators that have no mapping; operators that have one stay whole."""
    from torch._decomp import decomposition_table
    from torch.export import default_decompositions

    known: Table = {**decomposition_table, **dict(default_decompositions().items())}
    return {target: function for target, function in known.items() if mapping_of(target) is None}
