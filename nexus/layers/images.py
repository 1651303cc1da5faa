"""Sizes of images, and what a model says about images that it cannot take."""

import torch
from jaxtyping import Float
from torch import Tensor


def channels_last(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Returns the same images with the channels of a pixel side by side in memory, where convolutions are faster.

    Every map that is made of them keeps that order, and becomes a sequence of tokens without a copy. While a graph is
    exported they stay as they are: whoever takes the graph plans the layout.
    """
    if torch.compiler.is_exporting():
        return images
    return images.contiguous(memory_format=torch.channels_last)


def check_images(images: Tensor, in_channels: int, *, multiple_of: int = 1) -> None:
    """Raises unless `images` is a float batch (b, c, h, w) that fits the model.

    Args:
        images: What the caller gave to the model.
        in_channels: Channels that the model was built for.
        multiple_of: Both sides must be multiples of this many pixels.

    Raises:
        ValueError: The rank, type, channel count or size is wrong; the message says what would fit.
    """
    if not isinstance(images, Tensor):
        raise ValueError(
            f"images are a {type(images).__name__}; the model takes a tensor (b, c, h, w). nexus.Predictor takes"
            " files, arrays and PIL images."
        )
    if images.ndim != 4:
        hint = " Add the batch dimension: images[None]." if images.ndim == 3 else ""
        raise ValueError(f"images have shape {tuple(images.shape)}; the model takes (b, c, h, w).{hint}")
    if not images.is_floating_point():
        raise ValueError(
            f"images are {images.dtype}; the model takes normalized floats. "
            "nexus.Predictor applies the preprocessing of the model's card."
        )
    _, channels, height, width = images.shape
    if channels != in_channels and width == in_channels:
        raise ValueError(
            f"images have shape {tuple(images.shape)}, as if their channels stood last; the model takes (b, c, h, w):"
            " images.permute(0, 3, 1, 2)."
        )
    if channels != in_channels:
        raise ValueError(
            f"images have {channels} channels; this model was built with in_channels={in_channels}. "
            f"Build it with in_channels={channels}, or convert the images."
        )
    if height % multiple_of or width % multiple_of or not height or not width:
        nearest = [max(1, round(side / multiple_of)) * multiple_of for side in (height, width)]
        raise ValueError(
            f"images are {height}x{width} pixels; both sides must be multiples of {multiple_of}, "
            f"such as {nearest[0]}x{nearest[1]}."
        )


def image_sides(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns (height, width) for a configuration's `image_size`, which is that or one number for both."""
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def check_image_size(image_size: int | tuple[int, int], patch_size: int) -> None:
    """Raises unless both sides of a configuration's `image_size` are multiples of its `patch_size`.

    Raises:
        ValueError: One is not; the message says the nearest that is.
    """
    for side in image_sides(image_size):
        if side < patch_size or side % patch_size:
            near = max(1, round(side / patch_size)) * patch_size
            raise ValueError(
                f"image_size {side} is not a multiple of patch_size {patch_size}; the nearest one is {near}."
            )


def check_heads(embed_dim: int, num_heads: int) -> None:
    """Raises unless the width of a configuration's tokens can be cut into its heads."""
    if embed_dim % num_heads:
        raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}.")
