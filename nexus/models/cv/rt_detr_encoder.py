"""The hybrid encoder of RT-DETR (Sec. 4.2): attention within the coarsest map, convolutions between the maps.

Dims: b batch, d width, h w pixels of a map.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers.conv_norm import ConvNorm
from nexus.layers.post_norm import PostNormBlock
from nexus.models.cv.rt_detr_backbone import sincos_positions

NUM_REP_BLOCKS = 3


class RepBlock(nn.Module):
    """A 3x3 and a 1x1 convolution, added (RepVGG, https://arxiv.org/abs/2101.03697, while it trains)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, dim, 3)
        self.conv2 = ConvNorm(dim, dim, 1)

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        return F.silu(self.conv1(x) + self.conv2(x))


class Fusion(nn.Module):
    """Makes one map of two that were put together (Fig. 4, right).

    Args:
        dim: Channels of each of the two, and of the result.
        expansion: Width inside, as a share of `dim`.
    """

    def __init__(self, dim: int, expansion: float) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.conv1 = ConvNorm(2 * dim, hidden, 1, act=nn.SiLU())
        self.conv2 = ConvNorm(2 * dim, hidden, 1, act=nn.SiLU())
        self.bottlenecks = nn.Sequential(*[RepBlock(hidden) for _ in range(NUM_REP_BLOCKS)])
        self.conv3 = nn.Identity() if hidden == dim else ConvNorm(hidden, dim, 1, act=nn.SiLU())

    def forward(self, x: Float[Tensor, "b d2 h w"]) -> Float[Tensor, "b d h w"]:
        return self.conv3(self.bottlenecks(self.conv1(x)) + self.conv2(x))


class HybridEncoder(nn.Module):
    """Three maps of a backbone in, three maps of one width out.

    Args:
        in_dims: Channels of the backbone's maps, from fine to coarse.
        dim: Channels of the maps that it gives.
        num_heads: Of the attention.
        hidden_dim: Width inside the attention block's MLP.
        expansion: Width inside the fusions, as a share of `dim`.
        dropout: In the attention block.
    """

    def __init__(
        self, in_dims: Sequence[int], dim: int, *, num_heads: int, hidden_dim: int, expansion: float, dropout: float
    ) -> None:
        super().__init__()
        steps = range(len(in_dims) - 1)
        self.input_proj = nn.ModuleList([ConvNorm(in_dim, dim, 1) for in_dim in in_dims])
        self.aifi = PostNormBlock(dim, num_heads, hidden_dim, dropout=dropout, activation=nn.GELU)
        self.lateral_convs = nn.ModuleList([ConvNorm(dim, dim, 1, act=nn.SiLU()) for _ in steps])
        self.fpn_blocks = nn.ModuleList([Fusion(dim, expansion) for _ in steps])
        self.downsample_convs = nn.ModuleList([ConvNorm(dim, dim, 3, 2, act=nn.SiLU()) for _ in steps])
        self.pan_blocks = nn.ModuleList([Fusion(dim, expansion) for _ in steps])

    def forward(self, maps: Sequence[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b d _ _"]]:
        levels = [layer(x) for layer, x in zip(self.input_proj, maps)]
        levels[-1] = self._attend(levels[-1])
        last = len(levels) - 1
        for step, (lateral, fuse) in enumerate(zip(self.lateral_convs, self.fpn_blocks)):  # from coarse to fine
            here = last - step
            levels[here] = lateral(levels[here])
            above = F.interpolate(levels[here], size=levels[here - 1].shape[-2:], mode="nearest")
            levels[here - 1] = fuse(torch.cat([above, levels[here - 1]], dim=1))
        for here, (shrink, fuse) in enumerate(zip(self.downsample_convs, self.pan_blocks)):  # and back
            levels[here + 1] = fuse(torch.cat([shrink(levels[here]), levels[here + 1]], dim=1))
        return levels

    def _attend(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        height, width = x.shape[-2:]
        position = sincos_positions(height, width, x.shape[1], x)
        tokens = self.aifi(rearrange(x, "b d h w -> b (h w) d"), position)
        return rearrange(tokens, "b (h w) d -> b d h w", h=height)
