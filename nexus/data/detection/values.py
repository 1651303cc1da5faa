"""What the values of annotations must be, whichever file they come from: each rule once, with its words."""

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from nexus.data.detection.rle import RLE, outline_length, read_counts
from nexus.data.detection.scene import Box, Polygons, Scene, box_problem
from nexus.data.images import MAX_PIXELS, MAX_SIDE

MAX_NAME = 1000
"""Characters of the name of a class; the longest of public sets has about 150."""
MAX_KEYPOINTS = 1000
"""Of an object; whole bodies with faces and hands have 133."""
MAX_OUTLINE = 2_000_000
"""Pixels that an outline may be long; a jagged one around all of a large image has some 100,000."""


def class_name(value: Any) -> str:
    """The name of a class as it is compared: composed Unicode, no space around it.

    Raises:
        ValueError: It is none; the message continues "... a class ".
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is no name; a class needs a name.")
    name = unicodedata.normalize("NFC", value.strip())
    if len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(f"{name[:40]!r} is no name of a class; use up to {MAX_NAME} characters that can be printed.")
    return name


def whole(value: Any) -> int | None:
    """The whole number that a value is (64.0 is one, True is none), or None."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63 else None


def whole_text(text: Any) -> int | None:
    """The whole number, 0 or more, that a text writes in ASCII digits, or None."""
    plain = isinstance(text, str) and text.strip().isascii() and text.strip().isdigit() and len(text) < 19
    return int(text) if plain else None


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that may be squared: beyond 2^63 there is no coordinate."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1 << 63  # not NaN either


def number_of(text: Any) -> float:
    """The finite number that a text writes.

    Raises:
        ValueError: It is none.
    """
    try:
        value = float(text)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{str(text)[:40]!r} is not a number.") from None
    if not is_number(value):
        raise ValueError(f"{str(text)[:40]!r} is not a finite number below 2^63.")
    return value


def size_problem(height: Any, width: Any) -> str | None:
    """What is wrong with the height and width of an image in a file, or None."""
    sides = whole(height), whole(width)
    if any(side is None or side < 1 for side in sides):
        return f"height and width are {str(height)[:40]!r} and {str(width)[:40]!r}; they must be pixels above 0."
    high, wide = (int(side or 0) for side in sides)
    if max(high, wide) > MAX_SIDE or high * wide > MAX_PIXELS:
        return f"height and width are {high} and {wide}; images of more than {MAX_PIXELS:,} pixels are not read."
    return None


def ring_problem(ring: Any, scene: Scene) -> str | None:
    """What is wrong with an outline x, y, x, y, ... in pixels, or None. One pixel beyond the border is forgiven."""
    if not isinstance(ring, list) or not all(map(is_number, ring)):
        return f"is {str(ring)[:40]}; it must be a list of numbers x, y, x, y, ..."
    if len(ring) % 2:
        return f"has {len(ring)} numbers; they come in pairs x, y."
    if len(ring) < 6:
        return f"has {len(ring) // 2} points; an outline needs at least 3."
    points = np.array(ring, dtype=np.float64).reshape(-1, 2)
    wild = ((points < -1) | (points > (scene.width + 1, scene.height + 1))).any(axis=1)
    if wild.any():
        size = f"{scene.width} x {scene.height}"
        return f"has the point {points[wild][0].tolist()} outside of the image of {size} pixels."
    if outline_length(points) > MAX_OUTLINE:
        return f"is {outline_length(points):,.0f} pixels long; at most {MAX_OUTLINE:,} are drawn. Simplify it."
    return None


def polygons(rings: Sequence[Sequence[float]], scene: Scene) -> Polygons:
    """The mask of outlines x, y, x, y, ...

    Raises:
        ValueError: One of them is wrong.
    """
    for place, ring in enumerate(rings):
        problem = ring_problem(list(ring), scene)
        if problem is not None:
            raise ValueError(f"outline {place} {problem}")
    return Polygons(tuple(np.array(ring, dtype=np.float64).reshape(-1, 2) for ring in rings))


def checked_box(box: Box, scene: Scene) -> Box:
    """The box itself.

    Raises:
        ValueError: It has no area, leaves the image or is not finite.
    """
    problem = box_problem(box, scene.height, scene.width)
    if problem is not None:
        raise ValueError(problem)
    return box


def extent(mask: Polygons) -> Box:
    """The smallest box around outlines."""
    points = np.concatenate(mask.rings)
    x1, y1, x2, y2 = np.concatenate([points.min(axis=0), points.max(axis=0)]).tolist()
    return x1, y1, x2, y2


def checked_runs(counts: Any, height: int, width: int) -> RLE:
    """The mask of COCO's runs, as a list of whole numbers or as text.

    Raises:
        ValueError: They are something else, or do not add up to the pixels of the image.
    """
    if isinstance(counts, str):
        counts = read_counts(counts)
    elif not isinstance(counts, list) or not all(isinstance(one, int) and not isinstance(one, bool) for one in counts):
        raise ValueError(f"counts are {str(counts)[:40]!r}; they must be a list of whole numbers, or text")
    if counts and min(counts) < 0:
        raise ValueError(f"counts hold {min(counts)}; a run cannot be below 0")
    if sum(counts) != height * width:  # Python's integers: a sum of NumPy's could wrap around
        raise ValueError(f"counts add up to {str(sum(counts))[:24]}; the image has {height * width} pixels")
    return RLE(height, width, np.array(counts, dtype=np.int64))


def visibility_problem(points: np.ndarray) -> str | None:
    """What is wrong with the third column of keypoints, or None."""
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        return "a keypoint's visibility is neither 0 (not labelled), 1 (hidden) nor 2 (visible)."
    return None
