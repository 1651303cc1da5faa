"""Models as JSON: pure data over the closed table of operators. Loading runs no code that the text names."""

import json
from collections.abc import Callable, Iterable
from types import EllipsisType
from typing import Any

from mithril.errors import OperatorError, nearest
from mithril.logical.connection import MISSING, Connection
from mithril.logical.model import Model, Node
from mithril.logical.operator import Operator
from mithril.logical.primitive import Primitive, primitive_class
from mithril.ops.table import operator
from mithril.types import DType, as_dtype

VERSION = 1
KINDS = {"int": int, "float": float, "bool": bool}
FACTS: dict[str, Any] = {"named": True, "hint": (), "trainable": False, "buffer": False, "state_name": None}
"""What is written of a connection as it is, where it differs from this."""

CODECS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "dtype": (DType, lambda dtype: dtype.value, as_dtype),
    "tuple": (tuple, list, tuple),
    "slice": (slice, lambda cut: [cut.start, cut.stop, cut.step], lambda parts: slice(*parts)),
    "ellipsis": (EllipsisType, lambda dots: True, lambda data: ...),
}
"""Values that JSON does not have: by the key they are written under, their type, and the ways there and back."""


def to_json(model: Model) -> str:
    """The model as text. Operators defined by the user are kept as their class's name and arguments."""
    return json.dumps({"mithril": VERSION, "model": _write_model(model, {}, ())}, indent=1)


def from_json(text: str, operators: Iterable[type[Model]] = ()) -> Model:
    """The model of a text.

    Args:
        operators: classes of the user's own `Operator`s that the text may name.

    Raises:
        OperatorError: the text is no model, or names an operator that is not known here.
    """
    try:
        data = json.loads(text)
        if data["mithril"] != VERSION:
            raise OperatorError(f"The model was written as version {data['mithril']!r}; this is version {VERSION}.")
        return _Reader({**Operator.library, **{c.__name__: c for c in operators}}).model(data["model"], ())
    except (KeyError, TypeError, AttributeError, IndexError, json.JSONDecodeError, RecursionError) as error:
        raise OperatorError(f"The text is not a mithril model: {type(error).__name__}: {error}.") from error


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


def _write(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Connection):
        return {"connection": value.key}
    if isinstance(value, list):
        return [_write(part) for part in value]
    if isinstance(value, dict):
        return {"mapping": {key: _write(part) for key, part in value.items()}}
    for tag, (kind, pack, _) in CODECS.items():
        if isinstance(value, kind):
            return {tag: _write(pack(value))}
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return {"array": value.tolist(), "dtype": as_dtype(value.dtype).value}
    raise OperatorError(
        f"{value!r} cannot be written as JSON; a model keeps numbers, strings, tuples, slices and arrays."
    )


class _Reader:
    """Builds models from data; nothing but the operator table and the given classes is looked up by name."""

    def __init__(self, classes: dict[str, type[Model]]):
        self.classes = classes
        self.made: dict[tuple[str, ...], Model] = {}

    def model(self, data: dict[str, Any], path: tuple[str, ...]) -> Model:
        if "operator" in data:
            model: Model = primitive_class(operator(data["operator"]))(
                name=data["name"], **self.value(data["attributes"], None)
            )
        elif "class" in data:
            name = data["class"]
            if name not in self.classes:
                raise OperatorError(
                    f"The operator class '{name}' is not among those given.{nearest(name, self.classes)}"
                )
            arguments = self.value(data["arguments"], None)
            model = self.classes[name](name=data["name"], **arguments)
        else:
            model = self.composite(data, path)
        self.made[path] = model
        return model

    def composite(self, data: dict[str, Any], path: tuple[str, ...]) -> Model:
        model = Model(name=data["name"])
        model.type_name = str(data["type"])
        if "shares" in data:
            model.shares = self.made[tuple(data["shares"])]
        for key, facts in data["connections"].items():
            self.connection(model, key, facts)
        for item in data["nodes"]:
            child = self.model(item["model"], (*path, item["name"]))
            node = Node(model, child, item["name"], model.place)
            node.bindings = self.value(item["bindings"], model)
            for source in node.sources():
                source.readers.append(node)
            for key, target in item["outputs"].items():
                connection = node.outputs[key] = model.connections[target]
                connection.producer, connection.output_key = node, key
            model.nodes.append(node)
            model.submodels[node.name] = node
            child._placements[id(model)] = node
            child.frozen = True
        model._unnamed = len(model.connections)
        model.exposed = [model.connections[key].key for key in data["exposed"]]
        model._cin = None if data["cin"] is None else model.connections[data["cin"]]
        model._cout = None if data["cout"] is None else model.connections[data["cout"]]
        return model

    def connection(self, model: Model, key: str, facts: dict[str, Any]) -> None:
        connection = model.connections[key] = Connection(model, key)
        for name, default in FACTS.items():
            setattr(connection, name, facts.get(name, default))
        connection.hint, connection.place = tuple(connection.hint), model.place
        if "value" in facts:
            connection.value = self.value(facts["value"], model)
        if "type" in facts:
            connection.type = KINDS.get(facts["type"]) or as_dtype(facts["type"])
        if "shape" in facts:
            connection.pattern = tuple(facts["shape"])
        if facts.keys() & {"value", "type", "shape"}:
            model.constrain(connection)

    def value(self, data: Any, model: Model | None) -> Any:
        if isinstance(data, list):
            return [self.value(part, model) for part in data]
        if not isinstance(data, dict):
            return data
        if "connection" in data and model is not None:
            return model.connections[data["connection"]]
        if "array" in data:
            import numpy as np

            return np.array(data["array"], dtype=as_dtype(data["dtype"]).value)
        for tag, (_, _, unpack) in CODECS.items():
            if tag in data:
                return unpack(self.value(data[tag], model))
        return {str(key): self.value(part, model) for key, part in data["mapping"].items()}
