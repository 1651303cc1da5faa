"""SAM 2's trunk: a transformer whose tokens become fewer and wider from stage to stage.

Ryali et al., "Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles", 2023, with windows and
positions as in Bolya et al., "Window Attention is Bugged", 2023. https://arxiv.org/abs/2306.00989,
https://arxiv.org/abs/2311.05613

Dims: b batch (of images, or of windows), c channels, h w tokens down and across, n tokens, d width, e one head's width.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers import DropPath, Mlp, check_images, drop_path_rates
from nexus.layers.windows import cut_windows, join_windows
from nexus.models.cv.sam2.config import STRIDE, SAM2Config


def halved(x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h_half w_half d"]:
    """Returns the largest value of each two by two tokens."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


class PoolingAttention(nn.Module):
    """Self-attention of a map's tokens; with `pool`, of which each two by two queries are one (Sec. 3)."""

    def __init__(self, embed_dim: int, out_dim: int, num_heads: int, *, pool: bool) -> None:
        super().__init__()
        self.num_heads, self.pool = num_heads, pool
        self.qkv = nn.Linear(embed_dim, 3 * out_dim)
        self.proj = nn.Linear(out_dim, out_dim)

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b new_h new_w k"]:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q = halved(q) if self.pool else q
        rows = q.shape[1]
        q, k, v = (rearrange(one, "b h w (heads e) -> b heads (h w) e", heads=self.num_heads) for one in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(x, "b heads (h w) e -> b h w (heads e)", h=rows))


class HieraBlock(nn.Module):
    """Attention, in windows or over the whole map, then an MLP.

    Args:
        embed_dim: Width of the tokens that come in.
        out_dim: Width of those that go out; where it is another, each two by two tokens become one.
        num_heads: Of the attention.
        window: Tokens along the side of a window of the map that comes in; None: the whole map is one.
        mlp_ratio: See `SAM2Config`.
        drop_path: Rate.
    """

    def __init__(
        self, embed_dim: int, out_dim: int, num_heads: int, window: int | None, mlp_ratio: float, drop_path: float
    ) -> None:
        super().__init__()
        self.window, self.widens = window, embed_dim != out_dim
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = PoolingAttention(embed_dim, out_dim, num_heads, pool=self.widens)
        self.norm2 = nn.LayerNorm(out_dim, eps=1e-6)
        self.mlp = Mlp(out_dim, int(out_dim * mlp_ratio))
        self.proj = nn.Linear(embed_dim, out_dim) if self.widens else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b new_h new_w k"]:
        normed = self.norm1(x)
        shortcut = halved(self.proj(normed)) if self.widens else x
        x = shortcut + self.drop_path(self._attend(normed, (shortcut.shape[1], shortcut.shape[2])))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Returns what the tokens read, as a map of `size`. Zeros that fill up windows are read like the rest."""
        if self.window is None:
            return self.attn(x)
        windows, counts = cut_windows(x, self.window)
        return join_windows(self.attn(windows), counts, size)


class Hiera(nn.Module):
    """From images to maps of tokens of 4, 8, 16 and 32 pixels."""

    def __init__(self, config: SAM2Config) -> None:
        super().__init__()
        width = config.trunk_embed_dim
        self.in_channels, self.depths, side = config.in_channels, config.trunk_depths, config.trunk_windows[0]
        self.patch_embed = nn.Conv2d(config.in_channels, width, 7, stride=4, padding=3)
        self.pos_embed = nn.Parameter(torch.zeros(1, width, *config.trunk_background))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, width, side, side))
        self.blocks = nn.ModuleList(hiera_blocks(config))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.pos_embed_window, std=0.02)

    def forward(self, images: Float[Tensor, "b c H W"]) -> list[Float[Tensor, "b d h w"]]:
        """Returns the end of each stage of normalized images, whose sides are multiples of 32.

        Raises:
            ValueError: The channels or the size do not fit.
        """
        check_images(images, self.in_channels, multiple_of=2 * STRIDE)
        x = self.patch_embed(images)
        x = (x + self.positions((x.shape[2], x.shape[3]))).permute(0, 2, 3, 1)
        ends, blocks = [], iter(self.blocks)
        for depth in self.depths:
            for _ in range(depth):
                x = next(blocks)(x)
            ends.append(x.permute(0, 3, 1, 2))
        return ends

    def positions(self, grid: tuple[int, int]) -> Float[Tensor, "1 d h w"]:
        """Returns the position embedding for a map of `grid` tokens: one stretched over it, and one for each window."""
        background = F.interpolate(self.pos_embed, size=grid, mode="bicubic")
        rows, columns = (-(-side // self.pos_embed_window.shape[-1]) for side in grid)
        return background + self.pos_embed_window.tile(1, 1, rows, columns)[..., : grid[0], : grid[1]]


def hiera_blocks(config: SAM2Config) -> list[HieraBlock]:
    """Returns the blocks of all stages. The first of a stage still has the windows of the stage before."""
    blocks: list[HieraBlock] = []
    rates = drop_path_rates(config.drop_path_rate, sum(config.trunk_depths))
    width = config.trunk_embed_dim
    for stage, depth in enumerate(config.trunk_depths):
        out_dim, heads = config.trunk_embed_dim << stage, config.trunk_num_heads << stage
        for place in range(depth):
            number = len(blocks)
            window = config.trunk_windows[stage if place else max(0, stage - 1)]
            seen = None if number in config.trunk_global_blocks else window
            blocks.append(HieraBlock(width, out_dim, heads, seen, config.mlp_ratio, rates[number]))
            width = out_dim
    return blocks
