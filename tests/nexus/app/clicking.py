"""A stand-in for a model that answers clicks: the region of one colour around each point. No weights, no waiting."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from nexus.data.images import as_array
from nexus.tasks.clicks import Clicks, Guess

WIDTHS = (40, 20, 80)
"""How far a colour may be from that of the point: of the first guess, the second, the third."""


class Seen(NamedTuple):
    pixels: np.ndarray


class ByColour:
    """As `nexus.tasks.clicks.Clicker`; counts what is asked of it."""

    def __init__(self) -> None:
        self.encoded = self.asked = 0

    def encode(self, image):
        self.encoded += 1
        pixels = as_array(image)
        return Seen((pixels if pixels.shape[2] == 3 else pixels.repeat(3, axis=2)).astype(np.float32))

    def size_of(self, encoded):
        return encoded.pixels.nbytes

    def ask(self, encoded, clicks: Clicks, memory=None):
        self.asked += 1
        height, width = encoded.pixels.shape[:2]
        if not clicks.points and clicks.box is None:
            raise ValueError("There is no prompt: give points, boxes or masks.")
        for x, y, _ in clicks.points:
            if not (0 <= x <= width and 0 <= y <= height):
                raise ValueError(
                    f"The point ({x:g}, {y:g}) is outside of the image, which is {width} x {height} pixels."
                )
        if memory is not None:
            return [Guess(0.9, _changed(memory, encoded, clicks.points[-1]))]
        if clicks.box is not None:
            return [Guess(0.8, _in_box(encoded, clicks.box))]
        empty = np.zeros((height, width), dtype=bool)
        several = WIDTHS if len(clicks.points) == 1 else WIDTHS[:1]
        return [Guess(0.9 - at / 10, _changed(empty, encoded, clicks.points[0], far)) for at, far in enumerate(several)]

    def mask(self, encoded, guess):
        return guess.memory


def _changed(mask, encoded, point, far=WIDTHS[0]):
    region = _region(encoded, point, far)
    return mask | region if point[2] else mask & ~region


def _region(encoded, point, far):
    x, y = min(int(point[0]), encoded.pixels.shape[1] - 1), min(int(point[1]), encoded.pixels.shape[0] - 1)
    near = np.abs(encoded.pixels - encoded.pixels[y, x]).max(axis=2) <= far
    numbers, _ = ndimage.label(near)
    return numbers == numbers[y, x]


def _in_box(encoded, box):
    """What has the colour of the box's middle, inside of the box."""
    x1, y1, x2, y2 = box
    region = _region(encoded, ((x1 + x2) / 2, (y1 + y2) / 2, 1), WIDTHS[0])
    inside = np.zeros_like(region)
    inside[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1] = True
    return region & inside
