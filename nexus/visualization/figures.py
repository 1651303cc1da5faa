"""Figures without pyplot: made, and turned into PNG."""

import base64
import io
from functools import partial
from typing import TYPE_CHECKING

from PIL.Image import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2933"
GREY = "#7b8794"
BLUE = "#2563eb"
ORANGE = "#ea7317"


def new_figure(width: float, height: float) -> "Figure":
    """Returns an empty figure of `width` by `height` inches on a white ground; notebooks show it as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    # Notebooks know how to show figures of pyplot only; this method is what they ask any other object for.
    setattr(figure, "_repr_png_", partial(to_png, figure))  # noqa: B010
    return figure


def to_png(picture: "Figure | Image", *, dpi: int = 110) -> bytes:
    """Returns a figure, at `dpi` pixels per inch, or an image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    if isinstance(picture, Image):
        picture.save(buffer, "PNG")
    else:
        picture.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def to_data_uri(picture: "Figure | Image", *, dpi: int = 110) -> str:
    """Returns the PNG as text that an HTML page can hold: `<img src="data:image/png;base64,...">`."""
    return "data:image/png;base64," + base64.b64encode(to_png(picture, dpi=dpi)).decode("ascii")


def plain_axes(axes: "Axes") -> "Axes":
    """Returns the axes with a light grid and without the frame's upper and right side."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#cbd2d9")
    axes.grid(True, color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def image_axes(axes: "Axes", title: str = "") -> "Axes":
    """Returns the axes without ticks and frame, for a picture."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(title, fontsize=9, color=INK, parse_math=False)
    return axes
