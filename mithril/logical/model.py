"""Models as they are written down: calls, `+=`, `|=` and expressions, over the graph that they record.

The one circle of files in mithril starts here: `to_json` and `from_json` are methods of a model, and what writes and
reads JSON has to know every kind of model.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any, Self

from mithril.errors import ConnectionError, nearest
from mithril.logical import editing
from mithril.logical.connection import (
    Connection,
    IOKey,
    Node,
    Place,
    ShapeOf,
    Wiring,
    WiringOutput,
    connections_in,
    record,
    show_place,
)
from mithril.logical.wires import Wires, snake_case

__all__ = ["Model", "Node", "connections_in", "snake_case"]


class Model(Wires):
    """A graph of models. `+=` adds one behind the last, `|=` adds one with its wires as named.

    Attributes are its connections first, its submodels second: `block.features`, `block.conv1`.

    Args:
        name: the first part of the keys of its parameters, once it is part of another model.
    """

    def __init_subclass__(cls, **kwargs: object):
        super().__init_subclass__(**kwargs)
        cls.type_name = cls.__name__

    def __init__(self, name: str | None = None):
        super().__init__(name)
        self._read_cout = False  # by what is being added

    # Values

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

    def __call__(self, *args: object, **bindings: object) -> Wiring:
        """The model with its wires named. Values by position go to its inputs in order, the canonical one first."""
        if args:
            bindings |= self._by_position(args, bindings)
        return Wiring(self, {self.binding_key(key): value for key, value in bindings.items()})

    def _by_position(self, args: tuple[Any, ...], bindings: dict[str, Any]) -> dict[str, Any]:
        if self.fixed_keys is not None and self.fixed_keys.takes_list and not isinstance(args[0], list | tuple):
            args = (list(args),)
        cin = self.cin_key
        first = [] if cin is None else ["input" if cin.startswith("$") else cin]
        names = list(dict.fromkeys([*first, *self.input_keys]))
        if len(args) > len(names):
            raise ConnectionError(
                f"{self!r} has {len(names)} inputs ({', '.join(names)}), {len(args)} values were given."
            )
        for name in names[: len(args)]:
            if name in bindings:
                raise ConnectionError(f"The input '{name}' of {self!r} is given by position and by name.")
        return dict(zip(names, args))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        state = self.__dict__
        if name in state.get("connections", ()):
            return state["connections"][name]
        if name in state.get("submodels", ()):
            return state["submodels"][name].model
        if "connections" not in state:
            raise AttributeError(f"{type(self).__name__}.__init__ has to call super().__init__(name=name) first.")
        aliases = {"input": self.cin_key, "output": self.cout_key}
        own = aliases.get(name) or (name if self.fixed_keys and name in self.input_keys + self.output_keys else None)
        if own is not None:
            return self.connection(own)
        known = [*(k for k, c in self.connections.items() if c.named), *self.submodels]
        raise AttributeError(f"{self!r} has no connection or submodel '{name}'.{nearest(name, known)}")

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self.input_keys, *self.output_keys, *self.submodels]

    # Composition

    def __ior__(self, other: Model | Wiring) -> Model:
        return self._extend(other, follow=False)

    def __iadd__(self, other: Model | Wiring) -> Model:  # type: ignore[override]
        return self._extend(other, follow=True)

    def _extend(self, other: Model | Wiring, follow: bool) -> Model:
        if self.fixed_keys is not None:
            raise ConnectionError(
                f"{self!r} is an operator; models are added to a Model, or in an Operator's create_model."
            )
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
        node = self.add_wiring(wiring, follow)
        if follow or was_empty or self._read_cout:
            self.cout_wire = self.output_of(node)
        return self

    def add_wiring(self, wiring: Wiring, follow: bool = False) -> Node:
        """Append a model with its wires as named; with `follow`, its canonical input reads the canonical output."""
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
                reads[key] = self.resolve_value(value, child.takes_static(key))
        self._bind_cin(child, reads, follow, wiring.place)
        node = self.place_node(child, wiring.place)
        self.bind_node(node, reads)
        cin = child.cin_key
        if self.cin_wire is None and cin is not None:
            first = next(connections_in(reads.get(cin)), None)
            self.cin_wire = first if first is not None and first.producer is None else None
        for key, value in writes.items():
            self.write_output(node, key, self._target(node, key, value))
        wiring.added = (self, node)
        return node

    def _own(self, child: Model, where: Place) -> Model:
        """The model itself, or a copy of one without parameters that is already here."""
        if child is self:
            raise ConnectionError(f"{self!r} cannot be added to itself.", [f"at {show_place(where)}"])
        if id(self) not in child.placements:
            return child
        if not child.is_stateless():
            raise ConnectionError(
                f"{child!r} is already part of {self!r}. Add a copy() of it for parameters of its own, "
                "or shared() to use the same parameters twice.",
                [f"first added at {show_place(child.placements[id(self)].place)}", f"again at {show_place(where)}"],
            )
        return child.copy()

    def _bind_cin(self, child: Model, reads: dict[str, Any], follow: bool, where: Place) -> None:
        """Wire the canonical input of a model that is added, where the call did not."""
        cin = child.cin_key
        if cin is not None and cin not in reads:
            if follow and self.nodes:
                reads[cin] = self.cout
            elif not self.nodes:
                reads[cin] = self.new_connection()
        elif follow and self.nodes and cin is None:
            raise ConnectionError(
                f"{child!r} has no canonical input, so `+=` cannot wire it; use `|=` and name its wires.",
                [f"at {show_place(where)}"],
            )

    def _target(self, node: Node, key: str, target: object) -> Connection:
        """The connection that an output of a node is bound to."""
        if isinstance(target, IOKey):
            connection = self.resolve_value(target)
            if connection.named and connection.key not in self.exposed:
                self.exposed.append(connection.key)
            return connection
        if isinstance(target, str):
            return self.named_connection(target)
        if isinstance(target, Connection):
            return self.lift_connection(target)
        raise ConnectionError(
            f"The output '{key}' of {node.model!r} is bound to {target!r}, not a name, an IOKey or a connection.",
            [f"at {show_place(node.place)}"],
        )

    def resolve_value(self, value: Any, static: bool = False) -> Any:
        """What a value of a call is in this model. Expressions enter the model here."""
        if isinstance(value, str):
            connection: Any = value if static else self.named_connection(value)
        elif isinstance(value, IOKey):
            connection = self.declared_connection(value)
        elif isinstance(value, Connection):
            connection = self.lift_connection(value)
        elif isinstance(value, Wiring):
            connection = self._from_wiring(value, None)
        elif isinstance(value, WiringOutput):
            connection = self._from_wiring(value.wiring, value.key)
        elif isinstance(value, ShapeOf):
            connection = self._from_wiring(value.wiring(), None)
        elif isinstance(value, Model):
            connection = self._from_model(value)
        elif type(value) in (list, tuple):
            return type(value)(self.resolve_value(part, static) for part in value)
        elif isinstance(value, slice):
            return slice(*(self.resolve_value(part, True) for part in (value.start, value.stop, value.step)))
        else:
            return value
        if connection is self.cout_wire:
            self._read_cout = True
        return connection

    def _from_wiring(self, wiring: Wiring, key: str | None) -> Any:
        if wiring.added is None:
            node = self.add_wiring(wiring)
        else:
            owner, node = wiring.added
            if owner is not self:
                return self.lift_connection(owner.output_of(node, key))
        key = None if key is None else node.model.binding_key(key)
        connection = self.output_of(node, key)
        if connection is None:
            raise ConnectionError(
                f"{node.model!r} has several outputs; say which one.", [f"at {show_place(wiring.place)}"]
            )
        return connection

    def _from_model(self, child: Model) -> Any:
        if id(self) in child.placements:
            return self.output_of(child.placements[id(self)])
        if not child.placements:
            return self._from_wiring(Wiring(child, {}), None)
        return self.lift_connection(child.cout)

    @classmethod
    def create(cls, **outputs: object) -> Model:
        """A model of its outputs: `Model.create(out=x * 2 + y)`."""
        model = Model()
        for name, value in outputs.items():
            model |= record("buffer", input=value, output=IOKey(name))
        return model

    # Changes

    set_shapes, set_types, set_values = editing.set_shapes, editing.set_types, editing.set_values
    set_trainable, set_cin, set_cout = editing.set_trainable, editing.set_cin, editing.set_cout
    expose_keys, rename_key, merge_connections = editing.expose_keys, editing.rename_key, editing.merge_connections

    def freeze(self) -> Model:
        """Allow no further changes."""
        self.frozen = True
        return self

    # Copies

    def copy(self, name: str | None = None) -> Self:
        """The same structure with parameters of its own."""
        other = deepcopy(self)
        other.name = name if name is not None else self.name
        return other

    def shared(self, name: str | None = None) -> Self:
        """The same structure on the same parameters, to be added a second time."""
        other = self.copy(name)
        other.name = name
        other.shares = self.shares or self
        return other

    # Views

    def summary(self, depth: int = 2) -> str:
        """A table of submodels, their wires and, where declared, shapes."""
        from mithril.logical.view import summary

        return summary(self, depth, Model)

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
