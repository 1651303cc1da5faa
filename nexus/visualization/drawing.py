"""Drawing on pictures, pixel by pixel: captions, heat maps, contact sheets.

Dims: h w pixels.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nexus.core.preprocessing import Preprocessing
from nexus.visualization.figures import INK
from nexus.visualization.pictures import enlarge, to_picture

WHITE = (255, 255, 255)


def overlay(
    image: Image.Image | np.ndarray | Tensor,
    heatmap: Tensor | np.ndarray,
    *,
    strength: float = 0.55,
    colormap: str = "jet",
    preprocessing: Preprocessing | None = None,
    side: int = 256,
) -> Image.Image:
    """Returns the image with a heat map laid over it: the hotter, the more it covers.

    Args:
        image: As for `to_picture`; a small one is enlarged towards `side` pixels.
        heatmap: (h, w) or (1, h, w), from 0 to 1, of any size: it is stretched over the whole image.
        strength: How much of the image the hottest spot covers, 0 to 1.
        colormap: A name that matplotlib knows.
        preprocessing: With which an image tensor was normalized.
        side: Wanted pixels of the longer side of a small image.
    """
    from matplotlib import colormaps

    heat = np.asarray(heatmap.detach().float().cpu() if isinstance(heatmap, Tensor) else heatmap, dtype=np.float32)
    heat = heat[0] if heat.ndim == 3 and len(heat) == 1 else heat
    if heat.ndim != 2:
        raise ValueError(f"A heat map of shape {heat.shape} is not one map; it must be (h, w).")
    picture = enlarge(to_picture(image, preprocessing), side)
    stretched = Image.fromarray(heat.clip(0, 1)).resize(picture.size, Image.Resampling.BILINEAR)
    heat = np.asarray(stretched).clip(0, 1)[..., None]
    colours = colormaps[colormap](heat[..., 0])[..., :3]
    cover = strength * np.sqrt(heat)
    mixed = (1 - cover) * np.asarray(picture) / 255 + cover * colours
    return Image.fromarray((mixed * 255).round().astype(np.uint8))


def caption(image: Image.Image, text: str, *, side: int = 128, colour: str = INK) -> Image.Image:
    """Returns the image, a small one enlarged towards `side` pixels, with lines of text on white under it."""
    picture = enlarge(image.convert("RGB"), side)
    font = text_font(max(12, min(picture.width // 12, 20)))
    lines = [_shorten(line, font, picture.width - 6) for line in text.split("\n")]
    step = _line_height(font)
    whole = Image.new("RGB", (picture.width, picture.height + step * len(lines) + 4), WHITE)
    whole.paste(picture, (0, 0))
    draw = ImageDraw.Draw(whole)
    for row, line in enumerate(lines):
        draw.text((picture.width / 2, picture.height + 2 + step * row), line, colour, font, anchor="ma")
    return whole


def contact_sheet(
    images: Sequence[Image.Image | np.ndarray | Tensor],
    captions: Sequence[str],
    *,
    columns: int = 8,
    tile: int = 112,
    preprocessing: Preprocessing | None = None,
) -> Image.Image:
    """Returns one picture of many: each image at `tile` pixels with its caption, line by line, under it.

    Args:
        images: As for `to_picture`.
        captions: One per image; "\\n" begins a new line. Lines that are too long are cut.
        columns: Tiles in a row, at most.
        tile: Pixels of the longer side of each image.
        preprocessing: With which image tensors were normalized.
    """
    if not images or len(images) != len(captions):
        raise ValueError(f"There are {len(images)} images and {len(captions)} captions; each image needs one.")
    pictures = [_fit(to_picture(image, preprocessing), tile) for image in images]
    highest = max(picture.height for picture in pictures)
    font, gap = text_font(max(10, min(tile // 10, 15))), max(6, min(tile // 12, 14))
    lines = max(text.count("\n") + 1 for text in captions)
    step = _line_height(font)
    columns = min(columns, len(images))
    width, height = tile + gap, highest + gap + step * lines + 2
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width + gap, rows * height + gap), WHITE)
    draw = ImageDraw.Draw(sheet)
    for place, (picture, text) in enumerate(zip(pictures, captions)):
        left, top = gap + place % columns * width, gap + place // columns * height
        sheet.paste(picture, (left + (tile - picture.width) // 2, top + (highest - picture.height) // 2))
        for row, line in enumerate(text.split("\n")):
            middle = (left + tile / 2, top + highest + 2 + step * row)
            draw.text(middle, _shorten(line, font, tile), INK, font, anchor="ma")
    return sheet


def _fit(picture: Image.Image, side: int) -> Image.Image:
    """Returns the picture scaled so that its longer side is `side`; small ones keep square pixels."""
    scale = side / max(picture.size)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


@cache
def text_font(size: int) -> ImageFont.FreeTypeFont:
    """Returns DejaVu Sans, which comes with matplotlib and knows more alphabets than Pillow's own font."""
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _line_height(font: ImageFont.FreeTypeFont) -> int:
    bottom = font.getbbox("Ågjp")[3]
    return round(bottom) + 2


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
