"""Large images in tiles: what a model sees one after another of an image that is larger than it takes.

Akyol et al., "Slicing Aided Hyper Inference and Fine-tuning for Small Object Detection", 2022.
https://arxiv.org/abs/2202.06934
"""

from dataclasses import dataclass
from typing import NamedTuple

from nexus.core.config import Config


class Window(NamedTuple):
    """A part of an image, in pixels.

    Attributes:
        left: Of the image's columns, the first.
        top: Of its rows.
        width: In pixels.
        height: Likewise.
    """

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Tiling(Config):
    """How an image is cut into tiles.

    Attributes:
        size: Side of a tile, in pixels of the image as given. An image that fits into one is not cut.
        overlap: Share of a tile that the next one repeats; more than the largest of the small objects.
        whole: Whether the model sees the whole image too, for objects that are larger than a tile.
        match: Intersection over the smaller area from which two finds of different tiles are one object.
    """

    size: int = 640
    overlap: float = 0.2
    whole: bool = True
    match: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 8:
            raise ValueError(f"The tiles' size is {self.size} pixels; it must be at least 8.")
        if not 0 <= self.overlap <= 0.9:
            raise ValueError(f"The tiles' overlap is {self.overlap}; it must be from 0 to 0.9, a share of a tile.")
        if not 0 < self.match <= 1:
            raise ValueError(f"The tiles' match is {self.match}; it must be above 0 and at most 1.")

    def windows(self, height: int, width: int) -> list[Window]:
        """Returns the parts of an image, row by row, all of one size; with `whole`, the image itself comes first."""
        image = Window(0, 0, width, height)
        if max(height, width) <= self.size:
            return [image]
        lefts, tops = self._starts(width), self._starts(height)
        parts = [Window(x, y, min(self.size, width), min(self.size, height)) for y in tops for x in lefts]
        return [image, *parts] if self.whole else parts

    def _starts(self, length: int) -> list[int]:
        """The first pixels of the tiles along one side: evenly spread, none outside the image."""
        room = length - self.size
        if room <= 0:
            return [0]
        step = max(1, int(self.size * (1 - self.overlap)))
        count = -(-room // step) + 1
        return [round(room * place / (count - 1)) for place in range(count)]
