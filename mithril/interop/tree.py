"""The calls of submodules in an exported graph, as a tree over its nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

from torch.fx import Node

from mithril.types import identifier, is_name

Call = tuple[str, str, str]
"""One step of a node's module stack: the call (`blocks.0@1` for a second one), the module's path, its class."""

UNKNOWN = "_empty_nn_module_stack_from_metadata_hook"
"""torch's path for sizes that it has read off the inputs."""


@dataclass(eq=False)
class Region:
    """One call of a module: its nodes in order, and what flows through its border."""

    call: str
    path: str
    name: str
    """What the model is called inside the region around it."""
    type: str
    outer: Region | None = None
    owns_path: bool = True
    """Whether keys of parameters inside begin with the module's path."""
    items: list[Item] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    arguments: list[Node] = field(default_factory=list)
    results: list[Node] = field(default_factory=list)

    def walk(self) -> Iterator[Region]:
        """This region and all inside, outermost first."""
        yield self
        for item in self.items:
            if isinstance(item, Region):
                yield from item.walk()

    def around(self) -> list[Region]:
        """This region and those that it is in, from the root."""
        return [*(self.outer.around() if self.outer else []), self]


Item: TypeAlias = Region | Node


def build_tree(nodes: Iterable[Node], tensors: Mapping[Node, str], root_type: str) -> tuple[Region, dict[Node, Region]]:
    """The tree of a functional graph, and the region of each node.

    A module whose parts are numbered (`nn.Sequential`) gets no region of its own: its parts are `layer1_0`,
    `layer1_1` in the region around it, so that names are identifiers and keys stay those of the state dict.

    Args:
        tensors: placeholders of parameters, with their names.
    """
    root = Region("", "", "", root_type)
    regions: dict[Node, Region] = {}
    nodes = list(nodes)
    numbered = _numbered_containers(nodes, tensors)
    path: list[Region] = [root]
    stack: list[Call] = []
    for node in nodes:
        if node.meta.get("nn_module_stack"):
            stack = [c for c in _stack(node) if c[1] not in numbered]
        depth = 0
        while depth < len(stack) and depth + 1 < len(path) and path[depth + 1].call == stack[depth][0]:
            depth += 1
        del path[depth + 1 :]
        for call in stack[depth:]:
            path.append(_open(call, path[-1]))
        path[-1].items.append(node)
        regions[node] = path[-1]
        for region in path:
            region.nodes.append(node)
    _find_borders(root, tensors)
    return root, regions


def _stack(node: Node) -> list[Call]:
    """Calls around a node, without the root."""
    steps = (node.meta.get("nn_module_stack") or {}).items()
    return [(key, path, str(kind).rsplit(".", 1)[-1]) for key, (path, kind) in steps if path and path != UNKNOWN]


def _numbered_containers(nodes: Iterable[Node], tensors: Mapping[Node, str]) -> set[str]:
    """Paths of modules, the root apart, with a part or a parameter whose name is a number."""
    found: set[str] = set()
    for stack in map(_stack, nodes):
        for (_, outer, _), (_, inner, _) in pairwise(stack):
            if _relative(inner, outer)[:1].isdigit():
                found.add(outer)
    for name in tensors.values():
        owner, _, last = name.rpartition(".")
        if last[:1].isdigit() and owner:
            found.add(owner)
    return found


def _relative(path: str, outer: str) -> str:
    """The rest of a path inside of another one; the whole path where it is not inside."""
    return path[len(outer) + 1 :] if outer and path.startswith(f"{outer}.") else path


def _open(call: Call, outer: Region) -> Region:
    """A new region, named so that no other in the one around it has its name."""
    key, path, kind = call
    inside = not outer.path or path.startswith(f"{outer.path}.")
    name = _relative(path, outer.path).replace(".", "_") if inside else path.rpartition(".")[2]
    owns = outer.owns_path and inside and is_name(name)
    if not is_name(name):
        name = identifier(f"{kind.lower()}_{name}")
    taken = {item.name for item in outer.items if isinstance(item, Region)}
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}_call{number}"
    region = Region(key, path, unique, kind, outer, owns)
    outer.items.append(region)
    return region


def _find_borders(root: Region, tensors: Mapping[Node, str]) -> None:
    """What each region reads from outside, parameters apart, and what is read of it outside."""
    for region in root.walk():
        inside = set(region.nodes)
        sources = dict.fromkeys(s for node in region.nodes for s in node.all_input_nodes)
        region.arguments = [s for s in sources if s not in inside and s not in tensors]
        region.results = [node for node in region.nodes if any(user not in inside for user in node.users)]
