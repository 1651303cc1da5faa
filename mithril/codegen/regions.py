"""The tree of submodels over the nodes of a graph, and which parts of it are the same code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Set
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from mithril.physical.graph import Graph, Node, Value, mapped
from mithril.physical.passes import count_uses
from mithril.physical.rules import hashable

SHORTEST_LOOP = 3
"""Fewer calls in a row are written one by one."""

SMALLEST_FUNCTION = 3
"""Submodels of fewer operators are written in place."""


Signature: TypeAlias = tuple[Hashable, ...]
"""What the code of a region depends on."""


@dataclass(eq=False)
class Region:
    """A submodel's nodes, in order, and what flows through its border."""

    name: str
    type: str
    prefix: str
    label: str = ""  # its name, or that of the model whose parameters it shares
    items: list[Item] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    arguments: list[Value] = field(default_factory=list)
    parameters: list[Value] = field(default_factory=list)
    results: list[Value] = field(default_factory=list)
    new_state: list[tuple[str, Value]] = field(default_factory=list)
    signature: Signature = ()

    def walk(self) -> Iterator[Region]:
        """Inner regions, outermost first."""
        for item in self.items:
            if isinstance(item, Region):
                yield item
                yield from item.walk()


Item: TypeAlias = Region | Node


def build_regions(graph: Graph, shaped: Set[str] = frozenset()) -> Region:
    """The tree of a graph, with borders and signatures. `shaped` names operators whose code depends on shapes."""
    root = Region(graph.name, "Model", "")
    path: list[Region] = [root]
    for node in graph.nodes:
        names = [s.name for s in node.scope[:-1]]
        depth = 0
        while depth < len(names) and depth + 1 < len(path) and path[depth + 1].name == names[depth]:
            depth += 1
        del path[depth + 1 :]
        for scope in node.scope[depth:-1]:
            outer = path[-1]
            shared = scope.parameters if scope.parameters.startswith(outer.prefix) else ""
            label = shared.removeprefix(outer.prefix) or scope.name
            region = Region(scope.name, scope.type, f"{outer.prefix}{label}_", label)
            outer.items.append(region)
            path.append(region)
        path[-1].items.append(node)
        for region in path:
            region.nodes.append(node)
    _find_borders(root, graph)
    for region in root.walk():
        region.signature = _signature(region, shaped)
    return root


def _find_borders(root: Region, graph: Graph) -> None:
    readers = count_uses(graph)
    state = {id(value): key for key, value in graph.new_state.items()}
    for region in root.walk():
        made: set[int] = set()
        inside: Counter[int] = Counter()
        for node in region.nodes:
            for value in node.values():
                inside[id(value)] += 1
                if id(value) not in made and inside[id(value)] == 1:
                    own = value.kind != "inner" and value.name.startswith(region.prefix)
                    (region.parameters if own else region.arguments).append(value)
            made |= {id(v) for v in node.outputs}
        for node in region.nodes:
            for value in node.outputs:
                key = state.get(id(value))
                own = key is not None and key.startswith(region.prefix)
                if own and key is not None:
                    region.new_state.append((key.removeprefix(region.prefix), value))
                if readers[id(value)] > inside[id(value)] + own:
                    region.results.append(value)


def _signature(region: Region, shaped: Set[str]) -> Signature:
    """Equal for regions of equal code, prefixes of parameters apart. Shapes count only where the code holds them."""
    numbers: dict[int, Any] = {id(v): ("argument", i) for i, v in enumerate(region.arguments)}
    numbers |= {id(v): ("parameter", v.name.removeprefix(region.prefix)) for v in region.parameters}
    rows = []

    def number(value: Value) -> Hashable:
        return numbers[id(value)]

    for index, node in enumerate(region.nodes):
        operands = mapped(node.inputs, number, hashable)
        shapes = tuple(v.shape for v in (*node.values(), *node.outputs)) if node.op.name in shaped else ()
        rows.append((node.op.name, operands, hashable(node.attributes), shapes))
        numbers |= {id(v): ("node", index, i) for i, v in enumerate(node.outputs)}
    results = tuple(numbers[id(v)] for v in region.results)
    state = tuple((key, numbers[id(v)]) for key, v in region.new_state)
    return (tuple(rows), results, state)


