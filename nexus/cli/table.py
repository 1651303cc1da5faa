"""Rows as text for people: a table where it fits, else a block of lines for each row; no word is ever broken."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from nexus.core.text import one_line

GAP = "  "


def lay_out(rows: Sequence[Mapping[str, Any]], width: int | None) -> list[str]:
    """Returns the lines of a table of rows that share their keys; numbers stand right, text left.

    Args:
        rows: At least one.
        width: Columns of the screen; None where nothing is read on one, and every row stays on a line.
    """
    names = [one_line(name) for name in rows[0]]
    cells = [[one_line(shown(value)) for value in row.values()] for row in rows]
    numeric = [all(isinstance(row[name], int | float | None) for row in rows) for name in rows[0]]
    columns = list(zip(names, *cells))
    natural = [max(map(measure, column)) for column in columns]
    least = [max(measure(word) for text in column for word in text.split() or [""]) for column in columns]
    room = None if width is None else width - len(GAP) * (len(names) - 1)
    if room is not None and sum(least) > room:
        return _blocks(names, cells, width or 0)
    widths = natural if room is None else _fitting(natural, least, room)
    lines = [line for row in (names, *cells) for line in _row(row, widths, numeric)]
    head = len(_row(names, widths, numeric))
    return [*lines[:head], "-" * (sum(widths) + len(GAP) * (len(names) - 1)), *lines[head:]]


def _fitting(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Returns widths of columns that fit: the widest ones give, none below its longest word."""
    for cap in range(max(natural), 0, -1):
        widths = [max(low, min(wanted, cap)) for wanted, low in zip(natural, least)]
        if sum(widths) <= room:
            return widths
    return list(least)


def _row(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> list[str]:
    wrapped = [wrap(text, width) for text, width in zip(cells, widths)]
    lines = []
    for number in range(max(map(len, wrapped))):
        parts = [part[number] if number < len(part) else "" for part in wrapped]
        spaces = [" " * (width - measure(part)) for part, width in zip(parts, widths)]
        padded = [space + part if right else part + space for part, space, right in zip(parts, spaces, numeric)]
        lines.append(GAP.join(padded).rstrip())
    return lines


def _blocks(names: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[str]:
    """Returns a block for each row: a line for each name that has a value, and an empty line between blocks."""
    side = max(map(measure, names))
    lines: list[str] = []
    for row in cells:
        for name, text in zip(names, row):
            if not text:
                continue
            first, *more = wrap(text, max(1, width - side - len(GAP)))
            lines.append(f"{name}{' ' * (side - measure(name))}{GAP}{first}".rstrip())
            lines += [f"{' ' * side}{GAP}{line}" for line in more]
        lines.append("")
    return lines[:-1]


def wrap(text: str, width: int) -> list[str]:
    """Returns a text in lines of at most `width` columns, broken between words alone."""
    if measure(text) <= width:
        return [text]
    lines = [""]
    for word in text.split():
        if lines[-1] and measure(lines[-1]) + 1 + measure(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines


def measure(text: str) -> int:
    """Returns how many columns of a screen a text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def shown(value: Any) -> str:
    """Returns a value for people: counts with commas; settings, in mappings, as a command line takes them."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={setting(item)}" for key, item in value.items())
    return str(value)


def setting(value: Any) -> str:
    """Returns a setting as it is written on a command line: 1000, [3,4,6,3], null, true."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(setting, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}: {setting(item)}' for key, item in value.items())}}}"
    return str(value)
