"""Attention that reads a few places of each level of a feature pyramid.

Zhu et al., "Deformable DETR", 2021, Sec. 4.1 and A.4. https://arxiv.org/abs/2010.04159

Dims: b images, n places of all levels, q queries, d width, l levels, s places a head reads, e one head's width.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nexus.ops.deformable import deformable_attention

OFFSET_SCALE = 0.5
Sampling = Literal["bilinear", "nearest"]


class DeformableAttention(nn.Module):
    """Each head of each query reads `num_points` places of each level, at learned offsets from the query's place.

    Args:
        embed_dim: Width of queries and memory; a multiple of `num_heads`.
        num_heads: Number of heads.
        num_points: Places that a head reads, per level.
        sampling: "nearest" reads whole pixels, as the "dsp" variants of RT-DETR v2 do.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, num_points: Sequence[int], sampling: Sampling = "bilinear"
    ) -> None:
        super().__init__()
        self.num_heads, self.num_points, self.sampling = num_heads, tuple(num_points), sampling
        places = num_heads * sum(num_points)
        self.sampling_offsets = nn.Linear(embed_dim, places * 2)
        self.attention_weights = nn.Linear(embed_dim, places)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self._init_weights()

    def forward(
        self,
        query: Float[Tensor, "b q d"],
        around: Float[Tensor, "b q *l k"],
        memory: Float[Tensor, "b n d"],
        sizes: Sequence[tuple[int, int]],
        seen: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Returns what each query reads.

        Args:
            query: Decide on offsets and weights.
            around: Where they look, from 0 to 1 across the maps: boxes `cx cy w h`, whose sides scale the offsets, or
                points `x y`, where an offset of 1 is one place of the level. One for all levels, or one for each.
            memory: Maps of all levels, flattened row by row, one after the other.
            sizes: (height, width) of each level.
            seen: Where the maps show an image; what is elsewhere reads 0. None is everywhere.
        """
        heads = self.num_heads
        values = rearrange(self.value_proj(memory), "b n (heads e) -> b n heads e", heads=heads)
        if seen is not None:
            values = values.masked_fill(~seen[..., None, None], 0)
        offsets = rearrange(self.sampling_offsets(query), "b q (heads s two) -> b q heads s two", heads=heads, two=2)
        weights = rearrange(self.attention_weights(query), "b q (heads s) -> b q heads s", heads=heads).softmax(-1)
        locations = self._locations(offsets, around, sizes)
        read = deformable_attention(values, sizes, locations, weights, self.num_points, method=self.sampling)
        return self.output_proj(read)

    def _locations(
        self, offsets: Float[Tensor, "b q heads s 2"], around: Tensor, sizes: Sequence[tuple[int, int]]
    ) -> Float[Tensor, "b q heads s 2"]:
        levels = [level for level, points in enumerate(self.num_points) for _ in range(points)]
        around = around[:, :, None, None] if around.ndim == 3 else around[:, :, levels][:, :, None]
        if around.shape[-1] == 2:
            sides = offsets.new_tensor([(sizes[level][1], sizes[level][0]) for level in levels])
            return around + offsets / sides
        scale = offsets.new_tensor([OFFSET_SCALE / self.num_points[level] for level in levels])
        return around[..., :2] + offsets * scale[:, None] * around[..., 2:]

    def _init_weights(self) -> None:
        """Heads look in directions around the place, and further with each point (Deformable DETR, A.4)."""
        angle = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        steps = torch.cat([torch.arange(1, points + 1) for points in self.num_points])
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((direction[:, None] * steps[:, None]).flatten())
        for weight in (self.sampling_offsets.weight, self.attention_weights.weight, self.attention_weights.bias):
            nn.init.zeros_(weight)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
