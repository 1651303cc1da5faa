"""Typed, frozen configurations, and the one way from a plain mapping to them.

A `Config` is a frozen dataclass beside the class that it configures. It is made from keyword arguments or from
a mapping (a YAML file, a JSON file, a command line); both ways check names, types and the rules of `__post_init__`.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Self, Union

LEAST = {"in_channels": 1, "num_classes": 0, "image_size": 1, "patch_size": 1, "num_heads": 1, "num_layers": 0}
"""Bounds of keys that mean the same in every configuration."""

LONGEST_SHOWN = 300
"""Characters of a value in a message."""


def shown(value: Any) -> str:
    """Returns a value of a file for a message, which need not be as long as the file."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


ELSEWHERE = {
    "drop_rate": "dropout",
    "proj_drop_rate": "dropout",
    "attn_drop_rate": "attention_dropout",
    "in_chans": "in_channels",
    "img_size": "image_size",
    "depth": "num_layers",
    "depths": "num_layers",
    "hidden_size": "embed_dim",
    "num_labels": "num_classes",
}
"""What other libraries call our keys, where no likeness of letters tells."""


def nearest(word: str, words: Iterable[str]) -> str:
    """Returns the hint that ends an error about an unknown word: the nearest known one, or all if none is near.

    A number is no other number misspelt: to one, all are named.
    """
    known = sorted(words)
    close = [] if word.isdigit() else difflib.get_close_matches(word[:LONGEST_SHOWN], known, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    first = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"Known: {first}." if known else "None is known."


@dataclass(frozen=True, kw_only=True)
class Config:
    """The base of every configuration; a subclass is a frozen, keyword-only dataclass too."""

    def __post_init__(self) -> None:
        """Checks rules between fields. A subclass with rules calls `super().__post_init__()` first."""
        hints = field_types(type(self))
        for field in dataclasses.fields(self):
            value = _convert(getattr(self, field.name), hints[field.name], f"{type(self).__name__}.{field.name}")
            least = LEAST.get(field.name)
            numbers = value if isinstance(value, tuple) and field.name.startswith("num_") else (value,)  # of stages
            if least is not None and any(isinstance(number, int) and number < least for number in numbers):
                raise ValueError(f"{type(self).__name__}.{field.name} is {value}; it must be at least {least}.")
            object.__setattr__(self, field.name, value)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Returns the configuration that `mapping` describes; nested configurations may be nested mappings.

        Raises:
            ValueError: A key is unknown (the nearest one is named), a value has the wrong type, or breaks a rule.
        """
        known = field_types(cls)
        for key in mapping:
            if key not in known:
                raise ValueError(f"{cls.__name__} has no key {shown(key)}. {nearest(_ours(str(key), known), known)}")
        missing = [f.name for f in dataclasses.fields(cls) if _required(f) and f.name not in mapping]
        if missing:
            raise ValueError(f"{cls.__name__} needs {', '.join(missing)}.")
        return cls(**mapping)

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some fields changed; unknown names raise as in `from_mapping`."""
        return type(self).from_mapping({**_shallow(self), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values that JSON and YAML can hold: nested mappings, lists, numbers, text."""
        return {name: _plain(value) for name, value in _shallow(self).items()}


@cache
def field_types(cls: type[Config]) -> dict[str, Any]:
    """Returns the type of each field of a configuration class, by name."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _ours(key: str, known: Iterable[str]) -> str:
    """Returns our name for a key of another library, where this configuration has it."""
    ours = ELSEWHERE.get(key, key)
    return ours if ours in known else key


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _shallow(config: Config) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _convert(value: Any, hint: Any, where: str) -> Any:
    """Returns `value` as the field's type (lists become tuples, mappings become configurations), or raises."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, args, where)
    if origin is Literal:
        if value in args:
            return value
        choices = ", ".join(map(repr, args))
        raise ValueError(f"{where} is {shown(value)}; it must be one of {choices}.")
    if origin is tuple and isinstance(value, tuple | list):
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_convert(item, args[0], where) for item in value)
        if len(args) == len(value):
            return tuple(_convert(item, arg, where) for item, arg in zip(value, args))
        raise ValueError(f"{where} is {shown(value)}; it needs {len(args)} values.")
    if origin is not None and isinstance(value, origin):
        return value
    if isinstance(hint, type):
        if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
            return value
        if hint is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if issubclass(hint, Config) and isinstance(value, Mapping):
            return hint.from_mapping(value)
    raise ValueError(f"{where} is {shown(value)}; it must be {_type_name(hint)}.")


def _convert_union(value: Any, options: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in options:
        return None
    options = tuple(option for option in options if option is not type(None))
    if len(options) == 1:
        return _convert(value, options[0], where)
    for option in options:
        try:
            return _convert(value, option, where)
        except ValueError:
            continue
    raise ValueError(f"{where} is {shown(value)}; it must be {' or '.join(map(_type_name, options))}.")


def _type_name(hint: Any) -> str:
    plain = isinstance(hint, type) and not typing.get_args(hint)
    return hint.__name__ if plain else str(hint).replace("typing.", "")
