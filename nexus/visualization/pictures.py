"""From any image to one that can be shown.

Dims: c channels, h w pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from torch import Tensor

from nexus.core.preprocessing import Preprocessing
from nexus.visualization.figures import BLUE, INK, image_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def to_picture(image: Image.Image | np.ndarray | Tensor, preprocessing: Preprocessing | None = None) -> Image.Image:
    """Returns an image as RGB that people can look at.

    Args:
        image: PIL, an array (h, w) or (h, w, c), or a tensor (c, h, w) or (1, c, h, w). One channel is shown as grey,
            two as their mean, more than three by the first three.
        preprocessing: With which the tensor was normalized; it is undone. Without it, floats are taken as 0 to 1,
            and stretched from their lowest to their highest value if they leave that range.
    """
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    pixels = _channels_last(image).astype(np.float32) / (255 if image.dtype == np.uint8 else 1)
    if isinstance(image, Tensor) and not image.is_floating_point():
        pixels /= 255
    if preprocessing is not None:
        pixels = pixels * np.array(preprocessing.std) + np.array(preprocessing.mean)
    elif pixels.min() < -1e-3 or pixels.max() > 1 + 1e-3:
        pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))


def _channels_last(image: np.ndarray | Tensor) -> np.ndarray:
    if isinstance(image, Tensor):
        image = image.detach().cpu().float()
        image = image[0] if image.ndim == 4 and len(image) == 1 else image
        if image.ndim != 3:
            raise ValueError(f"A tensor of shape {tuple(image.shape)} is not one image; it must be (c, h, w).")
        return image.permute(1, 2, 0).numpy()
    if image.ndim not in (2, 3):
        raise ValueError(f"An array of shape {image.shape} is not one image; it must be (h, w) or (h, w, c).")
    return image if image.ndim == 3 else image[..., None]


def numbered_name(number: int, path: str) -> str:
    """Returns a name for a picture of an image: its number in a list, and its own name without odd letters."""
    stem = "".join(letter if letter.isalnum() else "-" for letter in Path(path).stem)
    return f"{number:04d}-{stem}.png"


def enlarge(image: Image.Image, side: int) -> Image.Image:
    """Returns a small image enlarged by a whole factor, pixels kept square, until its longer side is near `side`."""
    factor = max(side // max(image.size), 1)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def plot_guesses(image: Image.Image, guesses: Sequence[tuple[str, float]], *, title: str = "") -> "Figure":
    """Returns a figure: the image, and a bar for each guess, a class and its probability."""
    figure = new_figure(7.2, max(2.4, 0.42 * len(guesses) + 0.8))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    image_axes(left).imshow(enlarge(image, 512))
    names, scores = zip(*guesses)
    places = np.arange(len(guesses))[::-1]
    right.barh(places, scores, color=[BLUE] + ["#a9c1f5"] * (len(guesses) - 1), height=0.62)
    right.set_yticks(places, names, parse_math=False, color=INK)
    right.set_xlim(0, 1.14)
    right.set_xticks([])
    right.tick_params(length=0)
    right.spines[["top", "right", "bottom"]].set_visible(False)
    right.spines["left"].set_color("#cbd2d9")
    for place, score in zip(places, scores):
        right.text(score + 0.015, place, f"{score:.1%}", va="center", fontsize=9, color=INK)
    if title:
        shown = title if len(title) <= 80 else "…" + title[-79:]
        figure.suptitle(shown, fontsize=9, color=INK, parse_math=False)
    return figure
