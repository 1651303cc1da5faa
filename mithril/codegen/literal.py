"""Data as text of generated source: whatever a name, a key or a title holds, it stays one literal.

Names come from files, modules and users. Where they are data (keys, prefixes, titles) they are written by the
functions here; where a variable is called after them, `Names` makes an identifier of its own.
"""

from typing import NamedTuple

MARK = "\u01c0"
"""A letter that generated source never has: variables lose it and literals escape it, so that it can mark places."""

ESCAPED = {'"': r"\"", "\\": r"\\", MARK: r"\u01c0"}


class Variable(NamedTuple):
    """A part of a formatted text that is known when the source runs."""

    name: str


def escaped(text: str) -> str:
    """The text as it stands between double quotes, on one line and in characters that can be seen."""
    if text.isascii() and text.isidentifier():
        return text
    return "".join(ESCAPED.get(c) or (c if c.isprintable() else repr(c)[1:-1]) for c in text)


def quoted(text: str) -> str:
    """A text as a literal: `"layer1_weight"`."""
    return f'"{escaped(text)}"'


def formatted(*parts: str | Variable) -> str:
    """The text that the parts give one after the other: `f"{prefix}_weight"`, `"fc_weight"`, or `prefix`."""
    if all(isinstance(part, str) for part in parts):
        return quoted("".join(map(str, parts)))
    texts = [p.name if isinstance(p, Variable) else escaped(p).replace("{", "{{").replace("}", "}}") for p in parts]
    if len(parts) == 1:
        return texts[0]
    return 'f"' + "".join(f"{{{t}}}" if isinstance(p, Variable) else t for t, p in zip(texts, parts)) + '"'


def docstring(lines: list[str]) -> str:
    """Lines as a docstring."""
    return '"""' + "\n".join(map(escaped, lines)) + '"""'


def plain_source(value: object) -> str:
    """A number, a text or another constant as it is written.

    Raises:
        AssertionError: its text would not mean the value: it should have been made plain where it came in.
    """
    assert value is None or value is ... or type(value) in (bool, int, float, str), f"{value!r} is no plain value"
    return "..." if value is ... else repr(value).replace(MARK, ESCAPED[MARK])
