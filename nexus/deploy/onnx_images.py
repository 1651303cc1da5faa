"""Images as an exported model sees them, in NumPy.

Dims: b batch, c channels, h w pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Seen(NamedTuple):
    """An image as the model sees it.

    Attributes:
        path: What answers call it.
        size: (height, width) in pixels of the image as given.
        pixels: (c, h, w).
    """

    path: str
    size: tuple[int, int]
    pixels: np.ndarray

    @property
    def inside(self) -> tuple[int, int]:
        """(height, width) of the image as the model sees it."""
        return self.pixels.shape[1], self.pixels.shape[2]


def padded(images: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Returns images (c, h, w) filled up with zeros right and below: (b, c, h, w)."""
    batch = np.zeros((len(images), images[0].shape[0], *size), np.float32)
    for place, image in zip(batch, images):
        place[:, : image.shape[1], : image.shape[2]] = image
    return batch
