"""Pictures whose pixels are numbers of objects, as DAVIS and YouTube-VOS keep masks: PNG files with a palette.

Dims: h w pixels.
"""

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image as PIL

from nexus.core.files import write_whole
from nexus.data.clips.clip import Ids
from nexus.data.images import ImageError, file_size, naming

VOID = 255
"""The number of pixels that nobody judges; where no other number stands, that of a single object (DAVIS 2016)."""


def read_ids(path: Path, size: tuple[int, int]) -> Ids:
    """Returns the object of each pixel.

    Pixels that nobody judges belong to no object. Where 255 is the only number, it is object 1.

    Raises:
        ImageError: The file is missing, damaged, of another size, or no picture of numbers.
    """
    name = str(path)
    if (found := file_size(path)) != size:
        raise ImageError(
            f"{name} has {found[1]} x {found[0]} pixels, and its frame {size[1]} x {size[0]}; they must be of one size."
        )
    with naming(name), PIL.open(path, formats=["PNG"]) as picture:
        if picture.mode not in ("P", "L", "1"):
            raise ImageError(
                f"{name} is a picture of colours ({picture.mode}); the masks of a clip are a PNG with a palette, or"
                " grey, whose pixels are the numbers of the objects."
            )
        ids = np.array(picture).astype(np.uint8)
    others = np.unique(ids[(ids != 0) & (ids != VOID)])
    ids[ids == VOID] = 0 if len(others) else 1
    return ids


def write_ids(path: Path, ids: Ids) -> None:
    """Writes the object of each pixel as a PNG in which each object has a colour."""
    picture = PIL.fromarray(np.ascontiguousarray(ids, dtype=np.uint8), "P")
    picture.putpalette(np.array([colour_of(number) for number in range(256)], dtype=np.uint8).tobytes())
    write_whole(path, lambda part: picture.save(part, "PNG"))


def colour_of(number: int) -> tuple[int, int, int]:
    """Returns the colour of an object, the same everywhere; black for 0."""
    if not number:
        return 0, 0, 0
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.85, 1 - 0.3 * (number // 5 % 2))
    return round(red * 255), round(green * 255), round(blue * 255)
