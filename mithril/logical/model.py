"""Logical models: nodes and the wires between them, recorded as they are composed and solved by nobody yet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any

from mithril.errors import ConnectionError, nearest
from mithril.logical import editing
from mithril.logical.connection import (
    Connection,
    Expression,
    IOKey,
    Place,
    ShapeOf,
    Wiring,
    WiringOutput,
    check_name,
    place,
    show_place,
)
from mithril.types import identifier


class Node:
    """A model at its place in another one: what its keys are bound to there.

    A binding is a connection of the outer model, a static value, or a list or tuple of these.
    """

    __slots__ = ("bindings", "model", "name", "outer", "outputs", "place")

    def __init__(self, outer: Model, model: Model, name: str, where: Place):
        self.outer = outer
        self.model = model
        self.name = name
        self.place = where
        self.bindings: dict[str, Any] = {}
        self.outputs: dict[str, Connection] = {}

    def sources(self) -> Iterator[Connection]:
        """The connections that it reads."""
        for value in self.bindings.values():
            yield from connections_in(value)


def connections_in(value: Any) -> Iterator[Connection]:
    """All connections of a binding."""
    if isinstance(value, Connection):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from connections_in(part)
    elif isinstance(value, slice):
        yield from connections_in((value.start, value.stop, value.step))


class Model(Expression):
    """A graph of models. `+=` adds one behind the last, `|=` adds one with its wires as named.

    Attributes are its connections first, its submodels second: `block.features`, `block.conv1`.

    Args:
        name: the first part of the keys of its parameters, once it is part of another model.
    """

    type_name: str = "Model"

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        cls.type_name = cls.__name__

    def __init__(self, name: str | None = None):
        self.name = name if name is None else check_name(name, "a model")
        self.nodes: list[Node] = []
        self.submodels: dict[str, Node] = {}
        self.connections: dict[str, Connection] = {}
        self.exposed: list[str] = []
        self.constrained: list[Connection] = []
        self.frozen = False
        self.place = place()
        self._cin: Connection | None = None
        self._cout: Connection | None = None
        self.shares: Model | None = None  # the model whose parameters it uses
        self._anonymous: dict[int, tuple[IOKey, Connection]] = {}
        self._placements: dict[int, Node] = {}
        self._counts: dict[str, int] = {}
        self._unnamed = 0
        self._read_cout = False

    # Keys

    @property
    def input_keys(self) -> list[str]:
        """Named connections that nothing in the model computes, in the order they appeared."""
        return [k for k, c in self.connections.items() if c.named and c.producer is None]

    @property
    def output_keys(self) -> list[str]:
        """Keys that a call or an attribute can take a value from: named connections computed inside."""
        return [k for k, c in self.connections.items() if c.named and c.producer is not None]

    @property
    def outputs(self) -> list[Connection]:
        """What the model returns: exposed connections, else the last one and named ones that nothing reads."""
        if self.exposed:
            return [self.connections[key] for key in self.exposed]
        loose = [c for c in self.connections.values() if c.named and c.producer is not None and not c.readers]
        if self._cout is not None and not any(c is self._cout for c in loose):
            loose.append(self._cout)
        return loose

    @property
    def cin(self) -> Connection:
        """The canonical input: what `+=` wires to the model before."""
        if self.cin_key is None:
            raise ConnectionError(
                f"{self!r} has no canonical input.",
                [f"Its inputs are {', '.join(self.input_keys) or 'none'}; name the wire, or use set_cin."],
            )
        return self.connection(self.cin_key)

    @property
    def cout(self) -> Connection:
        """The canonical output: what `+=` wires to the next model."""
        if self.cout_key is None:
            raise ConnectionError(f"{self!r} has no canonical output: nothing was added to it yet.")
        return self.connection(self.cout_key)

    @property
    def cin_key(self) -> str | None:
        """Own key of the canonical input, None without one."""
        return self._cin.key if self._cin is not None else None

    @property
    def cout_key(self) -> str | None:
        """Own key of the canonical output, None without one."""
        return self._cout.key if self._cout is not None else None

    def takes_static(self, key: str) -> bool:
        """Whether the key is an attribute of an operator, where a string is a value and not a name."""
        return False

    def binding_key(self, key: str) -> str:
        """The model's own name for a key of a call: itself, or cin and cout for `input` and `output`."""
        connection = self.connections.get(key)
        if connection is not None and connection.named:
            return key
        if key == "input" and self._cin is not None:
            return self._cin.key
        if key == "output" and self._cout is not None:
            return self._cout.key
        known = [*self.input_keys, *self.output_keys]
        raise ConnectionError(
            f"{self!r} has no key '{key}'.{nearest(key, known)}", [f"called at {show_place(place())}"]
        )

    def is_output(self, key: str) -> bool:
        """Whether the model computes the connection of this (own) key."""
        return self.connections[key].producer is not None

    def __call__(self, *args: Any, **bindings: Any) -> Wiring:
        """The model with its wires named. Values by position go to its inputs in order, the canonical one first."""
        if args:
            cin = self._cin
            first = [] if cin is None else [cin.key if cin.named else "input"]
            names = list(dict.fromkeys([*first, *self.input_keys]))
            if len(args) > len(names):
                raise ConnectionError(
                    f"{self!r} has {len(names)} inputs ({', '.join(names)}), {len(args)} values were given."
                )
            for name, value in zip(names, args):
                if name in bindings:
                    raise ConnectionError(f"The input '{name}' of {self!r} is given by position and by name.")
                bindings[name] = value
        return Wiring(self, {self.binding_key(key): value for key, value in bindings.items()})

    def connection(self, key: str) -> Connection:
        """The connection of this name, also where the name is that of a method (`mean`, `shape`)."""
        if key not in self.connections:
            raise ConnectionError(
                f"{self!r} has no connection '{key}'.{nearest(key, self.input_keys + self.output_keys)}"
            )
        return self.connections[key]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        state = self.__dict__
        if name in state.get("connections", ()):
            return state["connections"][name]
        if name in state.get("submodels", ()):
            return state["submodels"][name].model
        if name == "input" and state.get("_cin") is not None:
            return state["_cin"]
        if name == "output" and state.get("_cout") is not None:
            return state["_cout"]
        if "connections" not in state:
            raise AttributeError(f"{type(self).__name__}.__init__ has to call super().__init__(name=name) first.")
        known = [*(k for k, c in self.connections.items() if c.named), *self.submodels]
        raise AttributeError(f"{self!r} has no connection or submodel '{name}'.{nearest(name, known)}")

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self.input_keys, *self.output_keys, *self.submodels]

    def __repr__(self) -> str:
        return f"{self.type_name}(name={self.name!r})" if self.name else f"{self.type_name}()"

    # Composition

    def __ior__(self, other: Model | Wiring) -> Model:
        return self._extend(other, follow=False)

    def __iadd__(self, other: Model | Wiring) -> Model:  # type: ignore[override]
        return self._extend(other, follow=True)

    def _extend(self, other: Model | Wiring, follow: bool) -> Model:
        wiring = other if isinstance(other, Wiring) else Wiring(other, {}) if isinstance(other, Model) else None
        if wiring is not None and wiring.added is not None and wiring.added[0] is self:
            return self
        if wiring is None:
            raise ConnectionError(f"Only models can be added to a model, not {other!r}.")
        if self.frozen:
            raise ConnectionError(
                f"{self!r} is frozen (part of another model, or freeze() was called); it cannot be extended.",
                [f"at {show_place(wiring.place)}"],
            )
        was_empty, self._read_cout = not self.nodes, False
        node = self._add(wiring, follow)
        if follow or was_empty or self._read_cout:
            self._cout = self._node_output(node)
        return self

    def _add(self, wiring: Wiring, follow: bool = False) -> Node:
        """Append a node with its edges."""
        if wiring.added is not None:
            raise ConnectionError(
                f"{wiring.model!r} is already part of {wiring.added[0]!r} with these wires.",
                [f"the wires were named at {show_place(wiring.place)}"],
            )
        child = self._own(wiring.model, wiring.place)
        reads: dict[str, Any] = {}
        writes: dict[str, Any] = {}
        for key, value in wiring.bindings.items():
            if child.is_output(key):
                writes[key] = value
            else:
                reads[key] = self._resolve(value, child.takes_static(key))
        cin = child.cin_key
        if cin is not None and cin not in reads:
            if follow and self.nodes:
                reads[cin] = self.cout
            elif not self.nodes:
                reads[cin] = self._new()
        elif follow and self.nodes and cin is None:
            raise ConnectionError(
                f"{child!r} has no canonical input, so `+=` cannot wire it; use `|=` and name its wires.",
                [f"at {show_place(wiring.place)}"],
            )
        node = self._place_node(child, wiring.place)
        node.bindings = reads
        for source in node.sources():
            source.readers.append(node)
        if self._cin is None and cin is not None:
            first = next(connections_in(reads.get(cin)), None)
            self._cin = first if first is not None and first.producer is None else None
        for key, value in writes.items():
            self._write(node, key, value)
        wiring.added = (self, node)
        return node

    def _own(self, child: Model, where: Place) -> Model:
        """The model itself, or a copy of one without parameters that is already here."""
        if child is self:
            raise ConnectionError(f"{self!r} cannot be added to itself.", [f"at {show_place(where)}"])
        if id(self) in child._placements:
            if not child.is_stateless():
                raise ConnectionError(
                    f"{child!r} is already part of {self!r}. Add a copy() of it for parameters of its own, "
                    "or shared() to use the same parameters twice.",
                    [
                        f"first added at {show_place(child._placements[id(self)].place)}",
                        f"again at {show_place(where)}",
                    ],
                )
            child = child.copy()
        child.frozen = True
        return child

    def _place_node(self, child: Model, where: Place) -> Node:
        if child.name is not None:
            name = child.name
            if name in self.submodels:
                raise ConnectionError(
                    f"{self!r} already has a submodel named '{name}'.",
                    [f"first added at {show_place(self.submodels[name].place)}", f"again at {show_place(where)}"],
                )
        else:
            kind = identifier(snake_case(child.type_name))
            number = self._counts.get(kind, 0)
            while (name := f"{kind}_{number}") in self.submodels:
                number += 1
            self._counts[kind] = number + 1
        node = Node(self, child, name, where)
        self.nodes.append(node)
        self.submodels[name] = node
        child._placements[id(self)] = node
        return node

    def _write(self, node: Node, key: str, target: Any) -> None:
        """Bind an output of a node to a connection of this model."""
        if isinstance(target, IOKey):
            connection = self._resolve(target)
            if connection.named and connection.key not in self.exposed:
                self.exposed.append(connection.key)
        elif isinstance(target, str):
            connection = self._named(target)
        elif isinstance(target, Connection):
            connection = self._lift(target)
        else:
            raise ConnectionError(
                f"The output '{key}' of {node.model!r} is bound to {target!r}, not a name, an IOKey or a connection.",
                [f"at {show_place(node.place)}"],
            )
        if connection.producer is not None:
            raise ConnectionError(
                f"'{connection.path()}' has two writers: '{connection.producer.name}' and '{node.name}'.",
                [f"first written at {show_place(connection.producer.place)}", f"again at {show_place(node.place)}"],
            )
        connection.producer, connection.output_key = node, key
        node.outputs[key] = connection
        if connection.readers:
            self._check_cycle(node, connection)
        if connection is self._cin:
            self._cin = None

    def _check_cycle(self, node: Node, written: Connection) -> None:
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

    def _new(self, key: str | None = None) -> Connection:
        """A new connection; unnamed ones get a key that no name can be."""
        named = key is not None
        if key is None:
            key = f"${self._unnamed}"
            self._unnamed += 1
        connection = self.connections[key] = Connection(self, key, named)
        return connection

    def _named(self, name: str) -> Connection:
        if name in self.connections:
            return self.connections[name]
        if name == "input" and self._cin is not None and not self._cin.named:
            editing.rename(self, self._cin, name)
            return self._cin
        connection = self._new(check_name(name, "a connection"))
        connection.place = place()
        return connection

    def _node_output(self, node: Node, key: str | None = None) -> Connection | None:
        """The connection of this model that carries an output of a node (its canonical one when no key is given)."""
        key = key or node.model.cout_key
        if key is not None and key not in node.outputs:
            connection = node.outputs[key] = self._new()
            connection.producer, connection.output_key = node, key
        return node.outputs[key] if key is not None else None

    def _resolve(self, value: Any, static: bool = False) -> Any:
        """What a value of a call is in this model. Expressions enter the model here."""
        if isinstance(value, str):
            connection: Any = value if static else self._named(value)
        elif isinstance(value, IOKey):
            connection = self._from_key(value)
        elif isinstance(value, Connection):
            connection = self._lift(value)
        elif isinstance(value, Wiring):
            connection = self._from_wiring(value, None)
        elif isinstance(value, WiringOutput):
            connection = self._from_wiring(value.wiring, value.key)
        elif isinstance(value, ShapeOf):
            connection = self._from_wiring(value.wiring(), None)
        elif isinstance(value, Model):
            connection = self._from_model(value)
        elif type(value) in (list, tuple):
            return type(value)(self._resolve(part, static) for part in value)
        elif isinstance(value, slice):
            return slice(*(self._resolve(part, True) for part in (value.start, value.stop, value.step)))
        else:
            return value
        if connection is self._cout:
            self._read_cout = True
        return connection

    def _from_key(self, key: IOKey) -> Connection:
        if key.name is not None:
            connection = self._named(key.name)
        else:
            if id(key) not in self._anonymous:
                self._anonymous[id(key)] = (key, self._new())  # the key is kept, so that its id stays its own
            connection = self._anonymous[id(key)][1]
        connection.describe(key)
        return connection

    def _from_wiring(self, wiring: Wiring, key: str | None) -> Any:
        if wiring.added is None:
            node = self._add(wiring)
        else:
            owner, node = wiring.added
            if owner is not self:
                return self._lift(owner._node_output(node, key))
        key = None if key is None else node.model.binding_key(key)
        connection = self._node_output(node, key)
        if connection is None:
            raise ConnectionError(
                f"{node.model!r} has several outputs; say which one.", [f"at {show_place(wiring.place)}"]
            )
        return connection

    def _from_model(self, child: Model) -> Any:
        if id(self) in child._placements:
            return self._node_output(child._placements[id(self)])
        if not child._placements:
            return self._from_wiring(Wiring(child, {}), None)
        return self._lift(child.cout)

    def _lift(self, connection: Any) -> Any:
        """The connection (or static value) of this model for one of a model inside it, at any depth."""
        if not isinstance(connection, Connection) or connection.model is self:
            return connection
        inner = connection.model
        node = inner._placements.get(id(self))
        if node is None:
            for outer in {id(m): m for m in inner.parents()}.values():
                if outer is not self and outer.is_inside(self):
                    return self._lift(outer._lift(connection))
            raise ConnectionError(
                f"'{connection.path()}' belongs to {inner!r}, which is not part of {self!r}.",
                [f"used at {show_place(place())}"],
            )
        if connection.producer is not None or inner.is_output(connection.key):
            return self._node_output(node, connection.key)
        if connection.key not in node.bindings:
            lifted = self._new()
            lifted.hint = (node.name, *([connection.key] if connection.named else connection.hint))
            lifted.trainable, lifted.buffer = connection.trainable, connection.buffer
            node.bindings[connection.key] = lifted
            lifted.readers.append(node)
        return node.bindings[connection.key]

    def parents(self) -> list[Model]:
        """Models that this one was added to."""
        return [node.outer for node in self._placements.values()]

    def is_inside(self, other: Model) -> bool:
        """Whether this model is part of another, at any depth."""
        return any(outer is other or outer.is_inside(other) for outer in self.parents())

    # Changing what was recorded

    def constrain(self, connection: Connection) -> None:
        """Remember that something is declared of a connection, for the inference."""
        if not connection.constrained:
            connection.constrained = True
            self.constrained.append(connection)

    def _pick(self, key: str | Connection) -> Connection:
        return self._lift(key) if isinstance(key, Connection) else self.connections[self.binding_key(key)]

    set_shapes, set_types, set_values = editing.set_shapes, editing.set_types, editing.set_values
    set_trainable, set_cin, set_cout = editing.set_trainable, editing.set_cin, editing.set_cout
    expose_keys, rename_key, merge_connections = editing.expose_keys, editing.rename_key, editing.merge_connections

    def freeze(self) -> Model:
        """Allow no further changes."""
        self.frozen = True
        return self

    # Copies

    def is_stateless(self) -> bool:
        """Whether it has no parameters, so that using it twice cannot be meant in two ways."""
        return all(n.model.is_stateless() for n in self.nodes) and not any(
            c.trainable for c in self.connections.values()
        )

    def copy(self, name: str | None = None) -> Model:
        """The same structure with parameters of its own."""
        other = deepcopy(self)
        other.name = name if name is not None else self.name
        return other

    def shared(self, name: str | None = None) -> Model:
        """The same structure on the same parameters, to be added a second time."""
        other = self.copy(name)
        other.name = name
        other.shares = self.shares or self
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        return self._copy_into(type(self).__new__(type(self)), memo)

    def _copy_into(self, other: Model, memo: dict[Any, Any]) -> Model:
        """Give another model the same structure."""
        memo[id(self)] = other
        for key, value in self.__dict__.items():
            other.__dict__[key] = value if key in ("_placements", "op", "shares") else deepcopy(value, memo)
        if self.shares is not None:
            memo.setdefault("sharing", []).append(other)
        for copy in memo.get("sharing", ()):  # a part may be copied before the one whose parameters it uses
            copy.shares = memo.get(id(copy.shares), copy.shares)
        other._placements, other.frozen = {}, False
        for node in other.nodes:
            node.model._placements[id(other)] = node
            node.model.frozen = True
        return other

    @classmethod
    def create(cls, **outputs: Any) -> Model:
        """A model of its outputs: `Model.create(out=x * 2 + y)`."""
        from mithril.logical.primitive import primitive

        model = Model()
        for name, value in outputs.items():
            model |= primitive("buffer")(input=value, output=IOKey(name))
        return model

    # Views

    def summary(self, depth: int = 2) -> str:
        """A table of submodels, their wires and, where declared, shapes."""
        from mithril.logical.view import summary

        return summary(self, depth)

    def draw(self, path: str | None = None) -> str:
        """The graph in graphviz's text format, or as SVG; written to `path` (`.dot` or `.svg`) if one is given."""
        from mithril.logical.view import draw

        return draw(self, path)

    def to_json(self) -> str:
        """The model as pure data."""
        from mithril.logical.serialize import to_json

        return to_json(self)

    @staticmethod
    def from_json(text: str, operators: Iterable[type[Model]] = ()) -> Model:
        """The model that `to_json` wrote. Runs no code of the text; user operators are given as classes."""
        from mithril.logical.serialize import from_json

        return from_json(text, operators)


def snake_case(name: str) -> str:
    """`BatchNorm2D` to `batch_norm2d`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
