"""The graph that a model is: nodes, the wires between them, and its open ends.

A `Wires` says what is there and changes it one step at a time; it solves nothing. `Model` is the syntax over it. An
operator is one too: nothing is composed in it, and its class names its keys (`Keys`).
"""

from __future__ import annotations

import re
from copy import deepcopy
from functools import cache
from typing import Any, NamedTuple, Self

from mithril.errors import ConnectionError, nearest
from mithril.logical.connection import Connection, Expression, IOKey, Node, Place, check_name, place, show_place
from mithril.types import identifier


class Keys(NamedTuple):
    """The keys of an operator, in order; the first input and the first output are the canonical ones."""

    inputs: tuple[str, ...] = ("input",)
    outputs: tuple[str, ...] = ("output",)
    attributes: tuple[str, ...] = ()
    """Keys of static values, where a string is a value and not a name."""
    is_open: bool = False
    """Whether other keys of a call are taken for inputs, to be checked when the operator is expanded."""
    takes_list: bool = False
    """Whether its first input is a list of tensors."""
    is_stateless: bool = False


class Wires(Expression):
    """Nodes in the order in which they were added, and connections by key.

    Args:
        name: the first part of the keys of its parameters, once it is part of another one.
    """

    type_name: str = "Model"
    fixed_keys: Keys | None = None
    """Of an operator; None where the keys are those of what is composed."""

    def __init__(self, name: str | None = None):
        self.name = name if name is None else check_name(name, "a model")
        self.nodes: list[Node] = []
        self.submodels: dict[str, Node] = {}
        self.connections: dict[str, Connection] = {}
        self.exposed: list[str] = []
        self.constrained: list[Connection] = []
        self.frozen = False
        self.place = place()
        self.cin_wire: Connection | None = None
        self.cout_wire: Connection | None = None
        self.shares: Self | None = None  # the one whose parameters it uses
        self.placements: dict[int, Node] = {}  # its node in each that it is part of
        self.unnamed = 0  # the number of the next unnamed connection
        self._anonymous: dict[int, tuple[IOKey, Connection]] = {}
        self._counts: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"{self.type_name}(name={self.name!r})" if self.name else f"{self.type_name}()"

    # Keys

    @property
    def input_keys(self) -> list[str]:
        """Named connections that nothing in the model computes, in the order they appeared."""
        if self.fixed_keys is not None:
            return [*self.fixed_keys.inputs, *self.fixed_keys.attributes]
        return [k for k, c in self.connections.items() if c.named and c.producer is None]

    @property
    def output_keys(self) -> list[str]:
        """Keys that a call or an attribute can take a value from: named connections computed inside."""
        if self.fixed_keys is not None:
            return list(self.fixed_keys.outputs)
        return [k for k, c in self.connections.items() if c.named and c.producer is not None]

    @property
    def outputs(self) -> list[Connection]:
        """What the model returns: exposed connections, else the last one and named ones that nothing reads."""
        if self.fixed_keys is not None:
            return [self.connection(key) for key in self.fixed_keys.outputs]
        if self.exposed:
            return [self.connections[key] for key in self.exposed]
        loose = [c for c in self.connections.values() if c.named and c.producer is not None and not c.readers]
        if self.cout_wire is not None and not any(c is self.cout_wire for c in loose):
            loose.append(self.cout_wire)
        return loose

    @property
    def cin_key(self) -> str | None:
        """Own key of the canonical input, None without one."""
        if self.fixed_keys is not None:
            return next(iter(self.fixed_keys.inputs), None)
        return self.cin_wire.key if self.cin_wire is not None else None

    @property
    def cout_key(self) -> str | None:
        """Own key of the canonical output, None without one."""
        if self.fixed_keys is not None:
            return next(iter(self.fixed_keys.outputs), None)
        return self.cout_wire.key if self.cout_wire is not None else None

    def takes_static(self, key: str) -> bool:
        """Whether the key is an attribute of an operator, where a string is a value and not a name."""
        return self.fixed_keys is not None and key in self.fixed_keys.attributes

    def binding_key(self, key: str) -> str:
        """The model's own name for a key of a call: itself, or cin and cout for `input` and `output`."""
        keys = self.fixed_keys
        if keys is None:
            connection = self.connections.get(key)
            if connection is not None and connection.named:
                return key
        elif key in keys.inputs or key in keys.attributes or key in keys.outputs:
            return key
        elif keys.is_open:
            return check_name(key, "a connection")
        own = self.cin_key if key == "input" else self.cout_key if key == "output" else None
        if own is not None:
            return own
        known = [*self.input_keys, *self.output_keys]
        raise ConnectionError(
            f"{self!r} has no key '{key}'.{nearest(key, known)}", [f"called at {show_place(place())}"]
        )

    def is_output(self, key: str) -> bool:
        """Whether the model computes the connection of this (own) key."""
        return self.connections[key].producer is not None if self.fixed_keys is None else key in self.fixed_keys.outputs

    def connection(self, key: str) -> Connection:
        """The connection of this name, also where the name is that of a method (`mean`, `shape`)."""
        if self.fixed_keys is not None:
            key = self.binding_key(key)
            return self.connections[key] if key in self.connections else self.new_connection(key)
        if key not in self.connections:
            raise ConnectionError(
                f"{self!r} has no connection '{key}'.{nearest(key, self.input_keys + self.output_keys)}"
            )
        return self.connections[key]

    def pick_connection(self, key: str | Connection) -> Connection:
        """The connection of a key, or the one that stands here for a connection of a part."""
        return self.lift_connection(key) if isinstance(key, Connection) else self.connections[self.binding_key(key)]

    def is_stateless(self) -> bool:
        """Whether it has no parameters, so that using it twice cannot be meant in two ways."""
        if self.fixed_keys is not None:
            return self.fixed_keys.is_stateless
        parts = all(node.model.is_stateless() for node in self.nodes)
        return parts and not any(c.trainable for c in self.connections.values())

    # Growing

    def new_connection(self, key: str | None = None) -> Connection:
        """A new connection; unnamed ones get a key that no name can be."""
        named = key is not None
        if key is None:
            key = f"${self.unnamed}"
            self.unnamed += 1
        connection = self.connections[key] = Connection(self, key, named)
        return connection

    def named_connection(self, name: str) -> Connection:
        """The connection of this name, a new one where there is none."""
        if name in self.connections:
            return self.connections[name]
        if name == "input" and self.cin_wire is not None and not self.cin_wire.named:
            self.rename_wire(self.cin_wire, name)
            return self.cin_wire
        connection = self.new_connection(check_name(name, "a connection"))
        connection.place = place()
        return connection

    def declared_connection(self, key: IOKey) -> Connection:
        """The connection that a key describes; the same one for the same key."""
        if key.name is not None:
            connection = self.named_connection(key.name)
        else:
            if id(key) not in self._anonymous:
                self._anonymous[id(key)] = (key, self.new_connection())  # the key is kept, so that its id stays its own
            connection = self._anonymous[id(key)][1]
        connection.describe(key)
        return connection

    def place_node(self, child: Any, where: Place, name: str | None = None) -> Node:
        """Append a model as a node, under its own name or one made of its type."""
        name = name or child.name
        if name is None:
            name = self._free_name(identifier(snake_case(child.type_name)))
        elif name in self.submodels:
            raise ConnectionError(
                f"{self!r} already has a submodel named '{name}'.",
                [f"first added at {show_place(self.submodels[name].place)}", f"again at {show_place(where)}"],
            )
        node = Node(self, child, name, where)
        self.nodes.append(node)
        self.submodels[name] = node
        child.placements[id(self)] = node
        child.frozen = True
        return node

    def _free_name(self, kind: str) -> str:
        number = self._counts.get(kind, 0)
        while (name := f"{kind}_{number}") in self.submodels:
            number += 1
        self._counts[kind] = number + 1
        return name

    def bind_node(self, node: Node, reads: dict[str, Any]) -> None:
        """Say what the inputs of a node are bound to."""
        node.bindings = reads
        for source in node.sources():
            source.readers.append(node)

    def write_output(self, node: Node, key: str, connection: Connection) -> None:
        """Let a connection carry an output of a node."""
        if connection.producer is not None:
            raise ConnectionError(
                f"'{connection.path()}' has two writers: '{connection.producer.name}' and '{node.name}'.",
                [f"first written at {show_place(connection.producer.place)}", f"again at {show_place(node.place)}"],
            )
        connection.producer, connection.output_key = node, key
        node.outputs[key] = connection
        if connection.readers:
            self.check_cycle(node, connection)
        if connection is self.cin_wire:
            self.cin_wire = None

    def output_of(self, node: Node, key: str | None = None) -> Connection | None:
        """The connection that carries an output of a node (its canonical one when no key is given)."""
        key = key or node.model.cout_key
        if key is not None and key not in node.outputs:
            connection = node.outputs[key] = self.new_connection()
            connection.producer, connection.output_key = node, key
        return node.outputs[key] if key is not None else None

    def check_cycle(self, node: Node, written: Connection) -> None:
        """Refuse a node that reads what it computes.

        Raises:
            ConnectionError: with the way from the node to itself.
        """
        seen: set[int] = set()
        trail: list[tuple[Node, list[str]]] = [(node, [node.name])]
        while trail:
            current, names = trail.pop()
            for source in current.sources():
                before = source.producer
                if before is node:
                    raise ConnectionError(
                        f"'{written.path()}' depends on itself: {' <- '.join([*names, node.name])}.",
                        [f"{n} was added at {show_place(self.submodels[n].place)}" for n in names],
                    )
                if before is not None and id(before) not in seen:
                    seen.add(id(before))
                    trail.append((before, [*names, before.name]))

    def constrain(self, connection: Connection) -> None:
        """Remember that something is declared of a connection, for the inference."""
        if not connection.constrained:
            connection.constrained = True
            self.constrained.append(connection)

    # Changing

    def rename_wire(self, connection: Connection, name: str) -> None:
        """Change the key of a connection, which nothing outside of the model may know yet."""
        if name in self.connections:
            raise ConnectionError(f"{self!r} already has a connection named '{name}'.")
        check_name(name, "a connection")
        old = connection.key
        self.connections = {name if k == old else k: c for k, c in self.connections.items()}
        self.exposed = [name if k == old else k for k in self.exposed]
        connection.key, connection.named = name, True

    def merge_wires(self, kept: Connection, other: Connection) -> None:
        """Let one connection stand for another one too."""
        if other.producer is not None:
            producer, key = other.producer, other.output_key
            other.producer = None
            self.write_output(producer, key, kept)
        for reader in other.readers:
            reader.bindings = {k: _replaced(v, other, kept) for k, v in reader.bindings.items()}
            kept.readers.append(reader)
        del self.connections[other.key]
        self.exposed = [k for k in self.exposed if k != other.key]
        self.cin_wire = kept if self.cin_wire is other else self.cin_wire
        self.cout_wire = kept if self.cout_wire is other else self.cout_wire

    # Inside one another

    def parents(self) -> list[Wires]:
        """Those that this one was added to."""
        return [node.outer for node in self.placements.values()]

    def is_inside(self, other: Wires) -> bool:
        """Whether this one is part of another, at any depth."""
        return any(outer is other or outer.is_inside(other) for outer in self.parents())

    def lift_connection(self, connection: Any) -> Any:
        """The connection (or static value) here for one of a part, at any depth."""
        if not isinstance(connection, Connection) or connection.model is self:
            return connection
        inner = connection.model
        node = inner.placements.get(id(self))
        if node is None:
            for outer in {id(m): m for m in inner.parents()}.values():
                if outer is not self and outer.is_inside(self):
                    return self.lift_connection(outer.lift_connection(connection))
            raise ConnectionError(
                f"'{connection.path()}' belongs to {inner!r}, which is not part of {self!r}.",
                [f"used at {show_place(place())}"],
            )
        if connection.producer is not None or inner.is_output(connection.key):
            return self.output_of(node, connection.key)
        if connection.key not in node.bindings:
            lifted = self.new_connection()
            lifted.hint = (node.name, *([connection.key] if connection.named else connection.hint))
            lifted.trainable, lifted.buffer = connection.trainable, connection.buffer
            node.bindings[connection.key] = lifted
            lifted.readers.append(node)
        return node.bindings[connection.key]

    # Copies

    def __deepcopy__(self, memo: dict[Any, Any]) -> Self:
        return self.copy_into(type(self).__new__(type(self)), memo)

    def copy_into(self, other: Any, memo: dict[Any, Any]) -> Any:
        """Give another one the same structure."""
        memo[id(self)] = other
        for key, value in self.__dict__.items():
            other.__dict__[key] = value if key in ("placements", "op", "shares") else deepcopy(value, memo)
        if self.shares is not None:
            memo.setdefault("sharing", []).append(other)
        for copy in memo.get("sharing", ()):  # a part may be copied before the one whose parameters it uses
            copy.shares = memo.get(id(copy.shares), copy.shares)
        other.placements, other.frozen = {}, False
        for node in other.nodes:
            node.model.placements[id(other)] = node
            node.model.frozen = True
        return other


def _replaced(value: Any, old: Connection, new: Connection) -> Any:
    if isinstance(value, Connection):
        return new if value is old else value
    if type(value) in (list, tuple):
        return type(value)(_replaced(part, old, new) for part in value)
    return value


@cache
def snake_case(name: str) -> str:
    """`BatchNorm2D` to `batch_norm2d`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
