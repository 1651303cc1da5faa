"""The ResNet of CLIP's image tower.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, Sec. 2.4.
https://arxiv.org/abs/2103.00020

Dims: b images, c channels, h w pixels, d width, e width of the space that images and texts share.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers import check_images, collect, resample_position_embedding
from nexus.models.cv.image_text import ImageTower


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; strides are average pooling ("ResNet-D", Sec. 2.4)."""

    def __init__(self, in_dim: int, hidden_dim: int, stride: int) -> None:
        super().__init__()
        out_dim = 4 * hidden_dim
        self.conv1 = nn.Conv2d(in_dim, hidden_dim, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden_dim)
        self.conv2 = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden_dim)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(hidden_dim, out_dim, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_dim)
        nn.init.zeros_(self.bn3.weight)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or in_dim != out_dim:
            pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
            self.downsample = nn.Sequential(pool, nn.Conv2d(in_dim, out_dim, 1, bias=False), nn.BatchNorm2d(out_dim))

    def forward(self, x: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        branch = self.bn1(self.conv1(x)).relu()
        branch = self.pool(self.bn2(self.conv2(branch)).relu())
        return (self.bn3(self.conv3(branch)) + self.downsample(x)).relu()


class AttentionPool(nn.Module):
    """One step of attention in which the mean of a map asks its pixels (Sec. 2.4)."""

    def __init__(self, grid: int, embed_dim: int, num_heads: int, out_dim: int) -> None:
        super().__init__()
        self.grid, self.num_heads = (grid, grid), num_heads
        std = embed_dim**-0.5
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + grid * grid, embed_dim) * std)
        self.q = nn.Linear(embed_dim, embed_dim)
        self.kv = nn.Linear(embed_dim, 2 * embed_dim)
        self.proj = nn.Linear(embed_dim, out_dim)
        for layer in (self.q, self.kv, self.proj):
            nn.init.normal_(layer.weight, std=std)

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b e"]:
        height, width = x.shape[-2:]
        pixels = rearrange(x, "b d h w -> b (h w) d")
        tokens = torch.cat([pixels.mean(dim=1, keepdim=True), pixels], dim=1)
        tokens = tokens + resample_position_embedding(self.pos_embed, self.grid, (height, width), num_prefix=1)
        q = rearrange(self.q(tokens[:, :1]), "b n (heads e) -> b heads n e", heads=self.num_heads)
        k, v = rearrange(self.kv(tokens), "b n (two heads e) -> two b heads n e", two=2, heads=self.num_heads)
        pooled = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(pooled, "b heads 1 e -> b (heads e)"))


class ResNetTower(ImageTower):
    """A ResNet with a stem of three convolutions, pooling instead of strides, and attention at its end (Sec. 2.4).

    Args:
        num_layers: Blocks of each of the four stages.
        image_size: Side in pixels that the last pooling's positions are made for.
        in_channels: Channels of the images.
        embed_dim: Channels of the last map, 32 times those of the stem.
        num_heads: Of the last pooling.
        out_dim: Width of the space in which images and texts meet.
    """

    def __init__(
        self,
        num_layers: Sequence[int],
        *,
        image_size: int,
        in_channels: int,
        embed_dim: int,
        num_heads: int,
        out_dim: int,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        width = embed_dim // 32
        stem = ((in_channels, width // 2, 2), (width // 2, width // 2, 1), (width // 2, width, 1))
        for index, (in_dim, hidden, stride) in enumerate(stem, start=1):
            self.add_module(f"conv{index}", nn.Conv2d(in_dim, hidden, 3, stride, padding=1, bias=False))
            self.add_module(f"bn{index}", nn.BatchNorm2d(hidden))
        in_dim = width
        for stage, count in enumerate(num_layers):
            hidden = width * 2**stage
            strides = [2 if stage else 1] + [1] * (count - 1)
            blocks = [Bottleneck(4 * hidden if index else in_dim, hidden, s) for index, s in enumerate(strides)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            in_dim = 4 * hidden
        self.attnpool = AttentionPool(image_size // 32, embed_dim, num_heads, out_dim)

    def forward(self, images: Float[Tensor, "b c h w"], checkpointing: bool, keep: bool) -> list[Tensor]:
        """Returns the map before the first block and after each; without `keep` after the last alone."""
        check_images(images, self.in_channels, multiple_of=32)
        x = images
        for index in (1, 2, 3):
            x = self.get_submodule(f"bn{index}")(self.get_submodule(f"conv{index}")(x)).relu()
        x = F.avg_pool2d(x, 2)
        blocks = [block for stage in (1, 2, 3, 4) for block in self.get_submodule(f"layer{stage}").children()]
        features = collect(blocks, x, checkpointing=checkpointing, keep=keep)
        return [x, *features] if keep else features

    def project(self, features: Float[Tensor, "b d h w"]) -> Float[Tensor, "b e"]:
        return self.attnpool(features)

    def attention_maps(self, features: Sequence[Tensor]) -> list[Float[Tensor, "b heads n n"]]:
        raise ValueError("A ResNet has no attention maps; read them from a CLIP with a Vision Transformer.")
