"""Pictures of masks with the clicks that they answer, and of how masks get better from click to click.

Dims: h w pixels.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

from nexus.visualization.figures import BLUE, GREY, INK, ORANGE, new_figure, plain_axes
from nexus.visualization.objects import tinted
from nexus.visualization.pictures import enlarge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ON, BESIDE = "#0f9d58", "#c92a2a"
"""Colours of clicks on the object and beside it."""


def draw_clicks(
    image: Image.Image,
    mask: Bool[np.ndarray, "h w"],
    clicks: Sequence[tuple[float, float, int]],
    *,
    box: Sequence[float] | None = None,
    truth: Bool[np.ndarray, "h w"] | None = None,
    side: int = 512,
) -> Image.Image:
    """Returns the image with a mask tinted blue and the clicks numbered: green on the object, red beside it.

    Args:
        image: Any; a small one is enlarged towards `side` pixels.
        mask: Of the image's size.
        clicks: x and y of pixels, and 1 on the object or 0 beside it.
        box: That the mask answers too, x1, y1, x2, y2; drawn green.
        truth: The object, whose outline is drawn white.
        side: Wanted pixels of the longer side of a small image.
    """
    picture = enlarge(tinted(image.convert("RGB"), mask, BLUE), side)
    scale = picture.width / image.width
    if truth is not None:
        white = Image.new("RGB", picture.size, "white")
        picture = Image.composite(white, picture, _edge(truth, picture.size))
    draw = ImageDraw.Draw(picture)
    if box is not None:
        draw.rectangle([side * scale for side in box], outline=ON, width=max(2, round(max(picture.size) / 200)))
    radius = max(4, round(max(picture.size) / 60))
    for number, (x, y, label) in enumerate(clicks, start=1):
        middle = (x + 0.5) * scale, (y + 0.5) * scale
        around = [middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius]
        draw.ellipse(around, fill=ON if label else BESIDE, outline="white", width=max(1, radius // 4))
        draw.text(middle, str(number), fill="white", anchor="mm")
    return picture


def _edge(mask: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """The pixels of a mask, enlarged to `size` (width, height), that have a neighbour outside of it."""
    large = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)) > 0
    framed = np.pad(large, 1)
    inner = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    return Image.fromarray(np.where(large & ~inner, 255, 0).astype(np.uint8))


def plot_clicks(curves: Mapping[str, Sequence[float]]) -> "Figure":
    """Returns a figure with a line for each name: a figure from 0 to 1 after 1, 2, ... clicks."""
    figure = new_figure(5.2, 3.4)
    axes = plain_axes(figure.subplots())
    for (name, values), colour in zip(curves.items(), (BLUE, ORANGE, GREY)):
        axes.plot(range(1, len(values) + 1), values, color=colour, marker="o", markersize=4, linewidth=1.6, label=name)
    axes.set_ylim(0, 1.02)
    axes.set_xticks(range(1, max(map(len, curves.values())) + 1))
    axes.set_xlabel("clicks", fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=GREY, length=3)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure
