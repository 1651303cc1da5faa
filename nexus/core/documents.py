"""Files of strangers as plain values: bytes, text, JSON and YAML within limits, or one line that says what is wrong.

Nothing here makes an object from a name in a file. What is too large, too deep, or refers to itself is refused before
it grows in memory. Every mistake ends in a `FileError`.
"""

import json
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nexus.core.text import as_message


class FileError(ValueError):
    """A file is missing, damaged, too large or of another kind. One line: the file, the place in it, what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(as_message(message))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a document may hold at most.

    Attributes:
        size: Bytes of the file.
        depth: Lists and mappings inside each other.
        count: Values, those counted again that a YAML alias repeats.
    """

    size: int = 8 << 20
    depth: int = 64
    count: int = 2_000_000


SETTINGS = Limits()
"""Of configurations, indexes, lists of class names, manifests."""
YAML_SETTINGS = Limits(size=1 << 20, count=200_000)
"""Of YAML, whose reading costs more."""
ANNOTATIONS = Limits(size=4 << 30, depth=32, count=1_000_000_000)
"""Of annotations of a whole data set, which may be as large as their owner can hold."""


def read_bytes(path: Path, size: int = SETTINGS.size) -> bytes:
    """Returns the content of a regular file of at most `size` bytes; a pipe or device is not opened.

    Raises:
        FileError: It is missing, larger, closed to this user, or no regular file.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"{path} is not a file; put a regular file there.")
        if status.st_size > size:
            raise FileError(f"{path} has {status.st_size:,} bytes; at most {size:,} are read. It is another file.")
        with path.open("rb") as file:
            return file.read(min(size, status.st_size + 1))  # room for `size` is taken before a byte is read
    except FileNotFoundError:
        raise FileError(f"There is no file {path}; check the path.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}).") from None


def read_text(path: Path, size: int = SETTINGS.size) -> str:
    """Returns the text of a file in UTF-8, or in UTF-16 with its mark; the mark itself is left out.

    Raises:
        FileError: See `read_bytes`; or it is no text.
    """
    return decode(read_bytes(path, size), str(path))


def decode(data: bytes, where: str) -> str:
    """Returns the text in `data`, which stands at `where`; see `read_text`."""
    utf_16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return data.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"{where} is not text in UTF-8 (byte {error.start}); save it in UTF-8.") from None


def read_json(path: Path, limits: Limits = SETTINGS, *, nan: bool = False) -> Any:
    """Returns the plain values of a JSON file.

    Args:
        path: The file.
        limits: What it may hold.
        nan: Take NaN and Infinity, which are no JSON, as numbers.

    Raises:
        FileError: It cannot be read, is not JSON, or holds more than `limits`.
    """
    return parse_json(read_bytes(path, limits.size), str(path), limits, nan=nan)


def parse_json(text: bytes | str, where: str, limits: Limits = SETTINGS, *, nan: bool = False) -> Any:
    """Returns the plain values of JSON that stands at `where`; see `read_json`."""

    def constant(name: str) -> float:
        if nan:
            return float(name.replace("Infinity", "inf"))
        raise FileError(f"{where} is not valid JSON: it holds {name}, which is no number of JSON.")

    try:
        content = json.loads(decode(text, where) if isinstance(text, bytes) else text, parse_constant=constant)
    except RecursionError:
        raise FileError(f"{where} nests deeper than {limits.depth} levels; it is not read.") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise FileError(
            f"{where} is not valid JSON ({place}: {error.msg}). Write it again, or fetch it again."
        ) from None
    except FileError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise FileError(f"{where} is not valid JSON that can be read: {str(error).partition(';')[0]}.") from None
    check_extent(content, where, limits)
    return content


def check_extent(content: Any, where: str, limits: Limits = SETTINGS) -> None:
    """Raises `FileError` if plain values nest deeper or are more than `limits`; walks level by level, no deeper."""
    level, count = [content] if type(content) in (dict, list) else [], 0
    for _ in range(limits.depth):
        count += sum(map(len, level))
        if count > limits.count:
            raise FileError(f"{where} holds more than {limits.count:,} values; it is not read.")
        level = [item for values in level for item in _items(values) if type(item) in (dict, list)]
        if not level:
            return
    raise FileError(f"{where} nests deeper than {limits.depth} levels; it is not read.")


def _items(values: dict[Any, Any] | list[Any]) -> Any:
    return values.values() if type(values) is dict else values


def read_yaml(path: Path, limits: Limits = YAML_SETTINGS, *, as_text: bool = False) -> Any:
    """Returns the plain values of a YAML file with one document; None if it is empty.

    Numbers are those of YAML 1.2 (`3e-4` is one, `010` is ten), dates stay text, and a repeated key is refused.

    Args:
        path: The file.
        limits: What it may hold.
        as_text: Return every scalar as the text that stands there (`no`, `010`, `null`); only an empty one is None.

    Raises:
        FileError: It cannot be read, is not YAML, asks for an object, or holds more than `limits`.
    """
    return parse_yaml(read_text(path, limits.size), str(path), limits, as_text=as_text)


def parse_yaml(text: str, where: str, limits: Limits = YAML_SETTINGS, *, as_text: bool = False) -> Any:
    """Returns the plain values of YAML that stands at `where`; see `read_yaml`."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = _YamlReader(yaml.parse(text, Loader=loader), where, limits, as_text).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise FileError(f"{where} is not YAML{_place(mark)}: {error.problem or error.context}.") from None
    except yaml.YAMLError as error:
        raise FileError(f"{where} is not YAML: {' '.join(str(error).split())}.") from None
    check_extent(content, where, limits)
    return content


