"""What every layer is written with: an operator of the table, and a connection that is learned."""

from collections.abc import Sequence
from typing import Any

from mithril.logical.connection import IOKey
from mithril.logical.model import Model
from mithril.logical.primitive import Primitive, primitive_class
from mithril.ops.table import operator


def op(name: str, **attributes: Any) -> Primitive:
    """Returns a model of one operator; a layer may bear the same name as its operator."""
    return primitive_class(operator(name))(**attributes)


def parameter(name: str, shape: Sequence[int | None] | None = None) -> IOKey:
    """Returns a key that is learned. A None in its shape is deduced from the data."""
    return IOKey(name, shape=shape, trainable=True)


def named(model: Model, name: str) -> Model:
    """Gives a part its name, the first word of its parameters' keys, unless it has one."""
    model.name = model.name or name
    return model
