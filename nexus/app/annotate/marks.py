"""What a person marked in one image, and the document that keeps it.

A mask is kept as the lengths of its runs, row by row, outside and inside in turn and outside first: what the page
paints from. (COCO's runs go down the columns; `coco_runs` turns one into the other.)

Dims: h w pixels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nexus.app.annotate.limits import OBJECTS, POINTS
from nexus.data.dataset import DataError
from nexus.data.detection.rle import RLE, encode
from nexus.tasks.clicks import Clicks

VERSION = 1
Runs = tuple[int, ...]
FIELDS = ("class", "counts", "points", "box", "choice", "added", "removed", "track")


@dataclass(frozen=True)
class Mark:
    """One object.

    Attributes:
        label: The number of its class.
        counts: Its mask.
        clicks: What was clicked on; nothing where it was drawn by hand alone.
        choice: Which guess at the first click was taken, from 0.
        added: What was painted over the model's mask; empty where nothing was.
        removed: What was erased from it; likewise.
        track: The same number in all images through which one object was followed; 0 is none.
    """

    label: int
    counts: Runs
    clicks: Clicks = Clicks()
    choice: int = 0
    added: Runs = ()
    removed: Runs = ()
    track: int = 0

    def to_json(self) -> dict[str, Any]:
        """Returns the mark as its document has it; what says nothing is left out."""
        said = {
            "points": [list(point) for point in self.clicks.points],
            "box": self.clicks.box and list(self.clicks.box),
            "choice": self.choice,
            "added": list(self.added),
            "removed": list(self.removed),
            "track": self.track,
        }
        return {"class": self.label, "counts": list(self.counts)} | {key: value for key, value in said.items() if value}


@dataclass(frozen=True)
class Marks:
    """What is marked in one image.

    Attributes:
        height: Of the image, in pixels.
        width: Likewise.
        objects: From the lowest to the topmost.
        done: Whether the person said that nothing is missing.
        revision: How often it was saved; a page that knows an older one may not write over it.
    """

    height: int
    width: int
    objects: tuple[Mark, ...] = ()
    done: bool = False
    revision: int = 0

    def to_json(self) -> dict[str, Any]:
        """Returns the document."""
        return {
            "version": VERSION,
            "height": self.height,
            "width": self.width,
            "done": self.done,
            "revision": self.revision,
            "objects": [mark.to_json() for mark in self.objects],
        }


def read_marks(content: Any, where: str) -> Marks:
    """Returns what a document says, in plain values.

    Raises:
        DataError: A field is missing, unknown, or does not fit; the message says where.
    """
    fields = _fields(content, ("version", "image", "height", "width", "done", "revision", "objects"), where)
    if fields.get("version") != VERSION:
        raise DataError(f"{where}: version is {fields.get('version')!r:.40}; {VERSION} is read here.")
    height, width = (_whole(fields.get(side), side, where, least=1) for side in ("height", "width"))
    objects, done = fields.get("objects"), fields.get("done", False)
    if not isinstance(objects, list) or len(objects) > OBJECTS:
        raise DataError(f"{where}: objects must be a list of at most {OBJECTS:,}.")
    if not isinstance(done, bool):
        raise DataError(f"{where}: done is {done!r:.40}; it is true or false.")
    marks = tuple(_mark(one, f"{where}, object {place}", height, width) for place, one in enumerate(objects))
    return Marks(height, width, marks, done, _whole(fields.get("revision", 0), "revision", where))


def _mark(content: Any, where: str, height: int, width: int) -> Mark:
    fields = _fields(content, FIELDS, where)
    counts = _runs(fields.get("counts"), "counts", where, height * width)
    if not sum(counts[1::2]):
        raise DataError(f"{where}: its mask covers no pixel.")
    added, removed = (
        _runs(fields[key], key, where, height * width) if fields.get(key) else () for key in ("added", "removed")
    )
    clicks, choice = read_clicks(fields, where)
    track = _whole(fields.get("track", 0), "track", where)
    return Mark(_whole(fields.get("class"), "class", where, least=1), counts, clicks, choice, added, removed, track)


def read_clicks(fields: dict[str, Any], where: str) -> tuple[Clicks, int]:
    """Returns what `points`, `box` and `choice` of a mapping say.

    Raises:
        DataError: One of them is not what it must be.
    """
    points, box = fields.get("points", []), fields.get("box")
    if not isinstance(points, list) or len(points) > POINTS:
        raise DataError(f"{where}: points must be a list of at most {POINTS}.")
    for point in points:
        if not _are_numbers(point, 3) or point[2] not in (0, 1):
            raise DataError(f"{where}: a point is {point!r:.60}; it is [x, y, 1] or [x, y, 0].")
    if box is not None and not _are_numbers(box, 4):
        raise DataError(f"{where}: box is {box!r:.60}; it is [x1, y1, x2, y2].")
    found = tuple((float(x), float(y), int(label)) for x, y, label in points)
    corners = None if box is None else (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
    return Clicks(found, corners), _whole(fields.get("choice", 0), "choice", where)


def _fields(content: Any, known: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise DataError(f"{where} is a {type(content).__name__}; it must be a mapping.")
    for key in content:
        if key not in known:
            raise DataError(f"{where}: the key {key!r:.40} is unknown; there are {', '.join(known)}.")
    return content


def _are_numbers(value: Any, count: int) -> bool:
    """Whether it is a list of so many numbers that an image's pixels can have."""
    return (
        isinstance(value, list)
        and len(value) == count
        and all(type(number) in (int, float) and abs(number) < 1e6 for number in value)
    )


def _whole(value: Any, name: str, where: str, least: int = 0) -> int:
    if type(value) is not int or not least <= value < 1 << 40:
        raise DataError(f"{where}: {name} is {value!r:.40}; it is a whole number, at least {least}.")
    return value


def _runs(value: Any, name: str, where: str, pixels: int) -> Runs:
    """Run lengths that fill the image exactly; only the first may be 0."""
    if not isinstance(value, list) or not value or any(type(count) is not int for count in value):
        raise DataError(f"{where}: {name} must be a list of whole numbers.")
    if value[0] < 0 or min(value[1:], default=1) < 1 or sum(value) != pixels:
        raise DataError(f"{where}: {name} must be lengths of runs that fill the {pixels:,} pixels of the image.")
    return tuple(value)


def runs_of(mask: np.ndarray) -> Runs:
    """Returns the runs of a mask (h, w), row by row."""
    changes = np.flatnonzero(np.diff(mask.reshape(-1), prepend=False))
    return tuple(np.diff(np.concatenate([[0], changes, [mask.size]])).tolist())


def coco_runs(counts: Runs, height: int, width: int) -> RLE:
    """Returns the same mask in runs down the columns."""
    inside = np.arange(len(counts)) % 2 == 1
    return encode(np.repeat(inside, counts).reshape(height, width))
