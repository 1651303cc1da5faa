"""One generic way from a row of the operator table to a class of models: `Relu()`, `Add()`, `Concat(axis=1)`."""

from __future__ import annotations

from typing import Any

from mithril.errors import ConnectionError, OperatorError, nearest
from mithril.logical.connection import Connection, Wiring
from mithril.logical.model import Model
from mithril.ops.table import Op, operator


class Primitive(Model):
    """One operator of the table. Its keys are the row's inputs, attributes and outputs.

    Attributes are given when it is made (`Concat(axis=1)`) or when it is called (`Reshape()(input=x, shape=(2, -1))`),
    where they may also be connections that are known once shapes are.
    """

    op: Op
    _classes: dict[str, type[Primitive]] = {}

    def __init__(self, *args: Any, name: str | None = None, **attributes: Any):
        super().__init__(name)
        row = self.op
        for key, value in zip(row.attributes, args):
            attributes.setdefault(key, value)
        if len(args) > len(row.attributes):
            raise OperatorError(f"{self.type_name} takes {len(row.attributes)} attributes, {len(args)} were given.")
        for key in attributes:
            if key not in row.attributes:
                raise OperatorError(f"{self.type_name} has no attribute '{key}'.{nearest(key, row.attributes)}")
        self.attributes = attributes

    @property
    def input_keys(self) -> list[str]:
        return [*self.op.input_names, *self.op.attributes]

    @property
    def output_keys(self) -> list[str]:
        return list(self.op.output_names)

    @property
    def outputs(self) -> list[Connection]:
        return [self.connection(key) for key in self.output_keys]

    @property
    def cin_key(self) -> str | None:
        return self.op.input_names[0] if self.op.inputs else None

    @property
    def cout_key(self) -> str | None:
        return self.op.output_names[0]

    @property
    def cin(self) -> Connection:
        return self.connection(self.op.input_names[0])

    @property
    def cout(self) -> Connection:
        return self.connection(self.op.output_names[0])

    def takes_static(self, key: str) -> bool:
        return key in self.op.attributes

    def is_output(self, key: str) -> bool:
        return key in self.op.output_names

    def is_stateless(self) -> bool:
        return self.op.elementwise or (not self.op.state and len([n for n in self.op.inputs if "?" not in n]) == 1)

    def binding_key(self, key: str) -> str:
        row = self.op
        if key in row.input_names or key in row.attributes or key in row.output_names:
            return key
        if key == "input" and row.inputs:
            return row.input_names[0]
        if key == "output":
            return row.output_names[0]
        known = [*self.input_keys, *self.output_keys]
        raise ConnectionError(f"{self!r} has no key '{key}'.{nearest(key, known)}")

    def __call__(self, *args: Any, **bindings: Any) -> Wiring:
        if args and self.op.inputs and self.op.inputs[0].startswith("*") and not isinstance(args[0], list | tuple):
            args = (list(args),)
        return super().__call__(*args, **bindings)

    def connection(self, key: str) -> Connection:
        key = self.binding_key(key)
        if key not in self.connections:
            self.connections[key] = Connection(self, key)
        return self.connections[key]

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and (
            name in ("input", "output") or name in self.input_keys or name in self.output_keys
        ):
            return self.connection(name)
        return super().__getattr__(name)

    def __ior__(self, other: Any) -> Model:
        raise ConnectionError(f"{self!r} is an operator; add models to a Model.")

    __iadd__ = __ior__  # type: ignore[assignment]


def primitive(name: str) -> Primitive:
    """A new model of one operator, attributes left to the call."""
    return primitive_class(operator(name))()


def primitive_class(row: Op, class_name: str | None = None) -> type[Primitive]:
    """The class of models for a row; made once."""
    if row.name not in Primitive._classes:
        class_name = class_name or camel_case(row.name)
        doc = f"Operator `{row.name}`: {', '.join([*row.inputs, *row.attributes])} to {', '.join(row.outputs)}."
        made = type(class_name, (Primitive,), {"op": row, "__doc__": doc, "__module__": "mithril.models"})
        Primitive._classes[row.name] = made
    return Primitive._classes[row.name]


def camel_case(name: str) -> str:
    """`layer_norm` to `LayerNorm`, `conv2d` to `Conv2D`."""
    parts = [part.capitalize() for part in name.split("_")]
    return "".join(p[:-1] + "D" if len(p) > 1 and p[-1] == "d" and p[-2].isdigit() else p for p in parts)
