"""Pictures of what a model paints where it saw nothing.

Dims: b batch, c channels, h w pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from nexus.core.preprocessing import Preprocessing
from nexus.visualization.drawing import contact_sheet
from nexus.visualization.pictures import to_picture

GREY = 0.5  # of what was hidden, between black and white


class Painting(NamedTuple):
    """An image, what the model painted in it, and where.

    Attributes:
        image: Normalized, (c, h, w).
        painted: The same image with its hidden patches painted by the model.
        hidden: (h, w), 1 where the model saw nothing.
    """

    image: Float[Tensor, "c h w"]
    painted: Float[Tensor, "c h w"]
    hidden: Float[Tensor, "h w"]


def reconstruction_sheet(
    paintings: Sequence[Painting], preprocessing: Preprocessing, *, columns: int = 2, tile: int = 112
) -> Image:
    """Returns one picture: for each image what the model saw, what it painted, and the truth (as Fig. 2 of MAE).

    Args:
        paintings: At least one.
        preprocessing: With which the images were normalized; it is undone.
        columns: How many images stand beside each other.
        tile: Pixels of the longer side of each picture.
    """
    tiles: list[Image] = []
    for image, painted, hidden in paintings:
        grey = (GREY - image.new_tensor(preprocessing.mean)) / image.new_tensor(preprocessing.std)
        seen = image + hidden * (grey[:, None, None] - image)
        tiles += [to_picture(picture, preprocessing) for picture in (seen, painted, image)]
    captions = ["seen", "painted", "image"] * len(paintings)
    return contact_sheet(tiles, captions, columns=3 * columns, tile=tile)
