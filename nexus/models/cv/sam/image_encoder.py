"""SAM's image encoder: a Vision Transformer that attends in windows, with four blocks that see the whole image.

Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", 2022, Sec. 3 (the windows), and
Li et al., "MViTv2", 2022, Sec. 4.1 (the positions). https://arxiv.org/abs/2203.16527, https://arxiv.org/abs/2112.01526

Dims: b batch (of images, or of windows), c channels, h w tokens down and across, n tokens, d width, e one head's width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers import (
    EncoderBlock,
    Mlp,
    PatchEmbed,
    collect,
    drop_path_rates,
    resample_position_embedding,
)
from nexus.layers.channel_norm import ChannelNorm
from nexus.layers.windows import cut_windows, join_windows
from nexus.models.cv.sam.config import SAMConfig

MOST_BIASES = 1 << 24
"""Numbers of position biases that are held at once: for more, queries are answered a few rows after the others."""


class ImageEncoder(nn.Module):
    """From images to embeddings: a vector for each patch of 16 pixels."""

    def __init__(self, config: SAMConfig) -> None:
        super().__init__()
        width, global_blocks = config.encoder_embed_dim, config.global_blocks
        self.grid = config.grid
        self.patch_embed = PatchEmbed(config.patch_size, config.in_channels, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, *self.grid, width))
        rates = drop_path_rates(config.drop_path_rate, config.encoder_depth)
        self.blocks = nn.ModuleList(
            [
                encoder_block(config, window=number not in global_blocks, drop_path=rate)
                for number, rate in enumerate(rates)
            ]
        )
        self.neck = nn.Sequential(
            nn.Conv2d(width, config.embed_dim, 1, bias=False),
            ChannelNorm(config.embed_dim),
            nn.Conv2d(config.embed_dim, config.embed_dim, 3, padding=1, bias=False),
            ChannelNorm(config.embed_dim),
        )
        self.checkpointing = False
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d h w"]:
        """Returns the embedding of normalized images, whose sides are multiples of the patch.

        Raises:
            ValueError: The channels or the size do not fit.
        """
        rows, _ = grid = self.patch_embed.grid(images.shape[-2:])
        x = rearrange(self.patch_embed(images), "b (h w) d -> b h w d", h=rows) + self.positions(grid)
        x = collect(self.blocks, x, checkpointing=self.checkpointing, keep=False)[-1]
        return self.neck(rearrange(x, "b h w d -> b d h w"))

    def positions(self, grid: tuple[int, int]) -> Float[Tensor, "1 h w d"]:
        """Returns the position embedding for images of `grid` patches."""
        return resample_map(self.pos_embed, grid)


def resample_map(positions: Float[Tensor, "1 old_h old_w d"], grid: tuple[int, int]) -> Float[Tensor, "1 h w d"]:
    """Returns a position embedding for another grid of patches: bicubic."""
    old = positions.shape[1], positions.shape[2]
    flat = resample_position_embedding(rearrange(positions, "1 h w d -> 1 (h w) d"), old, grid)
    return rearrange(flat, "1 (h w) d -> 1 h w d", h=grid[0])


def encoder_block(config: SAMConfig, *, window: bool, drop_path: float) -> EncoderBlock:
    """Returns a block of the image encoder, which attends in windows or over the whole image."""
    width = config.encoder_embed_dim
    attn = PlacedAttention(width, config.encoder_num_heads, config.grid, config.window_size if window else None)
    return EncoderBlock(width, attn, Mlp(width, int(width * config.mlp_ratio)), drop_path=drop_path)


class PlacedAttention(nn.Module):
    """Self-attention of a map's tokens that knows how far two of them are apart, down and across (MViTv2, Eq. 3).

    Args:
        embed_dim: Width of the tokens.
        num_heads: Number of heads.
        grid: Rows and columns that the tables of distances are made for; for others they are interpolated.
        window: Tokens along the sides of the windows that are attended in, each by itself; None: the whole map is one.
    """

    def __init__(self, embed_dim: int, num_heads: int, grid: tuple[int, int], window: int | None) -> None:
        super().__init__()
        self.num_heads, self.window = num_heads, window
        grid = grid if window is None else (window, window)
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid[0] - 1, embed_dim // num_heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid[1] - 1, embed_dim // num_heads))

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        """Returns what each token reads. A map that is no whole number of windows is filled up with zeros, which are
        read like the rest (as the authors do)."""
        if self.window is None:
            return self._attend(x)
        windows, counts = cut_windows(x, self.window)
        return join_windows(self._attend(windows), counts, (x.shape[1], x.shape[2]))

    def _attend(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        rows = x.shape[1]
        q, k, v = self._project(x)
        down, across = self._distances(q)
        step = (
            rows if torch.compiler.is_exporting() else max(1, MOST_BIASES // max(1, down.numel() * x.shape[2] // rows))
        )
        found = [
            _attend(q[:, :, at : at + step], k, v, down[:, :, at : at + step], across[:, :, at : at + step])
            for at in range(0, rows, step)
        ]
        x = found[0] if len(found) == 1 else torch.cat(found, dim=2)
        return self.proj(rearrange(x, "b heads (h w) e -> b h w (heads e)", h=rows))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the queries as a map (b, heads, h, w, e), keys and values as sequences."""
        pattern = "b h w (three heads e) -> three b heads h w e"
        q, k, v = rearrange(self.qkv(x), pattern, three=3, heads=self.num_heads)
        return q, k.flatten(2, 3), v.flatten(2, 3)

    def _distances(self, q: Float[Tensor, "b heads h w e"]) -> tuple[Tensor, Tensor]:
        """Returns what a query says to each row (b, heads, h, w, h) and to each column (b, heads, h, w, w)."""
        down, across = distances(self.rel_pos_h, q.shape[2]), distances(self.rel_pos_w, q.shape[3])
        return torch.einsum("bnhwe,hke->bnhwk", q, down), torch.einsum("bnhwe,wke->bnhwk", q, across)


def _attend(q: Tensor, k: Tensor, v: Tensor, down: Tensor, across: Tensor) -> Float[Tensor, "b heads n e"]:
    bias = (down[..., :, None] + across[..., None, :]).flatten(4).flatten(2, 3)
    return F.scaled_dot_product_attention(q.flatten(2, 3), k, v, attn_mask=bias)


def distances(table: Float[Tensor, "old e"], side: int) -> Float[Tensor, "side side e"]:
    """Returns the row of a table for each pair of places on a side: entry (i, j) is that of the distance i - j."""
    table = resample_table(table, side)
    places = torch.arange(side, device=table.device)
    return table[places[:, None] - places + side - 1]


def resample_table(table: Float[Tensor, "old e"], side: int) -> Float[Tensor, "new e"]:
    """Returns a table of distances for another side: linear."""
    if len(table) == 2 * side - 1:
        return table
    return F.interpolate(table.T[None], size=2 * side - 1, mode="linear", align_corners=False)[0].T


def fit_encoder(state: dict[str, Tensor], grid: tuple[int, int], global_blocks: Sequence[int]) -> dict[str, Tensor]:
    """Returns weights of an image encoder (keys from `image_encoder.` on) with the positions of another image size."""
    fitted = dict(state)
    key = "image_encoder.pos_embed"
    if key in state and state[key].ndim == 4:
        fitted[key] = resample_map(state[key], grid)
    for number in global_blocks:
        for name, side in zip(("rel_pos_h", "rel_pos_w"), grid):
            key = f"image_encoder.blocks.{number}.attn.{name}"
            if key in state:
                fitted[key] = resample_table(state[key], side)
    return fitted
