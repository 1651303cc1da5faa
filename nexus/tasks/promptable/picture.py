"""Pictures as a segmenter sees them: filled up to the size that the model is made for."""

import torch
from jaxtyping import Float
from torch import Tensor

from nexus.layers import image_sides
from nexus.models.cv.sam.segmenter import Segmenter
from nexus.tasks.promptable.everything import Picture
from nexus.tasks.source import as_input


def padded(model: Segmenter, pixels: Float[Tensor, "c h w"]) -> Picture:
    """Returns a picture filled up with zeros right and below to the size that the model is made for.

    Raises:
        ValueError: It is larger than that.
    """
    images = filled_up(pixels[None], model.config.image_size)
    return Picture(as_input(model, images), (pixels.shape[1], pixels.shape[2]))


def filled_up(images: Float[Tensor, "b c h w"], image_size: int | tuple[int, int]) -> Float[Tensor, "b c rows columns"]:
    """Returns images filled up with zeros right and below to the size that a model is made for.

    Raises:
        ValueError: They are larger than that.
    """
    height, width = images.shape[-2:]
    rows, columns = image_sides(image_size)
    if height > rows or width > columns:
        raise ValueError(
            f"The preprocessing makes images of {height} x {width} pixels, and the model is made for at most"
            f" {rows} x {columns}; change image_size of one of them."
        )
    return torch.nn.functional.pad(images, (0, columns - width, 0, rows - height))
