"""Models from JSON that anybody may have written: every part is checked where it enters.

Names are identifiers (keys of parameters may be any text that can be seen), operators are rows of the table or classes
that the caller gave, wires fit the models at their ends, and nothing depends on itself. What does not fit is refused
with its place in the text. Limits keep a small text from becoming a large model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from mithril.errors import MithrilError, OperatorError, nearest
from mithril.logical.connection import Connection, as_pattern
from mithril.logical.model import Model, Node
from mithril.logical.operator import Operator
from mithril.logical.primitive import primitive_class
from mithril.ops.table import operator
from mithril.types import MAX_INTEGER, MAX_NAME, as_dtype, is_name

MAX_CHARACTERS = 2**28
"""Longest text that is read."""

MAX_DEPTH = 64
"""Most models inside one another, and most lists inside one another in a value."""

MAX_NODES = 100_000
"""Most models in a text, counted with all inside."""

MAX_ITEMS = 10_000
"""Most values in a list, arrays apart."""

MAX_KEY = 5 * MAX_NAME
"""Longest key of a parameter, which may be the path of names in a torch module."""

KINDS = {"int": int, "float": float, "bool": bool}


def parse(text: str, version: int) -> dict[str, Any]:
    """The data of a text.

    Raises:
        OperatorError: it is no JSON, or none of this version.
    """
    if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
        raise refused("the text", f"it must be a string of at most {MAX_CHARACTERS} characters")
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_int=_integer)
    except RecursionError:
        raise refused("the text", f"lists and models may be {MAX_DEPTH} deep") from None
    except json.JSONDecodeError as error:
        raise refused("the text", str(error)) from None
    found = fields(data, "the text", {"mithril": int, "model": dict})
    if found["mithril"] != version:
        raise OperatorError(f"The model was written as version {found['mithril']!r}; this is version {version}.")
    return found["model"]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise refused("the text", f"'{twice:.{MAX_NAME}}' is given twice in one mapping")
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) >= MAX_INTEGER:
        raise refused("the text", f"the number {digits:.30} is too large")
    return int(digits)


def refused(place: str, what: str) -> OperatorError:
    """The error of this reader."""
    return OperatorError(f"The text is not a mithril model: {place}: {what}.")


def fields(data: object, place: str, kinds: Mapping[str, type], optional: Mapping[str, type] | None = None) -> Any:
    """A mapping with these fields of these kinds, and no others."""
    optional = optional or {}
    if type(data) is not dict:
        raise refused(place, f"a mapping is needed, not {_shown(data)}")
    for name in kinds:
        if name not in data:
            raise refused(place, f"'{name}' is missing")
    for name, value in data.items():
        kind = kinds.get(name) or optional.get(name)
        if kind is None:
            raise refused(
                place, f"there is no field '{name:.{MAX_NAME}}'.{nearest(name[:MAX_NAME], [*kinds, *optional])}"
            )
        if type(value) is not kind and not (value is None and kind is str):
            raise refused(f"{place}.{name}", f"{kind.__name__} is needed, not {_shown(value)}")
    return data


def _shown(value: object) -> str:
    return type(value).__name__ if isinstance(value, dict | list) else f"{value!r:.60}"


class Reader:
    """Builds models from data; nothing but the operator table and the given classes is looked up by name."""

    def __init__(self, classes: Mapping[str, type[Model]]):
        self.classes = classes
        self.made: dict[tuple[str, ...], Model] = {}
        self.nodes = 0

    def model(self, data: Any, path: tuple[str, ...] = ()) -> Model:
        """The model of data at a path of node names."""
        place = ".".join(("model", *path))
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise refused(place, f"a model may have {MAX_NODES} parts, {MAX_DEPTH} inside one another")
        kind = next((word for word in ("operator", "class") if type(data) is dict and word in data), "type")
        model = {"operator": self._primitive, "class": self._operator}.get(kind, self._composite)(data, place, path)
        self.made[path] = model
        return model

    def _primitive(self, data: dict[str, object], place: str, path: tuple[str, ...]) -> Model:
        row = operator(_text(data["operator"], f"{place}.operator"))
        found = fields(data, place, {"operator": str, "name": str, "attributes": dict})
        attributes = self._arguments(found["attributes"], f"{place}.attributes", list(row.attributes))
        return primitive_class(row)(name=found["name"], **attributes)

    def _operator(self, data: dict[str, object], place: str, path: tuple[str, ...]) -> Model:
        name = _text(data["class"], f"{place}.class")
        if name not in self.classes:
            raise OperatorError(f"The operator class '{name}' is not among those given.{nearest(name, self.classes)}")
        found = fields(data, place, {"class": str, "name": str, "arguments": dict})
        kind = self.classes[name]
        known = kind.argument_names() if issubclass(kind, Operator) else []
        arguments = self._arguments(found["arguments"], f"{place}.arguments", known)
        return _made(lambda: kind(name=found["name"], **arguments), place)

    def _arguments(self, data: object, place: str, known: list[str]) -> dict[str, Any]:
        mapping = fields(data, place, {"mapping": dict})["mapping"]
        for name in mapping:
            if name not in known:
                raise refused(place, f"there is no '{name:.{MAX_NAME}}'.{nearest(name[:MAX_NAME], known)}")
        return {name: self._value(value, f"{place}.{name}", None) for name, value in mapping.items()}

    # Compositions

    def _composite(self, data: object, place: str, path: tuple[str, ...]) -> Model:
        kinds = {"type": str, "name": str, "connections": dict, "nodes": list, "exposed": list, "cin": str, "cout": str}
        found = fields(data, place, kinds, {"shares": list})
        model = Model(name=found["name"])
        if not is_name(found["type"]):
            raise refused(f"{place}.type", f"{_shown(found['type'])} is no name of a class")
        model.type_name = found["type"]
        if "shares" in found:
            model.shares = self._shared(found["shares"], f"{place}.shares")
        for key, facts in found["connections"].items():
            self._connection(model, key, facts, f"{place}.connections.{key:.{MAX_NAME}}")
        for number, item in enumerate(found["nodes"]):
            self._node(model, item, f"{place}.nodes[{number}]", path)
        _check_order(model, place)
        self._ends(model, found, place)
        return model

    def _shared(self, data: list[Any], place: str) -> Model:
        path = tuple(_text(name, place) for name in data)
        if path not in self.made or not path:
            raise refused(place, f"there is no earlier model {'.'.join(path) or 'without a path'}")
        return self.made[path]

    def _connection(self, model: Model, key: str, data: object, place: str) -> None:
        flags = {"named": bool, "trainable": bool, "buffer": bool}
        others = {"hint": list, "state_name": str, "type": str, "shape": list}
        value = data.pop("value", self) if type(data) is dict else self
        facts = fields(data, place, {}, {**flags, **others})
        named, learned = facts.get("named", True), facts.get("trainable", False) or facts.get("buffer", False)
        possible = is_name(key) or (learned and _is_key(key)) if named else re.fullmatch(r"\$[0-9]{1,9}", key)
        if not possible:
            raise refused(place, "no such key is possible; a name is a Python identifier")
        connection = model.connections[key] = Connection(model, key, named)
        connection.place = model.place
        connection.trainable, connection.buffer = facts.get("trainable", False), facts.get("buffer", False)
        connection.hint = tuple(_text(word, f"{place}.hint") for word in facts.get("hint", ()))
        connection.state_name = None if facts.get("state_name") is None else _text(facts["state_name"], place)
        if value is not self:
            connection.value = self._value(value, f"{place}.value", None)
        if facts.get("type") is not None:
            connection.type = KINDS.get(facts["type"]) or as_dtype(_text(facts["type"], f"{place}.type"))
        if "shape" in facts:
            connection.pattern = as_pattern([_size(size, f"{place}.shape") for size in facts["shape"]], key)
        if value is not self or facts.keys() & {"type", "shape"}:
            model.constrain(connection)

    def _node(self, model: Model, data: object, place: str, path: tuple[str, ...]) -> None:
        item = fields(data, place, {"name": str, "model": dict, "bindings": dict, "outputs": dict})
        name = item["name"]
        if not is_name(name) or name in model.submodels:
            raise refused(f"{place}.name", f"{_shown(name)} is no name, or is given twice")
        child = self.model(item["model"], (*path, name))
        node = model.place_node(child, model.place, name)
        reads_of: dict[str, Any] = {}
        for key, value in fields(item["bindings"], f"{place}.bindings", {"mapping": dict})["mapping"].items():
            if not reads(child, key):
                raise refused(f"{place}.bindings", f"{child!r} has no input '{key:.{MAX_NAME}}'")
            reads_of[key] = self._value(value, f"{place}.bindings.{key}", model)
        for key, target in item["outputs"].items():
            self._write(model, node, key, target, f"{place}.outputs")
        model.bind_node(node, reads_of)

    @staticmethod
    def _write(model: Model, node: Node, key: str, target: object, place: str) -> None:
        if not gives(node.model, key):
            raise refused(place, f"{node.model!r} has no output '{key:.{MAX_NAME}}'")
        connection = model.connections.get(_text(target, place))
        if connection is None or connection.producer is not None:
            raise refused(place, f"{_shown(target)} is no connection, or is computed twice")
        node.outputs[key] = connection
        connection.producer, connection.output_key = node, key

    def _ends(self, model: Model, found: dict[str, Any], place: str) -> None:
        for key in found["exposed"]:
            if not self._known(model, key, True, f"{place}.exposed").named or key in model.exposed:
                raise refused(f"{place}.exposed", f"{_shown(key)} has no name, or is given twice")
            model.exposed.append(key)
        numbers = [int(key[1:]) for key, connection in model.connections.items() if not connection.named]
        model.unnamed = max(numbers, default=-1) + 1
        if found["cin"] is not None:
            model.cin_wire = self._known(model, found["cin"], False, f"{place}.cin")
        if found["cout"] is not None:
            model.cout_wire = self._known(model, found["cout"], True, f"{place}.cout")

    @staticmethod
    def _known(model: Model, key: object, computed: bool, place: str) -> Connection:
        connection = model.connections.get(_text(key, place))
        if connection is None or (connection.producer is not None) is not computed:
            raise refused(place, f"{_shown(key)} is no {'output' if computed else 'input'} of the model")
        return connection

    # Values

    def _value(self, data: object, place: str, model: Model | None, depth: int = 0) -> Any:
        """A number, text, list, or what stands under the name of its kind; in bindings, also a connection."""
        if depth > MAX_DEPTH:
            raise refused(place[:MAX_NAME], f"lists may be {MAX_DEPTH} deep")
        if type(data) is list:
            return [self._value(part, place, model, depth + 1) for part in _short(data, place)]
        if type(data) is not dict:
            return _text(data, place) if type(data) is str else data
        tag = next(iter(data), "")
        if tag == "array":
            return _array(fields(data, place, {"array": type(data["array"]), "dtype": str}), place)
        if tag == "connection" and model is not None and len(data) == 1:
            key = _text(data[tag], place)
            if key not in model.connections:
                raise refused(place, f"there is no connection {_shown(key)}.{nearest(key, model.connections)}")
            return model.connections[key]
        if tag not in TAGS or len(data) > 1:
            raise refused(place, f"'{tag:.{MAX_NAME}}' is no kind of value here.{nearest(tag[:MAX_NAME], TAGS)}")
        kind, unpack = TAGS[tag]
        if type(data[tag]) is not kind:
            raise refused(place, f"{tag} needs {kind.__name__}, not {_shown(data[tag])}")
        if tag == "mapping":
            return {_text(k, place): self._value(v, place, model, depth + 1) for k, v in data[tag].items()}
        inner = self._value(data[tag], place, model, depth + 1)
        return _made(lambda: unpack(inner), place)


TAGS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "dtype": (str, as_dtype),
    "tuple": (list, tuple),
    "slice": (list, lambda parts: _cut(*parts)),
    "ellipsis": (bool, lambda data: ...),
    "mapping": (dict, dict),
}
"""Values that JSON does not have: by the key they are written under, the kind of its data and the way back."""


def _cut(start: object, stop: object, step: object) -> slice:
    return slice(start, stop, step)


def _array(found: dict[str, Any], place: str) -> Any:
    import numpy as np

    dtype = as_dtype(found["dtype"])
    try:
        values = np.asarray(found["array"])
        if values.size and values.dtype.kind not in "biuf":
            raise refused(place, "an array holds numbers, in lists of one length")
        return np.array(found["array"], dtype=dtype.value)
    except MithrilError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise refused(place, f"it is no array of {dtype}: {error}") from None


def _short(data: list[Any], place: str) -> list[Any]:
    if len(data) > MAX_ITEMS:
        raise refused(place, f"{len(data)} values are too many; a list may have {MAX_ITEMS}")
    return data


def _text(data: object, place: str) -> str:
    if type(data) is not str or len(data) > MAX_KEY or not (data.isprintable() or not data):
        raise refused(place, f"a text of at most {MAX_KEY} characters that can be seen is needed, not {_shown(data)}")
    return data


def _is_key(key: str) -> bool:
    return 0 < len(key) <= MAX_KEY and key.isprintable()


def _size(data: Any, place: str) -> int | str | None:
    if data is not None and type(data) is not int and not is_name(data) and data != "...":
        raise refused(place, f"{_shown(data)} is no size: a number, a name, null or '...'")
    return data


def _made(make: Callable[[], Any], place: str) -> Any:
    """What a constructor gives; what it does not take is refused."""
    try:
        return make()
    except MithrilError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise refused(place, f"{type(error).__name__}: {error}") from error


def reads(model: Model, key: str) -> bool:
    """Whether a node can bind this key of its model as an input."""
    if model.fixed_keys is None:
        return key in model.connections and not model.is_output(key)
    return key in model.input_keys or (model.fixed_keys.is_open and is_name(key) and not model.is_output(key))


def gives(model: Model, key: str) -> bool:
    """Whether a node can give this key of its model to others."""
    return (model.fixed_keys is not None or key in model.connections) and model.is_output(key)


def _check_order(model: Model, place: str) -> None:
    """Every node after what it reads: none may depend on itself."""
    waiting = {node.name: {s.producer.name for s in node.sources() if s.producer} for node in model.nodes}
    readers: dict[str, list[str]] = {}
    for name, before in waiting.items():
        for other in before:
            readers.setdefault(other, []).append(name)
    ready = [name for name, before in waiting.items() if not before]
    done = 0
    while ready:
        done += 1
        for name in readers.get(ready.pop(), ()):
            waiting[name].pop()
            if not waiting[name]:
                ready.append(name)
    if done < len(model.nodes):
        stuck = next(name for name, before in waiting.items() if before)
        raise refused(place, f"the node '{stuck}' depends on itself")