def _place(mark: Any) -> str:
    return "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"


_TAG = "tag:yaml.org,2002:"
_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_INT = re.compile(r"[-+]?[0-9][0-9_]*")
_BASED = re.compile(r"0[xob][0-9a-fA-F_]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(inf|nan)", re.IGNORECASE)


class _YamlReader:
    """Builds plain values from the events of a YAML parser; aliases share what their anchor holds."""

    def __init__(self, events: Iterator[Any], where: str, limits: Limits, as_text: bool) -> None:
        self._events, self._where, self._limits, self._as_text = events, where, limits, as_text
        self._anchors: dict[str, Any] = {}
        self._merged = 0

    def document(self) -> Any:
        content: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._error(event, "a second document starts; one is read")
                content = self._value(next(self._events), 1)
        return content

    def _value(self, event: Any, depth: int) -> Any:
        if depth > self._limits.depth:
            raise self._error(event, f"it nests deeper than {self._limits.depth} levels")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise self._error(event, f"the alias *{event.anchor} stands for nothing that is complete before it")
            return self._anchors[event.anchor]
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        else:
            self._check_tag(event, ("map", "seq"))
            mapping = isinstance(event, yaml.MappingStartEvent)
            value = self._mapping(depth) if mapping else self._sequence(depth)
        if event.anchor:
            self._anchors[event.anchor] = value
        return value

    def _sequence(self, depth: int) -> list[Any]:
        values = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event, depth + 1))
        return values

    def _mapping(self, depth: int) -> dict[Any, Any]:
        values: dict[Any, Any] = {}
        merged: dict[Any, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            plain_merge = isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]
            key = self._value(event, depth + 1)
            if isinstance(key, list | dict):
                raise self._error(event, "a list or mapping stands where a key must be")
            value = self._value(next(self._events), depth + 1)
            if plain_merge:
                self._merge(merged, value, event)
            elif key in values:
                raise self._error(event, f"the key {key!r} occurs twice")
            else:
                values[key] = value
        return {**merged, **values}

    def _merge(self, into: dict[Any, Any], value: Any, event: Any) -> None:
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                raise self._error(event, "<< merges mappings only")
            self._merged += len(part)  # each merge is a copy
            if self._merged > self._limits.count:
                raise self._error(event, f"it holds more than {self._limits.count:,} values")
            for key, item in part.items():
                into.setdefault(key, item)

    def _scalar(self, event: Any) -> Any:
        text, plain = event.value, event.implicit[0]
        self._check_tag(event, ("str", "int", "float", "bool", "null"))
        if plain and not text:
            return None
        if self._as_text or event.tag == f"{_TAG}str" or not (plain or event.tag):
            return text
        try:
            return _typed(text)
        except ValueError:
            raise self._error(event, f"the number {text[:20]}... cannot be read") from None

    def _check_tag(self, event: Any, known: tuple[str, ...]) -> None:
        tag = event.tag
        if tag not in (None, "!") and tag not in [_TAG + name for name in known]:
            raise self._error(event, f"the tag {tag!r} asks for an object; only plain values are read")

    def _error(self, event: Any, problem: str) -> FileError:
        return FileError(f"{self._where} is not plain YAML{_place(event.start_mark)}: {problem}.")


def _typed(text: str) -> Any:
    """Returns what a plain scalar means: null, a truth value, a number, or itself."""
    if text in ("~", "null", "Null", "NULL"):
        return None
    if text.lower() in _BOOLS and text in (text.lower(), text.upper(), text.capitalize()):
        return _BOOLS[text.lower()]
    if _INT.fullmatch(text):
        return int(text.replace("_", ""))
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    if special := _SPECIAL.fullmatch(text):
        return float(special[1] + special[2])
    return text
