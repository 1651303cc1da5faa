"""From the small mask of a box to a mask of its image."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def paste_masks(
    crops: Float[Tensor, "n s s"], boxes: Float[Tensor, "n 4"], image_size: tuple[int, int]
) -> Float[Tensor, "n h w"]:
    """Stretches each mask over its box, bilinearly, in an image of `image_size` (height, width); 0 outside.

    Masks get a border of one zero, and boxes grow alike and take whole corners, so that outlines fade out (as
    Mask R-CNN's authors do it). Every mask at once: resizing goes axis by axis, as two products of matrices.

    Args:
        crops: Values in the box, such as probabilities.
        boxes: Corners in pixels.
        image_size: Of the result.
    """
    side = crops.shape[-1]
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    half = half * ((side + 2) / side)
    low, high = (centre - half).trunc().long(), (centre + half).trunc().long()
    down = _stretch(low[:, 1], high[:, 1], image_size[0], side, crops)
    across = _stretch(low[:, 0], high[:, 0], image_size[1], side, crops)
    with torch.autocast(crops.device.type, enabled=False):  # in 16 bits an outline would fray
        return down @ crops @ across.mT


def _stretch(
    low: Int[Tensor, " n"], high: Int[Tensor, " n"], length: int, side: int, like: Tensor
) -> Float[Tensor, "n length s"]:
    """Returns how much of each of `side` values, padded by a zero at both ends, each pixel of an axis takes."""
    pixel = (torch.arange(length, device=like.device) - low[:, None]).to(like.dtype)
    size = (high - low + 1).clamp(min=1)[:, None]
    position = ((pixel + 0.5) * (side + 2) / size - 0.5).clamp(0, side + 1)
    value = torch.arange(1, side + 1, device=like.device)
    share = (1 - (position[..., None] - value).abs()).clamp(min=0)
    return share * ((pixel >= 0) & (pixel < size))[..., None]
