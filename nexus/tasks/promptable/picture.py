"""Pictures as SAM sees them: filled up to the size that the model is made for."""

import torch
from jaxtyping import Float
from torch import Tensor

from nexus.layers import image_sides
from nexus.models.cv.sam import SAM
from nexus.tasks.promptable.everything import Picture
from nexus.tasks.source import as_input


def padded(model: SAM, pixels: Float[Tensor, "c h w"]) -> Picture:
    """Returns a picture filled up with zeros right and below to the size that the model is made for.

    Raises:
        ValueError: It is larger than that.
    """
    height, width = pixels.shape[-2:]
    rows, columns = image_sides(model.config.image_size)
    if height > rows or width > columns:
        raise ValueError(
            f"The preprocessing makes images of {height} x {width} pixels, and the model is made for at most"
            f" {rows} x {columns}; change image_size of one of them."
        )
    images = torch.nn.functional.pad(pixels, (0, columns - width, 0, rows - height))
    return Picture(as_input(model, images[None]), (height, width))
