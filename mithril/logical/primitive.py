"""One generic way from a row of the operator table to a class of models: `Relu()`, `Add()`, `Concat(axis=1)`."""

from __future__ import annotations

from typing import Any

from mithril.errors import ConnectionError, OperatorError, nearest
from mithril.logical.connection import Connection, Wiring
from mithril.logical.leaf import Leaf
from mithril.ops.table import Op, operator


class Primitive(Leaf):
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
        return [*self.input_names, *self.op.attributes]

    @property
    def outputs(self) -> list[Connection]:
        return [self.connection(key) for key in self.output_keys]

    def takes_static(self, key: str) -> bool:
        return key in self.op.attributes

    def is_stateless(self) -> bool:
        return self.op.elementwise or (not self.op.state and len([n for n in self.op.inputs if "?" not in n]) == 1)

    def binding_key(self, key: str) -> str:
        if key in self.input_names or key in self.op.attributes or key in self.output_names:
            return key
        if key == "input" and self.input_names:
            return self.input_names[0]
        if key == "output":
            return self.output_names[0]
        raise ConnectionError(f"{self!r} has no key '{key}'.{nearest(key, self.input_keys + self.output_keys)}")

    def __call__(self, *args: Any, **bindings: Any) -> Wiring:
        if args and self.op.inputs and self.op.inputs[0].startswith("*") and not isinstance(args[0], list | tuple):
            args = (list(args),)
        return super().__call__(*args, **bindings)

    def __getattr__(self, name: str) -> Any:
        return self.connection(name) if name in ("input", "output") else super().__getattr__(name)


def primitive(name: str) -> Primitive:
    """A new model of one operator, attributes left to the call."""
    return primitive_class(operator(name))()


def primitive_class(row: Op, class_name: str | None = None) -> type[Primitive]:
    """The class of models for a row; made once."""
    if row.name not in Primitive._classes:
        class_name = class_name or camel_case(row.name)
        doc = f"Operator `{row.name}`: {', '.join([*row.inputs, *row.attributes])} to {', '.join(row.outputs)}."
        names = {"input_names": row.input_names, "output_names": row.output_names}
        made = type(class_name, (Primitive,), {**names, "op": row, "__doc__": doc, "__module__": "mithril.models"})
        Primitive._classes[row.name] = made
    return Primitive._classes[row.name]


def camel_case(name: str) -> str:
    """`layer_norm` to `LayerNorm`, `conv2d` to `Conv2D`."""
    parts = [part.capitalize() for part in name.split("_")]
    return "".join(p[:-1] + "D" if len(p) > 1 and p[-1] == "d" and p[-2].isdigit() else p for p in parts)
