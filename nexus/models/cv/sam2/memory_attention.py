"""SAM 2's memory attention: the tokens of a frame look at each other, and at what is remembered of other frames.

Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, Sec. 4 ("Memory attention") and Appendix D.1. Places
turn queries and keys as in Heo et al., "Rotary Position Embedding for Vision Transformer", 2024.

Dims: b batch, n tokens of a frame, m tokens of memory, h w tokens down and across, d width, e a memory's width.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers.rope import rotary_angles, rotate_pairs
from nexus.layers.sine_positions import sine_positions
from nexus.models.cv.sam2.config import SAM2Config

POSITION_SHARE = 0.1
"""Of the sine positions that are added to a frame's tokens at first."""


class TurnedAttention(nn.Module):
    """Attention of one head whose queries and keys are turned by their places.

    Args:
        embed_dim: Width of the queries.
        key_dim: Width of the keys and values that come in.
    """

    def __init__(self, embed_dim: int, key_dim: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.k_proj = nn.Linear(key_dim, embed_dim)
        self.v_proj = nn.Linear(key_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def forward(
        self,
        query: Float[Tensor, "b_or_1 n d"],
        key: Float[Tensor, "b m e"],
        value: Float[Tensor, "b m e"],
        angles: Float[Tensor, "n half"],
        placed: int,
    ) -> Float[Tensor, "b n d"]:
        """Returns what the queries read. The first `placed` keys are those of whole frames, and are turned."""
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        q = rotate_pairs(q, angles).expand(len(k), -1, -1)
        frames = rotate_pairs(k[:, :placed].unflatten(1, (-1, len(angles))), angles).flatten(1, 2)
        k = torch.cat([frames, k[:, placed:]], dim=1) if placed < k.shape[1] else frames
        return self.out_proj(F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0])


class MemoryBlock(nn.Module):
    """Self-attention, attention to the memory, and an MLP."""

    def __init__(self, config: SAM2Config) -> None:
        super().__init__()
        width = config.embed_dim
        self.self_attn = TurnedAttention(width, width)
        self.cross_attn = TurnedAttention(width, config.memory_dim)
        self.fc1 = nn.Linear(width, config.memory_mlp_dim)
        self.fc2 = nn.Linear(config.memory_mlp_dim, width)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(
        self,
        x: Float[Tensor, "b_or_1 n d"],
        memory: Float[Tensor, "b m e"],
        positions: Float[Tensor, "b m e"],
        angles: Float[Tensor, "n half"],
        placed: int,
    ) -> Float[Tensor, "b n d"]:
        normed = self.norm1(x)
        x = x + self.self_attn(normed, normed, normed, angles, normed.shape[1])
        x = x + self.cross_attn(self.norm2(x), memory + positions, memory, angles, placed)
        return x + self.fc2(F.relu(self.fc1(self.norm3(x)), inplace=True))


class MemoryAttention(nn.Module):
    """From a frame and its memory to a frame that knows what is sought."""

    def __init__(self, config: SAM2Config) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([MemoryBlock(config) for _ in range(config.memory_depth)])
        self.norm = nn.LayerNorm(config.embed_dim)

    def forward(
        self,
        tokens: Float[Tensor, "b_or_1 d h w"],
        memory: Float[Tensor, "b m e"],
        positions: Float[Tensor, "b m e"],
        placed: int,
    ) -> Float[Tensor, "b d h w"]:
        """Returns the frame's tokens.

        Args:
            tokens: Of the frame; of one, which is then looked at once, it may be asked what several objects are.
            memory: Maps of remembered frames, row by row, then pointers.
            positions: Of these, in place and in time.
            placed: How many of them are of maps.
        """
        grid = tokens.shape[2], tokens.shape[3]
        angles = frame_angles(grid, tokens.shape[1], tokens.device)
        x = rearrange(tokens + POSITION_SHARE * map_positions(tokens), "b d h w -> b (h w) d")
        for block in self.blocks:
            x = block(x, memory, positions, angles, placed)
        return rearrange(self.norm(x), "b (h w) d -> b d h w", h=grid[0])


def frame_angles(grid: tuple[int, int], width: int, device: torch.device) -> Float[Tensor, "n half"]:
    """Returns by how much each pair of a token's values turns: the first half with the column, then with the row."""
    angles = rotary_angles(grid, width, reference=grid, device=device)
    return angles.roll(width // 4, dims=-1)


def map_positions(like: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
    """Returns the sine positions of a map."""
    seen = torch.ones(1, *like.shape[2:], dtype=torch.bool, device=like.device)
    positions = sine_positions(seen, like.shape[1], like.dtype)
    return rearrange(positions, "1 (h w) d -> 1 d h w", h=like.shape[2]).expand(len(like), -1, -1, -1)
