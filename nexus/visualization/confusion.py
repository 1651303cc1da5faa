"""The confusion matrix as a picture.

Dims: k classes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nexus.visualization.figures import GREY, INK, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NUMBERS = 25  # more classes than this: colours only
MAX_NAMES = 60  # more than this: every tenth, hundredth, ... class is named


def plot_confusion_matrix(confusion: np.ndarray, class_names: Sequence[str]) -> "Figure":
    """Returns the matrix as a figure: a cell's colour is its share of the true class, its number the images.

    Args:
        confusion: Counts (k, k), rows are the true classes.
        class_names: k names.
    """
    count = len(class_names)
    from matplotlib.colors import PowerNorm

    if confusion.shape != (count, count):
        raise ValueError(f"confusion has shape {confusion.shape} and there are {count} class names; it must be (k, k).")
    side = float(np.clip(2.4 + 0.36 * count, 3.6, 11))
    figure = new_figure(side + 0.8, side)
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    # Of many classes the few images off the diagonal matter most: their pale colours are spread out.
    norm = PowerNorm(0.4 if count > MAX_NUMBERS else 1, 0, 1)
    shown = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    if count <= MAX_NUMBERS:
        _write_numbers(axes, confusion, shares)
    _name_classes(axes, class_names)
    axes.set_xlabel("guess", color=INK)
    axes.set_ylabel("true class", color=INK)
    right, images = int(np.trace(confusion)), int(confusion.sum())
    axes.set_title(f"{right:,} of {images:,} right ({right / max(images, 1):.2%})", fontsize=11, color=INK)
    ticks = [0, 0.01, 0.05, 0.2, 0.5, 1] if count > MAX_NUMBERS else [0, 0.2, 0.4, 0.6, 0.8, 1]
    bar = figure.colorbar(shown, ax=axes, fraction=0.045, pad=0.02, format="{x:.0%}", ticks=ticks)
    bar.set_label("share of the true class", color=GREY, fontsize=9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2)
    return figure


def _write_numbers(axes: "Axes", confusion: np.ndarray, shares: np.ndarray) -> None:
    size = 9 if len(confusion) <= 12 else 7
    for row, column in np.argwhere(confusion > 0):
        colour = "white" if shares[row, column] > 0.55 else INK
        axes.text(column, row, f"{confusion[row, column]:,}", ha="center", va="center", fontsize=size, color=colour)


def _name_classes(axes: "Axes", class_names: Sequence[str]) -> None:
    count = len(class_names)
    step = 1 if count <= MAX_NAMES else 10 ** int(np.ceil(np.log10(count / MAX_NAMES)))
    places = np.arange(0, count, step)
    names = [_short(class_names[i]) for i in places]
    size = 9 if count <= 20 else 7
    steep = max(map(len, names)) > 3
    axes.set_yticks(places, names, fontsize=size, parse_math=False)
    axes.set_xticks(places, names, fontsize=size, parse_math=False)
    for label in axes.get_xticklabels():
        label.set(rotation=45 if steep else 0, ha="right" if steep else "center", rotation_mode="anchor")
    axes.tick_params(length=0 if step == 1 else 3)
    axes.spines[:].set_color("#cbd2d9")


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"
