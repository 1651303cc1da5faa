"""SAM 2's memory encoder: a frame and the mask found in it become a small map that is kept.

Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, Sec. 4 ("Memory encoder and memory bank").

Dims: b batch, h w tokens of 16 pixels down and across, H W pixels, d width, e a memory's width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers.channel_norm import ChannelNorm
from nexus.models.cv.sam2.config import SAM2Config


class MixingBlock(nn.Module):
    """A block of Liu et al., "A ConvNet for the 2020s", 2022: a wide convolution of each channel, then an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = ChannelNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        branch = self.norm(self.conv(x)).permute(0, 2, 3, 1)
        branch = self.scale * self.fc2(F.gelu(self.fc1(branch)))
        return x + branch.permute(0, 3, 1, 2)


def mask_downsampler(width: int) -> nn.Sequential:
    """Returns what makes a map of `width` channels of a mask of sixteen times its sides: four times halved."""
    layers: list[nn.Module] = []
    channels = 1
    for _ in range(4):
        layers += [nn.Conv2d(channels, 4 * channels, 3, stride=2, padding=1), ChannelNorm(4 * channels), nn.GELU()]
        channels *= 4
    return nn.Sequential(*layers, nn.Conv2d(channels, width, 1))


class MemoryEncoder(nn.Module):
    """From the embedding of a frame and a mask to a memory."""

    def __init__(self, config: SAM2Config) -> None:
        super().__init__()
        width = config.embed_dim
        self.mask_downsampler = mask_downsampler(width)
        self.image_proj = nn.Conv2d(width, width, 1)
        self.fuser = nn.Sequential(*[MixingBlock(width) for _ in range(config.fuser_depth)])
        self.out_proj = nn.Conv2d(width, config.memory_dim, 1)

    def forward(self, tokens: Float[Tensor, "b d h w"], mask: Float[Tensor, "b 1 H W"]) -> Float[Tensor, "b e h w"]:
        """Returns the memory of frames and what was found in them; `mask` is as `tracking.remember` makes it."""
        return self.out_proj(self.fuser(self.image_proj(tokens) + self.mask_downsampler(mask)))
