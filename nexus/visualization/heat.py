"""An explanation as a sheet: the picture, the heat over it, what it is about and how its colours are read."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from nexus.core.preprocessing import Preprocessing
from nexus.visualization.drawing import overlay
from nexus.visualization.figures import GREY, INK, image_axes, new_figure
from nexus.visualization.pictures import enlarge, to_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 448


def plot_heat(
    image: Image.Image | np.ndarray | Tensor,
    heat: Float[Tensor, "h w"],
    *,
    title: str,
    subject: str,
    preprocessing: Preprocessing | None = None,
    colormap: str = "jet",
) -> "Figure":
    """Returns a figure: the image, the image under its heat map, and the scale of the heat.

    Args:
        image: As for `to_picture`.
        heat: From 0 to 1; all 0 if nothing speaks for the subject, which the figure then says in words.
        title: Of the whole figure.
        subject: What the heat is about, such as "GradCAM of cat".
        preprocessing: With which an image tensor was normalized.
        colormap: A name that matplotlib knows.
    """
    picture = enlarge(to_picture(image, preprocessing), SIDE)
    figure = new_figure(8.4, 4.2 * picture.height / picture.width + 0.7)
    left, right = figure.subplots(1, 2)
    image_axes(left, "image").imshow(picture)
    image_axes(right, subject).imshow(overlay(picture, heat, colormap=colormap, side=SIDE))
    if bool((heat > 0).any()):
        _draw_scale(figure, right, colormap)
    else:
        words = "No place speaks for it:\nwhat evidence there is\nspeaks against it everywhere."
        box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "boxstyle": "round,pad=0.6"}
        right.text(
            0.5, 0.5, words, transform=right.transAxes, ha="center", va="center", color=INK, fontsize=11, bbox=box
        )
    figure.suptitle(title, fontsize=11, color=INK, parse_math=False)
    return figure


def _draw_scale(figure: "Figure", axes: "Axes", colormap: str) -> None:
    from matplotlib.cm import ScalarMappable

    scale = figure.colorbar(ScalarMappable(cmap=colormap), ax=axes, fraction=0.046, pad=0.02, ticks=[0, 0.5, 1])
    scale.ax.set_yticklabels(["none", "half", "strongest\nevidence"])
    scale.ax.tick_params(labelsize=8, colors=GREY, length=2)
    scale.outline.set_visible(False)
