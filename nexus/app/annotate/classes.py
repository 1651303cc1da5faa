"""The classes of a project: a number that marks refer to, a name, and a colour."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from nexus.app.annotate.limits import CLASSES, NAME
from nexus.data.dataset import DataError

COLORS = (
    *("#3b9dff", "#ff9f1c", "#2ec27e", "#f0506e", "#b57bff", "#f6d32d", "#00c2c7", "#ff7bd5", "#a3be3c", "#c68b59"),
    *("#7a8cff", "#ff6b35", "#57e389", "#d1477a", "#8ecae6", "#e0b0ff"),
)
"""Of classes in the order in which they come; told apart beside each other, and bright enough on dark photos."""
FIRST = "object"
"""Name of the class that a project begins with when none is given."""


class Label(NamedTuple):
    """One class.

    Attributes:
        id: From 1; never given twice in a project.
        name: What exports call it.
        color: "#rrggbb".
    """

    id: int
    name: str
    color: str


def first_labels(names: Sequence[str]) -> tuple[Label, ...]:
    """Returns the classes that a project begins with.

    Raises:
        DataError: A name is empty, too long, or there twice.
    """
    rows = [{"id": place, "name": name, "color": color_of(place)} for place, name in enumerate(names or [FIRST], 1)]
    return read_labels(rows, "--classes")


def color_of(number: int) -> str:
    """Returns the colour of the class with this number."""
    return COLORS[(number - 1) % len(COLORS)]


def read_labels(content: Any, where: str) -> tuple[Label, ...]:
    """Returns classes from plain values.

    Raises:
        DataError: One does not fit; the message says which and why.
    """
    if not isinstance(content, list) or not 1 <= len(content) <= CLASSES:
        raise DataError(f"{where}: the classes must be a list of 1 to {CLASSES:,}.")
    labels = tuple(_label(row, where) for row in content)
    for key in ("id", "name"):
        values = [getattr(label, key) for label in labels]
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise DataError(f"{where}: there are two classes with the {key} {twice!r}; each has its own.")
    return labels


def _label(row: Any, where: str) -> Label:
    if not isinstance(row, dict) or set(row) != {"id", "name", "color"}:
        raise DataError(f"{where}: a class is {row!r:.60}; it is a mapping of id, name and color.")
    number, name, color = row["id"], row["name"], row["color"]
    if type(number) is not int or not 1 <= number < 1 << 31:
        raise DataError(f"{where}: the id of a class is {number!r:.40}; it is a whole number, at least 1.")
    if not isinstance(name, str) or not name.strip() or len(name) > NAME or not name.isprintable():
        raise DataError(f"{where}: the name of class {number} is {name!r:.60}; it is 1 to {NAME} letters of one line.")
    if not isinstance(color, str) or not re.fullmatch(r"#[0-9a-f]{6}", color):
        raise DataError(f"{where}: the colour of {name!r} is {color!r:.40}; it is such as #3b9dff.")
    return Label(number, name.strip(), color)