def repeated(root: Region) -> set[Signature]:
    """Signatures of the regions that become functions: those that would otherwise be written more than once."""
    counts: Counter[Signature] = Counter()

    def count(region: Region) -> None:
        for item in region.items:
            if isinstance(item, Region):
                counts[item.signature] += 1
                if counts[item.signature] == 1:
                    count(item)

    count(root)
    large = {r.signature for r in root.walk() if len(r.nodes) >= SMALLEST_FUNCTION and r.results}
    return {s for s, n in counts.items() if n > 1 and s in large}


def chains(items: list[Item], uses: dict[int, int]) -> dict[int, list[Region]]:
    """Runs of alike regions, numbered without gaps, in which each reads the one before and nothing else does.

    By the first region's place in `items`; these can be written as loops.
    """
    found: dict[int, list[Region]] = {}
    start = 0
    while start < len(items):
        run = [items[start]]
        while start + len(run) < len(items) and _follows(run[-1], items[start + len(run)], uses):
            run.append(items[start + len(run)])
        if len(run) >= SHORTEST_LOOP:
            found[start] = run  # type: ignore[assignment]
        start += len(run)
    return found


def _follows(first: Item, second: Item, uses: dict[int, int]) -> bool:
    if not (isinstance(first, Region) and isinstance(second, Region)) or first.signature != second.signature:
        return False
    (stem, number), (other, following) = numbered(first.label), numbered(second.label)
    if stem != other or number is None or following != number + 1 or len(first.results) != 1:
        return False
    handed = first.results[0]
    reads = sum(value is handed for node in second.nodes for value in node.values())
    if reads == 0 or uses[id(handed)] != reads or len(first.arguments) != len(second.arguments):
        return False
    place = next(i for i, value in enumerate(second.arguments) if value is handed)
    others = [i for i in range(len(first.arguments)) if i != place]
    return all(first.arguments[i] is second.arguments[i] for i in others)


def numbered(name: str) -> tuple[str, int | None]:
    """A name's stem and the number that ends it; None where that is no number as a loop counts (`b`, `b07`)."""
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    counts = digits == "0" or (0 < len(digits) < 10 and digits[0] != "0")
    return (stem, int(digits)) if counts else (name, None)


MAP_RANK = 4
"""Values of this rank or more are large, and worth freeing early."""


class Flow:
    """How long the values of one function live, and which of them its flow variables hold.

    A generated function walks its statements and sets `now` to the number of the one it writes.
    """

    def __init__(self, region: Region, called: Set[Signature], results: list[Value]):
        self.now = 0
        self.holds: dict[str, Value] = {}
        self.places: dict[int, int] = {}  # number of a node's statement
        self.called = called
        self._count = 0
        self._number(region.items)
        self.reads: dict[int, tuple[int, int]] = {}  # first and last statement that reads a value
        for node in region.nodes:
            at = self.places[id(node)]
            for value in node.values():
                self.reads[id(value)] = (self.reads.get(id(value), (at, at))[0], at)
        end = len(region.nodes)
        self.reads |= {id(value): (end, end) for value in (*region.results, *results)}

    def _number(self, items: list[Item]) -> None:
        for item in items:
            if isinstance(item, Region) and item.signature not in self.called:
                self._number(item.items)
                continue
            nodes = [item] if isinstance(item, Node) else item.nodes
            self.places |= dict.fromkeys(map(id, nodes), self._count)
            self._count += 1

    def is_over(self, name: str) -> bool:
        """Whether the variable holds a value that no later statement reads."""
        return name in self.holds and self.reads.get(id(self.holds[name]), (0, 0))[1] <= self.now

    def passes_on(self, value: Value) -> bool:
        """Whether a value is large, without a name of the author's, and all its readers are the next statement."""
        large = isinstance(value.shape, tuple) and len(value.shape) >= MAP_RANK
        return large and not value.named and self.reads.get(id(value)) == (self.now + 1, self.now + 1)
