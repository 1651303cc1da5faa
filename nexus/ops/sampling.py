"""Reading feature maps between their pixels: the sum that region pooling and deformable attention share."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def weighted_rows(
    table: Float[Tensor, "m c"], index: Int[Tensor, "n s"], weight: Float[Tensor, "n s"]
) -> Float[Tensor, "n c"]:
    """Returns, for each of n outputs, the sum of s rows of `table` with their weights.

    In eager mode this is one fused call that never holds the n * s gathered rows; in an exported program it is
    written with the plain operators that every runtime has.
    """
    if torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export():
        rows = table.index_select(0, index.flatten()).unflatten(0, index.shape)
        return (rows * weight[..., None]).sum(1)
    return F.embedding_bag(index, table, mode="sum", per_sample_weights=weight.to(table.dtype))


def bilinear_corners(
    position: Float[Tensor, "*n"], size: int | Tensor
) -> tuple[Int[Tensor, "*n 2"], Float[Tensor, "*n 2"]]:
    """Returns the two pixels around each position on one axis, and their weights; outside pixels weigh 0.

    Args:
        position: In pixels; 0 is the centre of the first pixel.
        size: Number of pixels of the axis.
    """
    low = position.detach().floor()
    fraction = position - low
    pixel = torch.stack([low, low + 1], dim=-1)
    weight = torch.stack([1 - fraction, fraction], dim=-1)
    last = torch.as_tensor(size, device=position.device, dtype=position.dtype)[..., None] - 1
    inside = (pixel >= 0) & (pixel <= last)
    return torch.minimum(pixel.clamp(min=0), last).long(), weight * inside
