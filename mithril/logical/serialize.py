"""Models as JSON: pure data over the closed table of operators. Loading runs no code that the text names."""

import json
from collections.abc import Callable, Iterable
from types import EllipsisType
from typing import Any

from mithril.errors import MithrilError, OperatorError
from mithril.logical.connection import MISSING, Connection
from mithril.logical.model import Model
from mithril.logical.operator import Operator
from mithril.logical.primitive import Primitive
from mithril.logical.reading import Reader, parse
from mithril.types import DType, as_dtype, plain

VERSION = 1
FACTS: dict[str, Any] = {"named": True, "hint": (), "trainable": False, "buffer": False, "state_name": None}
"""What is written of a connection as it is, where it differs from this."""

CODECS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "dtype": (DType, lambda dtype: dtype.value),
    "tuple": (tuple, list),
    "slice": (slice, lambda cut: [cut.start, cut.stop, cut.step]),
    "ellipsis": (EllipsisType, lambda dots: True),
}
"""Values that JSON does not have: by the key they are written under, their type and what is written."""


def to_json(model: Model) -> str:
    """The model as text. Operators defined by the user are kept as their class's name and arguments."""
    return json.dumps({"mithril": VERSION, "model": _write_model(model, {}, ())}, indent=1)


def from_json(text: str, operators: Iterable[type[Model]] = ()) -> Model:
    """The model of a text, which may come from anybody: see `mithril.logical.reading`.

    Args:
        operators: classes of the user's own `Operator`s that the text may name.

    Raises:
        MithrilError: the text is no model, or names an operator that is not known here.
    """
    classes = {**Operator.library, **{c.__name__: c for c in operators}}
    return Reader(classes).model(parse(text, VERSION))


def _write_model(model: Model, paths: dict[int, tuple[str, ...]], path: tuple[str, ...]) -> dict[str, Any]:
    paths[id(model)] = path
    if isinstance(model, Primitive):
        return {"operator": model.op.name, "name": model.name, "attributes": _write(model.attributes)}
    if isinstance(model, Operator):
        return {"class": model.type_name, "name": model.name, "arguments": _write(model.arguments())}
    written: dict[str, Any] = {"type": model.type_name, "name": model.name}
    if model.shares is not None:
        if id(model.shares) not in paths:
            raise OperatorError(
                f"{model!r} shares parameters with {model.shares!r}, which is not an earlier part of the model."
            )
        written["shares"] = list(paths[id(model.shares)])
    written["connections"] = {key: _write_connection(c) for key, c in model.connections.items()}
    written["nodes"] = [
        {
            "name": node.name,
            "model": _write_model(node.model, paths, (*path, node.name)),
            "bindings": _write(node.bindings),
            "outputs": {key: c.key for key, c in node.outputs.items()},
        }
        for node in model.nodes
    ]
    written |= {"exposed": model.exposed, "cin": model.cin_key, "cout": model.cout_key}
    return written


def _write_connection(connection: Connection) -> dict[str, Any]:
    facts = {k: getattr(connection, k) for k, default in FACTS.items() if getattr(connection, k) != default}
    if connection.value is not MISSING:
        facts["value"] = _write(connection.value)
    if connection.type is not None:
        facts["type"] = connection.type.value if isinstance(connection.type, DType) else connection.type.__name__
    if connection.pattern is not None:
        facts["shape"] = list(connection.pattern)
    return facts


def _write(value: object) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Connection):
        return {"connection": value.key}
    if isinstance(value, list):
        return [_write(part) for part in value]
    if isinstance(value, dict):
        return {"mapping": {key: _write(part) for key, part in value.items()}}
    for tag, (kind, pack) in CODECS.items():
        if isinstance(value, kind):
            return {tag: _write(pack(value))}
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return {"array": value.tolist(), "dtype": as_dtype(value.dtype).value}
    try:
        return _write(plain(value))
    except MithrilError:
        raise OperatorError(
            f"{value!r} cannot be written as JSON; a model keeps numbers, strings, tuples, slices and arrays."
        ) from None
