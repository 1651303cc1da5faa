"""Which keypoint another one becomes in a mirror: a left eye becomes a right one."""

import re
from collections.abc import Sequence

from nexus.data.dataset import DataError
from nexus.data.detection.scene import Annotations

SIDES = {"left": "right", "l": "r", "lft": "rgt", "lt": "rt", "lhs": "rhs"}
_OTHER = {**SIDES, **{right: left for left, right in SIDES.items()}}
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^A-Za-z0-9]+")


def mirror_of(annotations: Annotations) -> tuple[int, ...] | None:
    """For each keypoint its mirror image: as the file says (`flip_idx`), or by the names; None where neither tells."""
    if annotations.mirror:
        return annotations.mirror
    try:
        return mirrored_names(annotations.keypoint_names)
    except DataError:
        return None


def mirrored_names(names: Sequence[str]) -> tuple[int, ...]:
    """For each keypoint the place of its mirror image; those without a side stay.

    Sides are told by a word (`left_eye`, `EyeRight`, `l_hip`, `LHip`, `hip.R`) or by how a name begins or ends
    (`lefteye`).

    Raises:
        DataError: A side has no partner, or names differ by a number only, which tells nothing of sides.
    """
    swap = [_partner(name, names) for name in names]
    for place, other in enumerate(swap):
        if swap[other] != place:
            raise DataError(f"keypoint {names[place]!r} has no clear mirror image; {_REMEDY}")
    own = [name for place, name in enumerate(names) if swap[place] == place]
    stems = [re.sub(r"[0-9]+", "", name) for name in own]
    for name, stem in zip(own, stems):
        if stem != name and stems.count(stem) > 1:
            raise DataError(f"keypoint {name!r} differs from others by its number, which tells no side; {_REMEDY}")
    return tuple(swap)


_REMEDY = "name left and right ones so, give flip_idx in a YOLO data.yaml, or train with augment.flip=0."


def _partner(name: str, names: Sequence[str]) -> int:
    lower = [other.lower() for other in names]
    words = _WORDS.findall(name)
    sided = [word.lower() in _OTHER for word in words]
    swapped = "".join(_OTHER.get(word.lower(), word) for word in words)
    if any(sided):
        if swapped.lower() not in lower:
            raise DataError(f"keypoint {name!r} has no partner called {swapped!r}; {_REMEDY}")
        return lower.index(swapped.lower())
    for side, other in _OTHER.items():
        for candidate in (_begins(name.lower(), side, other), _ends(name.lower(), side, other)):
            if candidate is not None and candidate in lower:
                return lower.index(candidate)
    if re.match(r"(left|right)", name.lower()):
        raise DataError(f"keypoint {name!r} has no partner on the other side; {_REMEDY}")
    return list(names).index(name)


def _begins(name: str, side: str, other: str) -> str | None:
    return other + name.removeprefix(side) if name.startswith(side) else None


def _ends(name: str, side: str, other: str) -> str | None:
    return name.removesuffix(side) + other if name.endswith(side) else None
