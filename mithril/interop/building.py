"""The tree of an exported module as logical models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.fx.node import Argument

from mithril.errors import ConversionError, MithrilError
from mithril.interop.exporting import Exported, source_line, whereabouts
from mithril.interop.mapping import mapping
from mithril.interop.mapping.decompose import WRITTEN
from mithril.interop.mapping.registry import IGNORED, Mapping, dtype_of
from mithril.interop.tree import Region, build_tree
from mithril.interop.weights import as_numpy, key_of
from mithril.logical.connection import Connection, IOKey, place
from mithril.logical.model import Model
from mithril.logical.primitive import primitive
from mithril.types import free_name, identifier, is_name


def build_model(exported: Exported, root_type: str) -> Model:
    """The model of a functional graph.

    Raises:
        ConversionError: operators that have no mapping, all of them in one list.
    """
    instead = drop_unchanged(exported.graph)
    exported.outputs = {name: instead.get(item, item) for name, item in exported.outputs.items()}
    steps = [node for node in exported.graph.nodes if node.op == "call_function"]
    _check_mapped(steps)
    held = {**exported.tensors, **dict.fromkeys(exported.constants, "")}
    root, regions = build_tree(steps, held, root_type)
    return _Builder(exported, root, regions).model


def drop_unchanged(graph: Graph) -> dict[Node, object]:
    """Take out nodes that return their input and nodes that nobody reads. Returns what stands for the former."""
    instead = {}
    for node in list(graph.nodes):
        if node.op == "call_function" and _returns_input(node):
            instead[node] = node.args[0]
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users:
            graph.erase_node(node)
    return instead


def _returns_input(node: Node) -> bool:
    """Whether the mapping of a node gives back the very value that it was given."""
    function = mapping(node)
    if function is None or not node.args or not isinstance(node.args[0], Node):
        return False
    mark = IOKey()
    try:
        return _call(function, node, (mark, *node.args[1:]), node.kwargs) is mark
    except (ConversionError, TypeError, AttributeError, AssertionError):
        return False


def _call(function: Mapping, node: Node, args: Iterable[object], kwargs: dict[str, Argument]) -> object:
    return function(node, *args, **{k: v for k, v in kwargs.items() if k not in IGNORED})


def _check_mapped(steps: list[Node]) -> None:
    unmapped: dict[str, Node] = {}
    for node in steps:
        if mapping(node) is None:
            unmapped.setdefault(str(node.meta.get(WRITTEN, node.target)), node)
    if unmapped:
        notes = [line for name, node in unmapped.items() for line in (name, *(f"  {w}" for w in whereabouts(node)))]
        advice = "Write these lines with other operators, or map them: see mithril.interop.mapping.maps."
        raise ConversionError("The module uses operators that have no mapping:", [*notes, advice])


class _Builder:
    """Makes a model of each region, from the root inwards."""

    def __init__(self, exported: Exported, root: Region, regions: dict[Node, Region]):
        self.exported = exported
        self.keys = _keys(exported.graph.nodes)
        self.first: dict[str, Model] = {}  # the model of a module's first call
        self.homes = {node: self._home(node, root, regions) for node in (*exported.tensors, *exported.constants)}
        self.place = place()
        self.model = self._build(root, {})

    def _home(self, tensor: Node, root: Region, regions: dict[Node, Region]) -> str:
        """Path of the module in whose model a parameter or constant is declared, wired from there to its readers.

        It is the innermost one that all readers are in and whose keys begin with its path, so that the parameter's
        key is its name in the state dict.
        """
        name = self.exported.tensors.get(tensor)
        around = [regions[user].around() for user in tensor.users if user in regions]
        shared = [paths for paths in zip(*([r.path for r in chain] for chain in around)) if len(set(paths)) == 1]
        homes = [paths[0] for paths in shared]
        owners = {region.path for chain in around for region in chain if region.owns_path}
        fitting = [
            path for path in homes if path in owners and (not path or name is None or name.startswith(f"{path}."))
        ]
        return fitting[-1] if fitting else ""

    # One region

    def _build(self, region: Region, outer: dict[Node, object]) -> Model:
        """The model of a region. `outer` has the values that it reads, as its own connections or static."""
        model = Model()
        model.name, model.type_name = region.name or None, identifier(region.type)
        first = self.first.setdefault(region.path, model)
        if first is not model and region.path:
            model.shares = first
        values: dict[Node, Any] = {}
        if region.outer is None:
            self._declare_inputs(model, values)
        else:
            values = {node: self._argument(model, node, value, len(outer)) for node, value in outer.items()}
        inputs = [value for value in values.values() if isinstance(value, Connection)]
        for item in region.items:
            if isinstance(item, Region):
                self._place(model, region, item, values)
            else:
                values[item] = self._convert(model, region, item, values)
        self._expose(model, region, values)
        model.cin_wire = inputs[0] if inputs else None
        return model

    def _declare_inputs(self, model: Model, values: dict[Node, object]) -> None:
        for node, name in self.exported.inputs.items():
            value = node.meta["val"]
            shape = [s if isinstance(s, int) else self.exported.sizes.get(str(s)) for s in value.shape]
            kind = _kind(value.dtype)
            values[node] = model.declared_connection(IOKey(name, shape=shape, type=kind))

    def _argument(self, model: Model, node: Node, value: object, count: int) -> object:
        """A key of the model for a value from outside; a size or number stays what it is."""
        if not isinstance(value, Connection):
            return value
        return model.named_connection("input" if count == 1 else self.keys[node])

    def _place(self, model: Model, region: Region, inner: Region, values: dict[Node, object]) -> None:
        """Add the model of an inner region, and take over what others read of it."""
        needed = {node: self._value(model, region, node, values) for node in inner.arguments}
        for tensor in self._tensors_from_outside(inner):
            needed[tensor] = self._value(model, region, tensor, values)
        child = self._build(inner, needed)
        keys = {node: "input" if len(needed) == 1 else self.keys[node] for node in needed}
        wiring = child(**{keys[n]: v for n, v in needed.items() if isinstance(v, Connection)})
        wiring.place = self._place_of(inner.nodes[0])
        node = model.add_wiring(wiring)
        for result, key in zip(inner.results, _result_keys(inner)):
            values[result] = model.output_of(node, key)

    def _tensors_from_outside(self, inner: Region) -> list[Node]:
        """Parameters that are read in a region but declared further out."""
        paths = {region.path for region in inner.walk() if region.owns_path}
        read = dict.fromkeys(s for node in inner.nodes for s in node.all_input_nodes if s in self.homes)
        return [tensor for tensor in read if self.homes[tensor] not in paths or not inner.owns_path]

    def _value(self, model: Model, region: Region, node: Node, values: dict[Node, object]) -> object:
        """A value of the graph in this model; parameters and constants enter where they are first read."""
        if node not in values:
            if node in self.exported.tensors:
                values[node] = self._parameter(model, region, node)
            else:
                values[node] = self._constant(model, node)
        return values[node]

    def _parameter(self, model: Model, region: Region, node: Node) -> Connection:
        name = self.exported.tensors[node]
        value = self.exported.values[name]
        inside = name[len(region.path) + 1 :] if region.path else name
        key = key_of(inside)
        connection = model.named_connection(key) if is_name(key) else model.new_connection(key)
        learned = name in self.exported.learned
        facts = IOKey(type=_kind(value.dtype), shape=list(value.shape), trainable=learned, buffer=not learned)
        facts.place = self.place
        connection.describe(facts)
        connection.state_name = name
        return connection

    def _constant(self, model: Model, node: Node) -> object:
        """A tensor of the module itself. One number is written as such."""
        value = self.exported.constants[node]
        if value.dim() == 0 and value.dtype in (torch.int64, torch.bool, torch.float32, torch.float64):
            return value.item()
        declared = None if value.dtype.is_floating_point else dtype_of(value.dtype)
        return model.declared_connection(IOKey(value=as_numpy(value), type=declared))

    # One operator

    def _convert(self, model: Model, region: Region, node: Node, values: dict[Node, object]) -> object:
        """The connection (a number, or a tuple for several outputs) of one operator."""
        function = mapping(node)
        assert function is not None

        def bind(part: object) -> Any:
            if isinstance(part, Node):
                return self._value(model, region, part, values)
            return type(part)(map(bind, part)) if isinstance(part, tuple | list) else part

        before = len(model.nodes)
        try:
            value = _call(function, node, bind(node.args), {k: bind(v) for k, v in node.kwargs.items()})
            made = model.resolve_value(value)
        except ConversionError as error:
            raise ConversionError(error.message, [*whereabouts(node), *error.notes]) from error
        except (MithrilError, TypeError, ValueError, IndexError, ArithmeticError, AssertionError) as error:
            notes = [f"{node.target}: {error}", *whereabouts(node)]
            raise ConversionError(f"The arguments of {node.target} have no mapping.", notes) from error
        for step in model.nodes[before:]:
            step.place = self._place_of(node)
        if isinstance(made, Connection):
            model.cout_wire = made
        return made

    def _place_of(self, node: Node) -> tuple[str, int]:
        line = source_line(node)
        return (line[0], line[1]) if line else self.place

    # Outputs

    def _expose(self, model: Model, region: Region, values: dict[Node, object]) -> None:
        if region.outer is not None:
            for node, key in zip(region.results, _result_keys(region)):
                value = values[node]
                if isinstance(value, Connection):
                    model.expose_keys(**{key: value})
            return
        for name, item in self.exported.outputs.items():
            value = self._value(model, region, item, values) if isinstance(item, Node) else item
            model |= primitive("buffer")(input=value, output=IOKey(name))


def _keys(nodes: Iterable[Node]) -> dict[Node, str]:
    """What a value is called in a model that reads it."""
    keys: dict[Node, str] = {}
    taken: set[str] = set()
    for node in nodes:
        keys[node] = free_name(identifier(node.name), taken)
        taken.add(keys[node])
    return keys


def _result_keys(region: Region) -> list[str]:
    """Names of what a region gives to others."""
    return ["output"] if len(region.results) == 1 else [f"output_{i}" for i in range(len(region.results))]


def _kind(dtype: torch.dtype) -> type | None:
    """Floating tensors follow the backend's dtype; integers may have any width."""
    if dtype.is_floating_point:
        return None
    return bool if dtype is torch.bool else int
