"""From a user's prompts about a video to what is asked of which object in which frame."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nexus.core.config import nearest
from nexus.data.video import VIDEO_EXTENSIONS

KINDS = ("points", "labels", "boxes", "masks")
KEYS = ("frame", *KINDS)
EXAMPLE = 'prompts={1: {"frame": 0, "points": [[210, 350]]}}, or --object 1 --point 0:210,350'
_TEXT = re.compile(r"(?:(\d{1,9}):)?(not:)?(-?[\d.]+(?:,-?[\d.]+)*)")


class Asked(NamedTuple):
    """One object, pointed at in one frame.

    Attributes:
        object_id: Its number.
        frame: That of the frame, from 0.
        places: Points, labels, boxes and masks, as they were given.
    """

    object_id: int
    frame: int
    places: Mapping[str, Any]


def is_about_objects(prompts: Any) -> bool:
    """Returns whether prompts are about numbered objects or frames, or are a video."""
    if isinstance(prompts, Mapping):
        return any(isinstance(key, int) for key in prompts)
    if isinstance(prompts, str | Path):
        return Path(prompts).suffix.lower() in VIDEO_EXTENSIONS
    if not isinstance(prompts, list | tuple) or not all(isinstance(one, str | Path) for one in prompts):
        return False
    return any(is_about_objects(one) or str(one).isdecimal() or re.match(r"\d+:", str(one)) for one in prompts)


def asked_of(prompts: Any) -> list[Asked]:
    """Returns what is asked, frame by frame.

    Args:
        prompts: By number of an object a mapping of `frame` (0 if it is left out) with `points` and `labels`, `boxes`
            or `masks`, or a list of such mappings; or one mapping alone, for object 1.

    Raises:
        ValueError: It is none of these; the message says what would be.
    """
    if not isinstance(prompts, Mapping) or not prompts:
        raise ValueError(f"There is no prompt, but {str(prompts)[:60]!r}; write {EXAMPLE}.")
    if all(isinstance(key, str) for key in prompts):
        prompts = {1: prompts}
    found = []
    for number, given in prompts.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"There is an object {number!r}; objects are numbered from 1: {EXAMPLE}.")
        for one in given if isinstance(given, list | tuple) else [given]:
            found.append(_asked(number, one))
    return sorted(found, key=lambda one: one.frame)


def _asked(number: int, given: Any) -> Asked:
    if not isinstance(given, Mapping):
        raise ValueError(f"Object {number} is asked about by {str(given)[:60]!r}; write {EXAMPLE}.")
    for key in given:
        if key not in KEYS:
            raise ValueError(f"There is no prompt {str(key)[:60]!r}. {nearest(str(key), KEYS)}")
    places = {key: value for key, value in given.items() if key in KINDS and value is not None}
    if not {"points", "boxes", "masks"} & set(places):
        raise ValueError(f"Object {number} has no point, box or mask; write {EXAMPLE}.")
    frame = given.get("frame", 0)
    if isinstance(frame, bool) or not isinstance(frame, int) or frame < 0:
        raise ValueError(f"frame of object {number} is {frame!r}; it is the number of one, from 0.")
    return Asked(number, frame, places)


def read_texts(texts: Sequence[str]) -> dict[int, list[dict[str, Any]]]:
    """Returns the prompts that a command line writes: "1" begins with object 1, "0:210,350" is a point of it in frame
    0, "0:not:20,30" one beside it, "0:10,20,50,60" a box around it. Without a frame it is the first.

    Raises:
        ValueError: A text is none of these, or an object has nothing.
    """
    found: dict[int, dict[int, dict[str, Any]]] = {}
    number = 0
    for text in texts:
        if text.isdecimal() and len(text) < 10:
            number = int(text)
            found.setdefault(number, {})
            continue
        frame, negative, numbers = _parsed(text)
        if not number:
            number = 1
        asked = found.setdefault(number, {}).setdefault(frame, {"frame": frame})
        if len(numbers) == 4:
            if "boxes" in asked:
                raise ValueError(f"Object {number} has two boxes in frame {frame}; give one.")
            asked["boxes"] = numbers
        else:
            asked.setdefault("points", []).append(numbers)
            asked.setdefault("labels", []).append(0 if negative else 1)
    for one, frames in found.items():
        if not frames:
            raise ValueError(f"--object {one} has no point or box; write --object {one} --point 0:210,350.")
    return {one: list(frames.values()) for one, frames in found.items()}


def _parsed(text: str) -> tuple[int, bool, list[float]]:
    match = _TEXT.fullmatch(text)
    try:
        numbers = [float(part) for part in match[3].split(",")] if match else []
    except ValueError:
        numbers = []
    if match is None or len(numbers) not in (2, 4) or (len(numbers) == 4 and match[2]):
        raise ValueError(
            f"The prompt {text[:80]!r} is no object (1), no point in a frame (0:210,350; beside the object"
            " 0:not:210,350) and no box (0:10,20,50,60: x1,y1,x2,y2)."
        )
    return int(match[1] or 0), match[2] is not None, numbers
