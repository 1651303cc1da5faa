"""One generic way from a row of the operator table to a class of models: `Relu()`, `Add()`, `Concat(axis=1)`."""

from __future__ import annotations

from mithril.errors import OperatorError, nearest
from mithril.logical.connection import Expression
from mithril.logical.model import Model
from mithril.logical.wires import Keys
from mithril.ops.table import Op, operator


class Primitive(Model):
    """One operator of the table. Its keys are the row's inputs, attributes and outputs.

    Attributes are given when it is made (`Concat(axis=1)`) or when it is called (`Reshape()(input=x, shape=(2, -1))`),
    where they may also be connections that are known once shapes are.
    """

    op: Op
    _classes: dict[str, type[Primitive]] = {}

    def __init__(self, *args: object, name: str | None = None, **attributes: object):
        super().__init__(name)
        row = self.op
        for key, value in zip(row.attributes, args):
            attributes.setdefault(key, value)
        if len(args) > len(row.attributes):
            raise OperatorError(f"{self.type_name} takes {len(row.attributes)} attributes, {len(args)} were given.")
        for key in attributes:
            if key not in row.attributes:
                raise OperatorError(f"{self.type_name} has no attribute '{key}'.{nearest(key, row.attributes)}")
        if row.ranges or row.choices:
            row.check_values(attributes)
        self.attributes = attributes


def primitive(name: str) -> Primitive:
    """A new model of one operator, attributes left to the call."""
    return primitive_class(operator(name))()


def primitive_class(row: Op, class_name: str | None = None) -> type[Primitive]:
    """The class of models for a row; made once."""
    if row.name not in Primitive._classes:
        class_name = class_name or camel_case(row.name)
        doc = f"Operator `{row.name}`: {', '.join([*row.inputs, *row.attributes])} to {', '.join(row.outputs)}."
        facts = {"fixed_keys": _keys(row), "op": row, "__doc__": doc}
        made = type(class_name, (Primitive,), facts)
        Primitive._classes[row.name] = made
    return Primitive._classes[row.name]


def _keys(row: Op) -> Keys:
    """The keys of a row. What keeps no state and reads one tensor may be used twice without a doubt."""
    one = not row.state and len([name for name in row.inputs if "?" not in name]) == 1
    takes_list = bool(row.inputs) and row.inputs[0].startswith("*")
    stateless = row.elementwise or one
    return Keys(row.input_names, row.output_names, tuple(row.attributes), False, takes_list, stateless)


def camel_case(name: str) -> str:
    """`layer_norm` to `LayerNorm`, `conv2d` to `Conv2D`."""
    parts = [part.capitalize() for part in name.split("_")]
    return "".join(p[:-1] + "D" if len(p) > 1 and p[-1] == "d" and p[-2].isdigit() else p for p in parts)


Expression.make_operator = staticmethod(primitive)
