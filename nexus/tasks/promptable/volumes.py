"""A volume is segmented slice by slice: the mask of a slice is the box of the next one.

Dims: i j k voxels of a volume, h w of a slice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from nexus.data.medical import Volume, Window, to_levels
from nexus.tasks.clicks import Box, Clicker, Clicks


class SliceBox(NamedTuple):
    """A box around an object in one slice.

    Attributes:
        number: Of the slice, from 0.
        box: x1, y1, x2, y2 in voxels: of a slice across axis 2, x is i and y is j.
    """

    number: int
    box: Box


@dataclass(frozen=True)
class Carrying:
    """How a box goes from slice to slice.

    Attributes:
        axis: Across which the slices lie: 0, 1 or 2.
        margin: Voxels by which the box around a mask is enlarged for the next slice.
        first: The first slice that may hold the object; None is the volume's.
        last: The last one.
        least: Voxels of a slice that are still the object; with fewer it has ended.
    """

    axis: int = 2
    margin: int = 3
    first: int | None = None
    last: int | None = None
    least: int = 1

    def __post_init__(self) -> None:
        if self.axis not in (0, 1, 2) or self.margin < 0 or self.least < 1:
            raise ValueError(
                f"axis is {self.axis}, margin {self.margin} and least {self.least}; they are 0, 1 or 2, at least 0, and"
                " at least 1."
            )


def segment_volume(
    clicker: Clicker,
    volume: Volume,
    boxes: Sequence[SliceBox],
    *,
    window: Window | None = None,
    carrying: Carrying | None = None,
) -> Int[np.ndarray, "i j k"]:
    """Returns the number of the object in each voxel, in the order of their boxes from 1; 0 is outside.

    An object is found in the slice of its box, and from there up and down: the box around its mask, somewhat enlarged,
    is asked about in the next slice, until nothing is found. Of two objects in one voxel the first stays.

    Args:
        clicker: A model that answers boxes: `task.clicker(model)`.
        volume: A scan.
        boxes: One for each object.
        window: Of a CT; None for all else (see `to_levels`).
        carrying: How a box goes on.

    Raises:
        ValueError: There is no box, or one is outside of the volume.
    """
    carrying = carrying or Carrying()
    if not boxes:
        raise ValueError("There is no box: give one for each object, in one of its slices.")
    levels = np.moveaxis(to_levels(volume, window), carrying.axis, 2)
    found = np.zeros(levels.shape, dtype=np.int32)
    for name, one in enumerate(boxes, 1):
        _check(one, levels.shape, carrying)
        for number, mask in _masks(clicker, levels, one, carrying):
            part = found[:, :, number]
            part[mask.T & (part == 0)] = name
    return np.moveaxis(found, 2, carrying.axis)


def _masks(
    clicker: Clicker, levels: UInt8[np.ndarray, "i j k"], start: SliceBox, carrying: Carrying
) -> Iterator[tuple[int, Bool[np.ndarray, "h w"]]]:
    """Yields the slices that an object is in, with its masks: that of the box, those above, those below."""
    low = 0 if carrying.first is None else carrying.first
    high = levels.shape[2] - 1 if carrying.last is None else carrying.last
    middle = _ask(clicker, levels[:, :, start.number], start.box)
    yield start.number, middle
    for numbers in (range(start.number + 1, high + 1), range(start.number - 1, low - 1, -1)):
        mask = middle
        for number in numbers:
            box = _around(mask, carrying)
            if box is None:
                break
            mask = _ask(clicker, levels[:, :, number], box)
            if mask.sum() < carrying.least:
                break
            yield number, mask


def _ask(clicker: Clicker, part: UInt8[np.ndarray, "w h"], box: Box) -> Bool[np.ndarray, "h w"]:
    encoded = clicker.encode(np.ascontiguousarray(part.T)[..., None])
    return clicker.mask(encoded, clicker.ask(encoded, Clicks(box=box))[0])


def _around(mask: Bool[np.ndarray, "h w"], carrying: Carrying) -> Box | None:
    """Returns the box around a mask, enlarged within the slice; None where nothing is left of the object."""
    if mask.sum() < carrying.least:
        return None
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    height, width = mask.shape
    margin = carrying.margin
    return (
        float(max(0, columns[0] - margin)),
        float(max(0, rows[0] - margin)),
        float(min(width, columns[-1] + 1 + margin)),
        float(min(height, rows[-1] + 1 + margin)),
    )


def _check(one: SliceBox, shape: tuple[int, ...], carrying: Carrying) -> None:
    count = shape[2]
    low, high = carrying.first or 0, count - 1 if carrying.last is None else carrying.last
    if not 0 <= low <= high < count:
        raise ValueError(f"The slices are {low} to {high}, and the volume has {count}, 0 to {count - 1}.")
    if not low <= one.number <= high:
        raise ValueError(f"The box is in slice {one.number}, and the slices are {low} to {high}.")
    x1, y1, x2, y2 = one.box
    if not (0 <= x1 < x2 <= shape[0] and 0 <= y1 < y2 <= shape[1]):
        told = ", ".join(f"{number:g}" for number in one.box)
        raise ValueError(
            f"The box ({told}) is x1, y1, x2, y2 in voxels, within the {shape[0]} x {shape[1]} of a slice, x1 < x2 and"
            " y1 < y2."
        )


def read_slice_box(text: str) -> SliceBox:
    """Returns a box as a command line writes it: "40:95,255,190,350" is in slice 40.

    Raises:
        ValueError: It is none.
    """
    number, _, places = text.partition(":")
    try:
        x1, y1, x2, y2 = (float(place) for place in places.split(","))
        return SliceBox(int(number), (x1, y1, x2, y2))
    except ValueError:
        raise ValueError(f"The box {text[:60]!r} is not SLICE:X1,Y1,X2,Y2, such as 40:95,255,190,350.") from None
