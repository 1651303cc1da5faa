"""Where a transformer looks: attention maps and attention rollout.

Dims: b batch, heads, n tokens, h w patches.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from nexus.core.module import TokenLayout
from nexus.core.preprocessing import Preprocessing
from nexus.visualization.figures import GREY, INK, image_axes, new_figure
from nexus.visualization.grids import check_layout
from nexus.visualization.pictures import enlarge, to_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Attentions = Mapping[str, Any] | Sequence[Tensor]


def attention_rollout(attentions: Attentions) -> Float[Tensor, "b n n"]:
    """Returns how much of each input token arrives in each token of the last layer; rows sum to 1.

    Abnar & Zuidema, "Quantifying Attention Flow in Transformers", 2020, Sec. 3. https://arxiv.org/abs/2005.00928
    Heads are averaged, the residual connection counts as half, and the layers' matrices are multiplied.

    Args:
        attentions: A model's outputs with `output_attentions=True`, or their list of (b, heads, n, n).
    """
    layers = list_attentions(attentions)
    identity = torch.eye(layers[0].shape[-1], device=layers[0].device)
    rollout = identity.expand(len(layers[0]), -1, -1)
    for layer in layers:
        mixing = 0.5 * reduce(layer.detach().float(), "b heads n m -> b n m", "mean") + 0.5 * identity
        rollout = mixing @ rollout
    return rollout


def attention_map(
    attention: Float[Tensor, "b n n"],
    layout: TokenLayout | None = None,
    *,
    query: tuple[int, int] | None = None,
) -> Float[Tensor, "b h w"]:
    """Returns how much attention each patch gets from the class token.

    Args:
        attention: Rows are queries: one head, a mean of heads, or a rollout.
        layout: Where the patches are, `model.token_layout((height, width))`. None means a square image.
        query: (row, column) of the patch that looks, in place of the class token. Without it, in a model without a
            class token, the mean over all patches.
    """
    prefix, height, width = check_layout(layout, attention.shape[-1])
    if query is not None:
        row, column = query
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(f"query is {query}; the grid has {height} rows and {width} columns of patches.")
        looking = attention[:, prefix + row * width + column]
    else:
        looking = attention[:, 0] if prefix else attention.mean(dim=1)
    return rearrange(looking[:, prefix:], "b (h w) -> b h w", h=height)


def plot_attention_maps(
    attentions: Attentions,
    num_layers: int = 4,
    *,
    heads: Literal["mean", "all"] = "mean",
    image: Image.Image | np.ndarray | Tensor | None = None,
    index: int = 0,
    layout: TokenLayout | None = None,
    query: tuple[int, int] | None = None,
    preprocessing: Preprocessing | None = None,
) -> "Figure":
    """Returns a figure of the class token's attention to the patches, in layers spread evenly up to the last.

    Args:
        attentions: A model's outputs with `output_attentions=True`, or their list of (b, heads, n, n).
        num_layers: How many layers to show.
        heads: Their mean, or each: then a row is a layer and a column a head.
        image: The picture, shown first and under the maps.
        index: Which image of the batch.
        layout: Where the patches are, `model.token_layout((height, width))`. None means a square image.
        query: (row, column) of the patch that looks, in place of the class token.
        preprocessing: With which an image tensor was normalized.
    """
    layers = list_attentions(attentions)
    if num_layers < 1:
        raise ValueError(f"num_layers is {num_layers}; it must be at least 1.")
    if not 0 <= index < len(layers[0]):
        raise ValueError(f"index is {index}; the batch has {len(layers[0])} images, 0 to {len(layers[0]) - 1}.")
    if isinstance(image, Tensor) and image.ndim == 4:
        image = image[index]
    picture = None if image is None else enlarge(to_picture(image, preprocessing), 256)
    count = min(num_layers, len(layers))
    chosen = [len(layers) * (i + 1) // count - 1 for i in range(count)]
    maps = [attention_map(layers[i][index].detach().float(), layout, query=query).cpu().numpy() for i in chosen]
    if heads == "mean":
        panels = [[(f"layer {i + 1}", layer.mean(axis=0)) for i, layer in zip(chosen, maps)]]
    else:
        panels = [
            [(f"layer {i + 1}, head {j + 1}", head) for j, head in enumerate(layer)] for i, layer in zip(chosen, maps)
        ]
    looking = f"patch {query}" if query else "the class token" if _has_class_token(layers[0], layout) else "all patches"
    return _draw(panels, picture, f"attention of {looking}")


def list_attentions(attentions: Attentions) -> list[Tensor]:
    """Returns the attention of each layer, (b, heads, n, n).

    Raises:
        ValueError: The outputs hold no attentions, or the tensors are not of that shape.
    """
    if isinstance(attentions, Mapping):
        if "attentions" not in attentions:
            raise ValueError(
                f"The outputs hold {', '.join(map(str, attentions))} and no attentions."
                " Call the model with output_attentions=True; convolutional models have none."
            )
        attentions = attentions["attentions"]
    layers = [attentions] if isinstance(attentions, Tensor) else list(attentions)
    if not layers:
        raise ValueError("attentions is empty; there must be one tensor (b, heads, n, n) per layer.")
    for layer in layers:
        if layer.ndim != 4 or layer.shape[2] != layer.shape[3] or layer.shape != layers[0].shape:
            raise ValueError(
                f"attentions has a tensor of shape {tuple(layer.shape)}; all must be (b, heads, n, n) of one size."
            )
    return layers


def _has_class_token(layer: Tensor, layout: TokenLayout | None) -> bool:
    return check_layout(layout, layer.shape[-1]).prefix > 0


def _draw(panels: list[list[tuple[str, np.ndarray]]], picture: Image.Image | None, title: str) -> "Figure":
    rows, columns = len(panels), len(panels[0]) + (picture is not None)
    height, width = panels[0][0][1].shape
    side = (2.1 if rows == 1 else 1.45) / max(height, width)
    figure = new_figure(max(side * columns * width + 1.1, 3.4), (side * height + 0.22) * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    # A share of attention means little by itself: 1 is what the patch would get if all were seen alike.
    relative = [[(name, values * values.size / max(values.sum(), 1e-12)) for name, values in row] for row in panels]
    low, top = np.quantile(np.concatenate([values.ravel() for row in relative for _, values in row]), (0.002, 0.998))
    shown = None
    for number, (axes, row) in enumerate(zip(grid, relative)):
        if picture is not None and number == 0:
            image_axes(axes[0], "image").imshow(picture)
        elif picture is not None:
            axes[0].set_visible(False)
        for place, (name, values) in zip(axes[picture is not None :], row):
            shown = image_axes(place, name).imshow(values, cmap="magma", vmin=low, vmax=top, interpolation="nearest")
    assert shown is not None
    bar = figure.colorbar(shown, ax=grid, fraction=0.04 / rows, pad=0.02, aspect=18 * rows)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2)
    bar.set_label("1 = all patches alike", fontsize=8, color=GREY)
    figure.suptitle(title, fontsize=10, color=INK)
    return figure
