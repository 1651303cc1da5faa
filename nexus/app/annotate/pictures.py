"""Images as a browser shows them: upright, and as the model sees them."""

import io
from pathlib import Path

from nexus.data.images import load_image
from nexus.visualization.pictures import to_picture

LOSSLESS = 4_000_000
"""Pixels up to which an image is sent as it is, as PNG; larger ones are sent as JPEG, which is ten times faster."""
QUALITY = 92
"""Of that JPEG."""


def picture_of(path: Path) -> tuple[bytes, str]:
    """Returns an image as bytes that a browser shows, and their kind.

    The file is decoded here, and not given to the browser: then the pixels that are clicked on are those that the model
    sees, whatever the file's orientation, colours and bits are.

    Raises:
        ImageError: The image cannot be read.
    """
    picture = to_picture(load_image(path))
    buffer = io.BytesIO()
    if picture.width * picture.height <= LOSSLESS:
        picture.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue(), "image/png"
    picture.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue(), "image/jpeg"
