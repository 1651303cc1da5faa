"""What goes into a model and comes out of it, in words that all kinds of models share."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

Batch = Mapping[str, Any]
Outputs = Mapping[str, Any]


class ImageInfo(NamedTuple):
    """Where an image came from.

    Attributes:
        path: The file, or a place such as `"images[3]"`.
        height: In pixels, as given, before any preprocessing.
        width: Likewise.
        image: The image itself, where it was given in memory.
    """

    path: str
    height: int
    width: int
    image: "Image | np.ndarray | None" = None


class View(NamedTuple):
    """What a session sees at once: an image or a tile of it, or nothing but the prompt with its number.

    Attributes:
        number: Of the image among all that were given, from 0: the place of its prompt, where each has its own.
        info: Of the image, or of the tile with the name of its image.
        pixels: (c, h, w), as the model takes them; None where no image goes in.
    """

    number: int
    info: ImageInfo
    pixels: Tensor | None
