"""Drawing of detected or annotated objects: boxes with captions, masks, keypoints.

Dims: h w pixels, n objects, j keypoints.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw

from nexus.visualization.drawing import WHITE, text_font
from nexus.visualization.pictures import enlarge

PALETTE = ("#2563eb", "#ea7317", "#0f9d58", "#d6336c", "#7048e8", "#0c8599", "#a16207", "#c92a2a", "#5c940d", "#364fc7")
"""One colour for each class, in turn; all are dark enough for white letters."""

Place = tuple[float, float, float, float]


def draw_objects(
    image: Image.Image,
    boxes: Float[np.ndarray, "n 4"],
    captions: Sequence[str],
    labels: Sequence[int],
    *,
    masks: Sequence[Bool[np.ndarray, "h w"]] | None = None,
    keypoints: Float[np.ndarray, "n j 3"] | None = None,
    skeleton: Sequence[tuple[int, int]] = (),
    frames: bool = True,
    side: int = 512,
) -> Image.Image:
    """Returns the image, a small one enlarged towards `side` pixels, with objects drawn on it.

    Args:
        image: Any; it is not changed.
        boxes: xyxy in pixels of the image.
        captions: One for each; an empty one is left out.
        labels: Numbers of their classes, which choose the colours.
        masks: Of the image's size; they are tinted.
        keypoints: x, y, and whether it is there (above 0).
        skeleton: Pairs of keypoints that a line joins.
        frames: Draw the boxes; without, masks and captions alone.
        side: Wanted pixels of the longer side of a small image.
    """
    if not len(boxes) == len(captions) == len(labels):
        raise ValueError(
            f"There are {len(boxes)} boxes, {len(captions)} captions and {len(labels)} labels; each object needs one."
        )
    colours = [PALETTE[label % len(PALETTE)] for label in labels]
    picture = image.convert("RGB")
    for mask, colour in zip(masks or (), colours):
        picture = tinted(picture, mask, colour)
    picture = enlarge(picture, side)
    scale = picture.width / image.width
    draw = ImageDraw.Draw(picture)
    width = max(1, round(max(picture.size) / 300))
    # The best come first; they are drawn last, above the others.
    for place in reversed(range(len(boxes))):
        corners = (np.asarray(boxes[place], dtype=float) * scale).tolist()
        if frames and corners[2] >= corners[0] and corners[3] >= corners[1]:
            draw.rectangle(corners, outline=colours[place], width=width)
        if keypoints is not None:
            _draw_points(draw, keypoints[place] * [scale, scale, 1], skeleton, colours[place], width)
    draw_captions(draw, captions, np.asarray(boxes, dtype=float) * scale, colours, picture.size)
    return picture


def tinted(picture: Image.Image, mask: Bool[np.ndarray, "h w"], colour: str) -> Image.Image:
    """Returns the picture with the inside of a mask of its size in a colour that it shines through."""
    if mask.shape != (picture.height, picture.width):
        raise ValueError(f"A mask is {mask.shape}; the image is {(picture.height, picture.width)} (h, w).")
    cover = Image.fromarray(np.where(mask, 115, 0).astype(np.uint8))
    return Image.composite(Image.new("RGB", picture.size, colour), picture, cover)


def _draw_points(
    draw: ImageDraw.ImageDraw, points: np.ndarray, skeleton: Sequence[tuple[int, int]], colour: str, width: int
) -> None:
    for a, b in skeleton:
        if points[a, 2] > 0 and points[b, 2] > 0:
            draw.line([*points[a, :2].tolist(), *points[b, :2].tolist()], fill=colour, width=width)
    for x, y, seen in points.tolist():
        if seen > 0:
            draw.ellipse([x - 2 * width, y - 2 * width, x + 2 * width, y + 2 * width], fill=colour, outline=WHITE)


def draw_captions(
    draw: ImageDraw.ImageDraw, captions: Sequence[str], boxes: np.ndarray, colours: Sequence[str], size: tuple[int, int]
) -> None:
    """Writes white on the colour of each box; the best choose first where their captions stand."""
    font = text_font(max(11, round(max(size) / 45)))
    margin = max(3, round(font.size / 5))
    taken: list[Place] = []
    for text, box, colour in zip(captions, boxes.tolist(), colours):
        if not text:
            continue
        left, top, right, bottom = font.getbbox(text)
        place = _free_place((right - left + 2 * margin, bottom - top + 2 * margin), box, size, taken, boxes.tolist())
        taken.append(place)
        draw.rectangle(place, fill=colour)
        draw.text((place[0] + margin - left, place[1] + margin - top), text, WHITE, font)


def _free_place(
    wanted: tuple[float, float],
    box: list[float],
    size: tuple[int, int],
    taken: Sequence[Place],
    boxes: list[list[float]],
) -> Place:
    """Returns where a caption covers the least of other captions, then of the objects: outside of its box if it can."""
    width, height = wanted
    x1, y1, x2, y2 = box
    corners = [(x, y) for y in (y1 - height, y2) for x in (x1, x2 - width)]
    corners += [(x, y) for y in (y1, y2 - height) for x in (x2, x1 - width)]
    corners += [(x, y) for y in (y1, y2 - height) for x in (x1, x2 - width)]
    places = []
    for x, y in corners:
        left = min(max(0, x), max(0, size[0] - width))
        top = min(max(0, y), max(0, size[1] - height))
        places.append((left, top, left + width, top + height))

    def covered(place: Place) -> tuple[float, float]:
        return sum(_common(place, other) for other in taken), sum(_common(place, other) for other in boxes)

    return min(places, key=covered)


def _common(a: Sequence[float], b: Sequence[float]) -> float:
    """The area that two rectangles share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
