"""The feature enhancer: image and text are fused, then each attends to itself (Sec. 3.1, Fig. 3, block 2).

Liu et al., "Grounding DINO", 2023. https://arxiv.org/abs/2303.05499

Dims: b images, m places of all levels, n tokens, d width, l levels, e one head's width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nexus.layers import DropPath
from nexus.layers.deformable_attention import DeformableAttention
from nexus.layers.mlp import Mlp
from nexus.layers.post_norm import PostNormBlock
from nexus.models.cv.grounding_dino.config import GroundingDINOConfig

FUSION_START = 1e-4
"""At first the fusion adds so little of what it found."""


class Surroundings(NamedTuple):
    """What stays the same from layer to layer.

    Attributes:
        position: Of the places in their maps, as waves.
        points: Of the places, x and y from 0 to 1 across each level of the padded batch.
        sizes: (height, width) of each level.
        seen: Where the levels show an image.
        words: Which tokens are no padding.
        together: Which tokens see each other.
        text_position: Of the tokens in their phrases, as waves.
    """

    position: Float[Tensor, "b m d"]
    points: Float[Tensor, "b m l 2"]
    sizes: Sequence[tuple[int, int]]
    seen: Bool[Tensor, "b m"]
    words: Bool[Tensor, "b n"]
    together: Bool[Tensor, "b n n"]
    text_position: Float[Tensor, "b n d"]


class Fusion(nn.Module):
    """Places look at tokens, and tokens at places, by one table of scores (Li et al., "GLIP", 2022, Eq. 4).

    Both are normalized first, and the shortcut is of the normalized ones.
    """

    def __init__(self, config: GroundingDINOConfig) -> None:
        super().__init__()
        width, inner = config.embed_dim, config.hidden_dim // 2
        self.num_heads = config.num_heads // 2
        self.image_norm, self.text_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.image_proj, self.text_proj = nn.Linear(width, inner), nn.Linear(width, inner)
        self.image_value, self.text_value = nn.Linear(width, inner), nn.Linear(width, inner)
        self.image_out, self.text_out = nn.Linear(inner, width), nn.Linear(inner, width)
        self.image_scale = nn.Parameter(torch.full((width,), FUSION_START))
        self.text_scale = nn.Parameter(torch.full((width,), FUSION_START))
        self.drop_path = DropPath(config.fusion_drop_path)

    def forward(
        self, image: Float[Tensor, "b m d"], text: Float[Tensor, "b n d"], around: Surroundings
    ) -> tuple[Float[Tensor, "b m d"], Float[Tensor, "b n d"]]:
        image, text = self.image_norm(image), self.text_norm(text)
        places, tokens = self._heads(self.image_proj(image)), self._heads(self.text_proj(text))
        of_text, of_image = self._heads(self.text_value(text)), self._heads(self.image_value(image))
        read = F.scaled_dot_product_attention(places, tokens, of_text, around.words[:, None, None])
        told = F.scaled_dot_product_attention(tokens, places, of_image, around.seen[:, None, None])
        image = image + self.drop_path(self.image_scale * self.image_out(_joined(read)))
        return image, text + self.drop_path(self.text_scale * self.text_out(_joined(told)))

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (heads e) -> b heads n e", heads=self.num_heads)


def _joined(x: Float[Tensor, "b heads n e"]) -> Float[Tensor, "b n _"]:
    return rearrange(x, "b heads n e -> b n (heads e)")


class ImageBlock(nn.Module):
    """Places read a few others around them on every level, then an MLP (Deformable DETR, Sec. 4.1)."""

    def __init__(self, config: GroundingDINOConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.self_attn = DeformableAttention(width, config.num_heads, (config.num_points,) * config.num_levels)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = Mlp(width, config.hidden_dim, activation=nn.ReLU, dropout=config.dropout)
        self.norm2 = nn.LayerNorm(width)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "b m d"], around: Surroundings) -> Float[Tensor, "b m d"]:
        read = self.self_attn(x + around.position, around.points, x, around.sizes, around.seen)
        x = self.norm1(x + self.drop(read))
        return self.norm2(x + self.mlp(x))


class EnhancerLayer(nn.Module):
    """Fusion, then self-attention of the text, then of the image."""

    def __init__(self, config: GroundingDINOConfig) -> None:
        super().__init__()
        self.fusion = Fusion(config)
        self.text_block = PostNormBlock(config.embed_dim, config.num_heads // 2, config.hidden_dim // 2)
        self.image_block = ImageBlock(config)

    def forward(
        self, image: Float[Tensor, "b m d"], text: Float[Tensor, "b n d"], around: Surroundings
    ) -> tuple[Float[Tensor, "b m d"], Float[Tensor, "b n d"]]:
        image, text = self.fusion(image, text, around)
        text = self.text_block(text, around.text_position, around.together[:, None])
        return self.image_block(image, around), text
