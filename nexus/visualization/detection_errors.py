"""Pictures of where a detector is wrong, and its curves of precision over recall.

Dims: h w pixels, n r points of a curve.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from nexus.visualization.drawing import text_font
from nexus.visualization.figures import GREY, INK, new_figure, plain_axes
from nexus.visualization.objects import PALETTE, draw_captions
from nexus.visualization.pictures import enlarge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"right": "#0f9d58", "confused": "#7048e8", "false": "#ea7317", "missed": "#c92a2a"}
"""One colour for each thing that can become of a find or an object."""

Mark = tuple[str, Sequence[float], str]
MOST_CURVES = 8


def draw_marks(
    image: Image.Image, marks: Sequence[Mark], *, truths: Sequence[Sequence[float]] = (), side: int = 512
) -> Image.Image:
    """Returns the image with boxes in the colours of `COLOURS`, and below it what the colours mean, with counts.

    Args:
        image: Any; a small one is enlarged towards `side` pixels.
        marks: Kind, box (xyxy in pixels of the image) and caption of each. Missed objects are dashed.
        truths: Boxes of the objects that were found, drawn below the finds in thin white.
        side: Wanted pixels of the longer side of a small image.
    """
    picture = enlarge(image.convert("RGB"), side)
    scale, width = picture.width / image.width, max(2, round(max(picture.size) / 250))
    draw = ImageDraw.Draw(picture)
    boxes = np.asarray([box for _, box, _ in marks], dtype=float).reshape(-1, 4) * scale
    colours = [COLOURS[kind] for kind, _, _ in marks]
    for box in truths:
        draw.rectangle([side * scale for side in box], outline="white", width=max(1, width // 2))
    for (kind, _, _), box, colour in zip(marks, boxes.tolist(), colours):
        _draw_box(draw, box, colour, width, dashed=kind == "missed")
    draw_captions(draw, [caption for _, _, caption in marks], boxes, colours, picture.size)
    return _with_legend(picture, {kind: sum(mark[0] == kind for mark in marks) for kind in COLOURS})


def _draw_box(draw: ImageDraw.ImageDraw, box: Sequence[float], colour: str, width: int, *, dashed: bool) -> None:
    x1, y1, x2, y2 = box
    if not dashed:
        draw.rectangle((x1, y1, x2, y2), outline=colour, width=width)
        return
    step = 4 * width
    for start in np.arange(x1, x2, 2 * step):
        for y in (y1, y2):
            draw.line((start, y, min(start + step, x2), y), fill=colour, width=width)
    for start in np.arange(y1, y2, 2 * step):
        for x in (x1, x2):
            draw.line((x, start, x, min(start + step, y2)), fill=colour, width=width)


def _with_legend(picture: Image.Image, counts: Mapping[str, int]) -> Image.Image:
    font = text_font(max(11, min(16, picture.width // 30)))
    band, gap = round(font.size) + 10, round(font.size) // 2
    whole = Image.new("RGB", (picture.width, picture.height + band), "white")
    whole.paste(picture)
    draw, left, top = ImageDraw.Draw(whole), gap, picture.height + 4
    for kind, count in counts.items():
        _draw_box(draw, (left, top + 2, left + font.size, top + font.size), COLOURS[kind], 2, dashed=kind == "missed")
        text = f"{count} {kind}"
        draw.text((left + font.size + gap, top), text, INK, font)
        left += font.size + 3 * gap + font.getlength(text)
    return whole


def plot_precision_recall(curves: Mapping[str, tuple[Float[np.ndarray, " r"], Float[np.ndarray, " r"]]]) -> "Figure":
    """Returns a figure with a curve for each class: precision over recall as the threshold falls.

    Args:
        curves: Recall and precision of each class by its name. More than eight are drawn grey, without names.

    Raises:
        ValueError: There is no curve with a point.
    """
    shown = {name: curve for name, curve in curves.items() if len(curve[0])}
    if not shown:
        raise ValueError("There is no curve to draw: no class has both objects and finds.")
    figure = new_figure(5.2, 4.2)
    axes = plain_axes(figure.subplots())
    named = len(shown) <= MOST_CURVES
    for number, (name, (recall, precision)) in enumerate(shown.items()):
        xs, ys = [0.0, *recall.tolist()], [float(precision[0]), *precision.tolist()]
        colour = PALETTE[number % len(PALETTE)] if named else GREY
        axes.plot(xs, ys, color=colour, linewidth=1.6 if named else 0.7, label=_plain(name))
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.set_xlabel("recall: share of the objects that are found", fontsize=9, color=GREY)
    axes.set_ylabel("precision: share of the finds that are right", fontsize=9, color=GREY)
    axes.tick_params(labelsize=8, colors=GREY, length=3)
    if named:
        axes.legend(frameon=False, fontsize=8, loc="lower left")
    return figure


def _plain(name: str) -> str:
    """A name for a legend, which would leave out one that begins with an underscore and set what stands in dollars."""
    return name.replace("$", r"\$").lstrip("_") or "_ "
