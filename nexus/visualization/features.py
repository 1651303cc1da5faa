"""What a layer holds: feature maps, and their principal components as colours.

Dims: b batch, c channels, n tokens, d width, h w places of the map.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from nexus.core.module import TokenLayout
from nexus.core.preprocessing import Preprocessing
from nexus.visualization.figures import INK, image_axes, new_figure
from nexus.visualization.grids import to_grid
from nexus.visualization.pictures import enlarge, to_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def visualize_feature_maps(
    features: Float[Tensor, "b c h w"] | Float[Tensor, "b n d"],
    num_maps: int = 14,
    *,
    image: Image.Image | np.ndarray | Tensor | None = None,
    index: int = 0,
    layout: TokenLayout | None = None,
    columns: int = 8,
    preprocessing: Preprocessing | None = None,
) -> "Figure":
    """Returns a figure of one layer's features: three principal components as red, green, blue, then single channels.

    The channels are those that vary most over the image; each is drawn from its own 1st to its 99th percentile.

    Args:
        features: One entry of `outputs["features"]`: a map, or tokens.
        num_maps: How many channels to show.
        image: The picture, shown first.
        index: Which image of the batch.
        layout: Where the patches are, `model.token_layout((height, width))`. None means a square image.
        columns: Panels in a row, at most.
        preprocessing: With which an image tensor was normalized.
    """
    maps = feature_grid(features, layout)
    if num_maps < 1:
        raise ValueError(f"num_maps is {num_maps}; it must be at least 1.")
    if not 0 <= index < len(maps):
        raise ValueError(f"index is {index}; the batch has {len(maps)} images, 0 to {len(maps) - 1}.")
    chosen = maps[index].detach().float().cpu()
    order = chosen.flatten(1).std(dim=1, correction=0).argsort(descending=True, stable=True)[:num_maps].tolist()
    panels: list[tuple[str, np.ndarray | Image.Image]] = [("components as RGB", principal_colours(chosen))]
    if image is not None:
        image = image[index] if isinstance(image, Tensor) and image.ndim == 4 else image
        panels.insert(0, ("image", enlarge(to_picture(image, preprocessing), 256)))
    panels += [(f"channel {channel}", chosen[channel].numpy()) for channel in order]
    count, height, width = chosen.shape
    title = f"{count} channels, {height} x {width}: the {len(order)} that vary most, each in its own range"
    return _draw(panels, columns, height / width, title)


def feature_grid(
    features: Float[Tensor, "b c h w"] | Float[Tensor, "b n d"], layout: TokenLayout | None = None
) -> Float[Tensor, "b c h w"]:
    """Returns maps as they are, and tokens as maps.

    Raises:
        ValueError: The features have another shape, or their tokens no square grid and no layout was given.
    """
    if isinstance(features, Tensor) and features.ndim == 4:
        return features
    if isinstance(features, Tensor) and features.ndim == 3:
        return to_grid(features, layout)
    kind = f"a tensor of shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
    raise ValueError(
        f"features is {kind}; it must be a map (b, c, h, w) or tokens (b, n, d): one entry of outputs['features']."
    )


def principal_colours(features: Float[Tensor, "c h w"]) -> np.ndarray:
    """Returns (h, w, 3), 0 to 1: the first three principal components of the channels, each over its own range.

    A component has no sign of its own; its largest weight is made positive, so that equal features have equal colours.
    """
    pixels = rearrange(features, "c h w -> (h w) c")
    pixels = pixels - pixels.mean(dim=0)
    _, _, weights = torch.linalg.svd(pixels, full_matrices=False)
    weights = weights[:3]
    signs = torch.sign(weights.gather(1, weights.abs().argmax(dim=1, keepdim=True)))
    projected = pixels @ (weights * signs).T
    low, high = projected.quantile(0.01, dim=0), projected.quantile(0.99, dim=0)
    colours = ((projected - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    colours = torch.nn.functional.pad(colours, (0, 3 - colours.shape[1]))
    return rearrange(colours, "(h w) rgb -> h w rgb", h=features.shape[1]).numpy()


def _draw(panels: list[tuple[str, np.ndarray | Image.Image]], columns: int, aspect: float, title: str) -> "Figure":
    rows = -(-len(panels) // columns)
    columns = -(-len(panels) // rows)  # rows of about equal length
    figure = new_figure(1.4 * columns, (1.4 * aspect + 0.24) * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, (name, values) in zip(grid, panels):
        image_axes(axes, name)
        if isinstance(values, Image.Image) or values.ndim == 3:
            axes.imshow(values, interpolation="nearest")
        else:
            low, high = np.quantile(values, (0.01, 0.99))
            axes.imshow(values, cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
    figure.suptitle(title, fontsize=10, color=INK)
    return figure
