"""Changes of a recorded model: what is declared of its keys, their names, and which of them are in and out.

`Model` has these functions as methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from mithril.errors import ConnectionError
from mithril.logical.connection import Connection, IOKey, as_pattern, as_type, place
from mithril.logical.wires import Wires

Model = TypeVar("Model", bound=Wires)


def set_shapes(model: Model, shapes: Mapping[str, Any] | None = None, /, **more: Any) -> Model:
    """Declare shapes by key: numbers, names, None for unknown sizes, "..." for any number of them."""
    for key, shape in {**(shapes or {}), **more}.items():
        connection = model.pick_connection(key)
        connection.pattern, connection.place = as_pattern(shape, key), place()
        model.constrain(connection)
    return model


def set_types(model: Model, types: Mapping[str, Any] | None = None, /, **more: object) -> Model:
    """Declare dtypes by key: `ml.float32`, or `int`, `float`, `bool` for any dtype of that kind."""
    for key, type in {**(types or {}), **more}.items():
        connection = model.pick_connection(key)
        connection.type, connection.place = as_type(type), place()
        model.constrain(connection)
    return model


def set_values(model: Model, values: Mapping[str, Any] | None = None, /, **more: object) -> Model:
    """Make inputs constants."""
    for key, value in {**(values or {}), **more}.items():
        model.pick_connection(key).describe(IOKey(value=value))
    return model


def set_trainable(model: Model, *keys: str | Connection) -> Model:
    """Declare inputs to be parameters."""
    for key in keys:
        model.pick_connection(key).trainable = True
    return model


def set_cin(model: Model, key: str | Connection) -> Model:
    """Choose the canonical input."""
    model.cin_wire = _picked(model, key, False, "be its canonical input")
    return model


def set_cout(model: Model, key: str | Connection) -> Model:
    """Choose the canonical output."""
    model.cout_wire = _picked(model, key, True, "be its canonical output")
    return model


def expose_keys(model: Model, *keys: str, **named: str | Connection) -> Model:
    """Make connections outputs of the model, under their names or (`logits=block.cout`) under new ones."""
    _check_open(model, "expose_keys")
    for key in keys:
        named[key] = key
    for name, key in named.items():
        connection = _picked(model, key, True, "be exposed as an output")
        if connection.key != name:
            model.rename_wire(connection, name)
        if name not in model.exposed:
            model.exposed.append(name)
    return model


def _picked(model: Model, key: str | Connection, computed: bool, wish: str) -> Connection:
    connection = model.pick_connection(key)
    if (connection.producer is not None) != computed:
        role = "an input of" if computed else "computed by"
        raise ConnectionError(f"'{connection.path()}' is {role} the model, so it cannot {wish}.")
    return connection


def rename_key(model: Model, old: str | Connection, new: str) -> Model:
    """Give a connection another name."""
    _check_open(model, "rename_key")
    model.rename_wire(model.pick_connection(old), new)
    return model


def merge_connections(model: Model, *keys: str | Connection) -> Model:
    """Make several connections one; it keeps the first one's name. At most one of them may be computed."""
    _check_open(model, "merge_connections")
    kept, *others = (model.pick_connection(key) for key in keys)
    for other in others:
        if other is not kept:
            model.merge_wires(kept, other)
    if kept.producer is not None:
        model.check_cycle(kept.producer, kept)
        model.cin_wire = None if model.cin_wire is kept else model.cin_wire
    return model


def _check_open(model: Model, what: str) -> None:
    if model.frozen:
        raise ConnectionError(f"{model!r} is frozen; {what} has to come before it is added to another model.")
