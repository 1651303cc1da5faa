"""Feature Pyramid Network.

Lin et al., "Feature Pyramid Networks for Object Detection", 2017. https://arxiv.org/abs/1612.03144

Dims: b batch, d width of every level, h w pixels of a level.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def conv_norm(in_dim: int, out_dim: int, kernel: int, *, norm: bool, act: bool = False) -> nn.Sequential:
    """A convolution that keeps the size; with batch normalization it has no bias."""
    layers: list[nn.Module] = [nn.Conv2d(in_dim, out_dim, kernel, padding=kernel // 2, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(out_dim))
    if act:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class FeaturePyramid(nn.Module):
    """Gives maps of a backbone one width, and the fine ones the meaning of the coarse (Fig. 3).

    Args:
        in_dims: Channels of the backbone's maps, from fine to coarse.
        out_dim: Channels of every level.
        norm: Batch normalization after each convolution.
    """

    def __init__(self, in_dims: Sequence[int], out_dim: int, *, norm: bool = False) -> None:
        super().__init__()
        self.lateral = nn.ModuleList([conv_norm(dim, out_dim, 1, norm=norm) for dim in in_dims])
        self.output = nn.ModuleList([conv_norm(out_dim, out_dim, 3, norm=norm) for _ in in_dims])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b d _ _"]]:
        """Returns the levels from fine to coarse, and after them every second pixel of the coarsest (P6)."""
        lateral = [layer(x) for layer, x in zip(self.lateral, maps)]
        for level in range(len(lateral) - 2, -1, -1):
            above = F.interpolate(lateral[level + 1], size=lateral[level].shape[-2:], mode="nearest")
            lateral[level] = lateral[level] + above
        levels = [layer(x) for layer, x in zip(self.output, lateral)]
        return [*levels, levels[-1][..., ::2, ::2]]
