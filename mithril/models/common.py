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


def whole(layer: str, **values: object) -> None:
    """Checks that settings are whole numbers of at least 1.

    Raises:
        ValueError: one is not, with what to write.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{layer}: {name} is {value!r}; it must be a whole number, such as {name}=8.")
        if value < 1:
            raise ValueError(f"{layer}: {name} is {value}; it must be at least 1.")


def switch(layer: str, name: str, value: object, advice: str = "") -> None:
    """Checks that a setting is True or False.

    Raises:
        ValueError: it is not, with what to write.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{layer}: {name} is {value!r}; it must be True or False.{advice and ' ' + advice}")


def positive(layer: str, **values: float) -> None:
    """Checks that settings are numbers above 0.

    Raises:
        ValueError: one is not, with what to write.
    """
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{layer}: {name} is {value}; it must be above 0.")


def named(model: Model, name: str) -> Model:
    """Gives a part its name, the first word of its parameters' keys, unless it has one."""
    model.name = model.name or name
    return model
