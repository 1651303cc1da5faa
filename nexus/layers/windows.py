"""A map cut into square windows, and put together again.

Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", 2022, Sec. 3.

Dims: b maps, m windows of a map, h w places down and across, d width.
"""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def cut_windows(x: Float[Tensor, "b h w d"], side: int) -> tuple[Float[Tensor, "bm side side d"], tuple[int, int]]:
    """Returns the windows of maps, map by map and row by row, and how many of them lie down and across.

    A map that is no whole number of windows is filled up with zeros below and right.
    """
    x = F.pad(x, (0, 0, 0, -x.shape[2] % side, 0, -x.shape[1] % side))
    down, across = x.shape[1] // side, x.shape[2] // side
    windows = rearrange(x, "b (down h) (across w) d -> (b down across) h w d", down=down, across=across)
    return windows, (down, across)


def join_windows(
    windows: Float[Tensor, "bm side side d"], counts: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "b h w d"]:
    """Returns the maps of `size` (rows, columns) that windows were cut from, without what they were filled up with."""
    down, across = counts
    x = rearrange(windows, "(b down across) h w d -> b (down h) (across w) d", down=down, across=across)
    return x[:, : size[0], : size[1]]
