"""Changes of a recorded model: what is declared of its keys, their names, and which of them are in and out.

`Model` has these functions as methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mithril.errors import ConnectionError
from mithril.logical.connection import Connection, IOKey, as_pattern, as_type, check_name, place

if TYPE_CHECKING:
    from mithril.logical.model import Model


def set_shapes(model: Model, shapes: Mapping[str, Any] | None = None, /, **more: Any) -> Model:
    """Declare shapes by key: numbers, names, None for unknown sizes, "..." for any number of them."""
    for key, shape in {**(shapes or {}), **more}.items():
        connection = model._pick(key)
        connection.pattern, connection.place = as_pattern(shape, key), place()
        model.constrain(connection)
    return model


def set_types(model: Model, types: Mapping[str, Any] | None = None, /, **more: Any) -> Model:
    """Declare dtypes by key: `ml.float32`, or `int`, `float`, `bool` for any dtype of that kind."""
    for key, type in {**(types or {}), **more}.items():
        connection = model._pick(key)
        connection.type, connection.place = as_type(type), place()
        model.constrain(connection)
    return model


def set_values(model: Model, values: Mapping[str, Any] | None = None, /, **more: Any) -> Model:
    """Make inputs constants."""
    for key, value in {**(values or {}), **more}.items():
        model._pick(key).describe(IOKey(value=value))
    return model


def set_trainable(model: Model, *keys: str | Connection) -> Model:
    """Declare inputs to be parameters."""
    for key in keys:
        model._pick(key).trainable = True
    return model


def set_cin(model: Model, key: str | Connection) -> Model:
    """Choose the canonical input."""
    model._cin = _picked(model, key, False, "be its canonical input")
    return model


def set_cout(model: Model, key: str | Connection) -> Model:
    """Choose the canonical output."""
    model._cout = _picked(model, key, True, "be its canonical output")
    return model


def expose_keys(model: Model, *keys: str, **named: str | Connection) -> Model:
    """Make connections outputs of the model, under their names or (`logits=block.cout`) under new ones."""
    _check_open(model, "expose_keys")
    for key in keys:
        named[key] = key
    for name, key in named.items():
        connection = _picked(model, key, True, "be exposed as an output")
        if connection.key != name:
            rename(model, connection, name)
        if name not in model.exposed:
            model.exposed.append(name)
    return model


def _picked(model: Model, key: str | Connection, computed: bool, wish: str) -> Connection:
    connection = model._pick(key)
    if (connection.producer is not None) != computed:
        role = "an input of" if computed else "computed by"
        raise ConnectionError(f"'{connection.path()}' is {role} the model, so it cannot {wish}.")
    return connection


def rename_key(model: Model, old: str | Connection, new: str) -> Model:
    """Give a connection another name."""
    _check_open(model, "rename_key")
    rename(model, model._pick(old), new)
    return model


def rename(model: Model, connection: Connection, name: str) -> None:
    """Change the key of a connection, which nothing outside of the model may know yet."""
    if name in model.connections:
        raise ConnectionError(f"{model!r} already has a connection named '{name}'.")
    check_name(name, "a connection")
    old = connection.key
    model.connections = {name if k == old else k: c for k, c in model.connections.items()}
    model.exposed = [name if k == old else k for k in model.exposed]
    connection.key, connection.named = name, True


def merge_connections(model: Model, *keys: str | Connection) -> Model:
    """Make several connections one; it keeps the first one's name. At most one of them may be computed."""
    _check_open(model, "merge_connections")
    kept, *others = (model._pick(key) for key in keys)
    for other in others:
        if other is kept:
            continue
        if other.producer is not None:
            producer, key = other.producer, other.output_key
            other.producer = None
            model._write(producer, key, kept)
        for reader in other.readers:
            reader.bindings = {k: _replace(v, other, kept) for k, v in reader.bindings.items()}
            kept.readers.append(reader)
        del model.connections[other.key]
        model.exposed = [k for k in model.exposed if k != other.key]
        model._cin = kept if model._cin is other else model._cin
        model._cout = kept if model._cout is other else model._cout
    if kept.producer is not None:
        model._check_cycle(kept.producer, kept)
        model._cin = None if model._cin is kept else model._cin
    return model


def _check_open(model: Model, what: str) -> None:
    if model.frozen:
        raise ConnectionError(f"{model!r} is frozen; {what} has to come before it is added to another model.")


def _replace(value: Any, old: Connection, new: Connection) -> Any:
    if isinstance(value, Connection):
        return new if value is old else value
    if type(value) in (list, tuple):
        return type(value)(_replace(part, old, new) for part in value)
    return value
