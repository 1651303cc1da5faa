"""A feature pyramid from the one map of a plain vision transformer.

Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", 2022, Fig. 2 (c).
https://arxiv.org/abs/2203.16527

Dims: b batch, d width of the transformer, o width of every level, h w pixels of its map.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class MapNorm(nn.LayerNorm):
    """Layer normalization over the channels of each pixel of a map."""

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SimplePyramid(nn.Module):
    """Levels of a quarter, half, one and two times the transformer's stride, all from its last map (Sec. 3).

    Args:
        dim: Width of the transformer.
        out_dim: Width of every level.
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        quarter = [
            nn.ConvTranspose2d(dim, dim // 2, 2, stride=2),
            MapNorm(dim // 2, eps=1e-6),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 2, dim // 4, 2, stride=2),
        ]
        scales: list[tuple[int, Sequence[nn.Module]]] = [
            (dim // 4, quarter),
            (dim // 2, [nn.ConvTranspose2d(dim, dim // 2, 2, stride=2)]),
            (dim, []),
            (dim, [nn.MaxPool2d(2)]),
        ]
        self.levels = nn.ModuleList(
            [
                nn.Sequential(
                    *layers,
                    nn.Conv2d(width, out_dim, 1, bias=False),
                    MapNorm(out_dim, eps=1e-6),
                    nn.Conv2d(out_dim, out_dim, 3, padding=1, bias=False),
                    MapNorm(out_dim, eps=1e-6),
                )
                for width, layers in scales
            ]
        )

    def forward(self, maps: Sequence[Float[Tensor, "b d h w"]]) -> list[Float[Tensor, "b o _ _"]]:
        """Returns the levels of the last of `maps`, from fine to coarse, and every second pixel of the coarsest."""
        levels = [level(maps[-1]) for level in self.levels]
        return [*levels, F.max_pool2d(levels[-1], 1, stride=2)]
