"""HiViT.

Zhang et al., "HiViT: A Simpler and More Efficient Design of Hierarchical Vision Transformer", ICLR 2023.
https://arxiv.org/abs/2205.14949

A hierarchy whose first two stages never look beyond their own patch of 16 pixels: there, units of 4 and 8 pixels are
changed one by one and merged. Only the last stage attends, over all patches; so masked patches can simply be left out.

Dims: b batch, c channels, h w pixels, n patches, u v rows and columns of units inside a patch, d width, k classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.core.formats import Format, State
from nexus.core.initialization import WeightInitMixin
from nexus.core.module import TokenLayout
from nexus.layers import (
    DropPath,
    EncoderBlock,
    Mlp,
    check_image_size,
    check_images,
    collect,
    drop_path_rates,
    image_sides,
    resample_position_embedding,
)
from nexus.layers.relative_position import relative_positions, resample_offsets
from nexus.models.cv.classifier import Classifier, make_head
from nexus.models.features import FeatureInfo

UNITS = 4  # along the side of a patch; two mergings leave one
_TABLE = "relative_position_bias_table"


@dataclass(frozen=True, kw_only=True)
class HiViTConfig(Config):
    """Defaults are HiViT-B.

    Attributes:
        image_size: Pixels of the sides that positions are made for: one number, or (height, width).
        patch_size: Side in pixels of what the last stage sees as one token; a multiple of 4.
        num_classes: Outputs of the head; 0 leaves the head out, and `logits` are the embeddings.
        embed_dim: Width of the last stage; the two before it have a half and a quarter.
        num_layers: Blocks of the three stages. In the first two, where there is no attention, a block is two MLPs.
        stem_mlp_ratio: Of the MLPs' width to the tokens' in the first two stages; `mlp_ratio` in the last.
        relative_bias: Attention has a learned bias for each offset between two patches; not so in pre-training, where
            patches are missing.
        drop_path_rate: Of the last block; rises linearly from 0 at the first.
    """

    image_size: int | tuple[int, int] = 224
    patch_size: int = 16
    in_channels: int = 3
    num_classes: int = 1000
    embed_dim: int = 512
    num_layers: tuple[int, int, int] = (2, 2, 20)
    num_heads: int = 8
    stem_mlp_ratio: float = 3.0
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    relative_bias: bool = True
    norm_eps: float = 1e-6
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch_size % UNITS:
            raise ValueError(f"patch_size {self.patch_size} is not a multiple of {UNITS}, the units along its side.")
        check_image_size(self.image_size, self.patch_size)
        if self.embed_dim % 4 or self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim {self.embed_dim} must be a multiple of 4 (two stages double it) and of num_heads "
                f"{self.num_heads}."
            )


class UnitEmbed(nn.Module):
    """Cuts an image into patches, and each patch into 4 x 4 units that become normalized vectors (Sec. 3.2)."""

    def __init__(self, config: HiViTConfig) -> None:
        super().__init__()
        self.patch_size, self.in_channels = config.patch_size, config.in_channels
        side, width = config.patch_size // UNITS, config.embed_dim // 4
        self.proj = nn.Conv2d(config.in_channels, width, side, stride=side)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)

    def grid(self, image_size: Sequence[int]) -> tuple[int, int]:
        """Returns how many patches an image of `(height, width)` pixels has in each direction."""
        height, width = image_size
        return height // self.patch_size, width // self.patch_size

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n u v d"]:
        check_images(images, self.in_channels, multiple_of=self.patch_size)
        return self.norm(rearrange(self.proj(images), "b d (h u) (w v) -> b (h w) u v d", u=UNITS, v=UNITS))


class UnitBlock(nn.Module):
    """An MLP on each normalized unit, beside a shortcut: a block of the first two stages has two (Sec. 3.2)."""

    def __init__(self, width: int, config: HiViTConfig, drop_path: float) -> None:
        super().__init__()
        self.norm2 = nn.LayerNorm(width, eps=config.norm_eps)
        self.mlp = Mlp(width, int(width * config.stem_mlp_ratio), dropout=config.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b n u v d"]) -> Float[Tensor, "b n u v d"]:
        return x + self.drop_path(self.mlp(self.norm2(x)))


class UnitMerge(nn.Module):
    """Joins four neighbouring units into one of twice the width, inside their patch (Sec. 3.2)."""

    def __init__(self, width: int, config: HiViTConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width, eps=config.norm_eps)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Float[Tensor, "b n u v d"]) -> Float[Tensor, "b n _ _ _"]:
        four = rearrange(x, "b n (u row) (v column) d -> b n u v (column row d)", row=2, column=2)
        return self.reduction(self.norm(four))


class RelativeAttention(nn.Module):
    """Self-attention over the patches, with a learned bias for each offset between two of them (Sec. 3.1), or none."""

    def __init__(self, grid: tuple[int, int], config: HiViTConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.num_heads, self.dropout, self.table_grid = config.num_heads, config.attention_dropout, grid
        if config.relative_bias:
            offsets = (2 * grid[0] - 1) * (2 * grid[1] - 1)
            self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, config.num_heads))
        else:
            self.relative_position_bias_table = None
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "b n d"], index: Int[Tensor, "n n"] | None, grid: tuple[int, int]) -> Tensor:
        q, k, v = self._project(x)
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, self._bias(index, grid), dropout)
        return self.proj_drop(self.proj(rearrange(x, "b heads n e -> b n (heads e)")))

    def maps(self, x: Float[Tensor, "b n d"], index: Int[Tensor, "n n"] | None, grid: tuple[int, int]) -> Tensor:
        """Returns the attention weights (b, heads, n, n) that `forward` uses; each row sums to 1."""
        q, k, _ = self._project(x)
        scores, bias = q * q.shape[-1] ** -0.5 @ k.mT, self._bias(index, grid)
        return (scores if bias is None else scores + bias).softmax(dim=-1)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = rearrange(self.qkv(x), "b n (three heads e) -> three b heads n e", three=3, heads=self.num_heads)
        return q, k, v

    def _bias(self, index: Tensor | None, grid: tuple[int, int]) -> Float[Tensor, "1 heads n n"] | None:
        if self.relative_position_bias_table is None or index is None:
            return None
        table = resample_offsets(self.relative_position_bias_table, self.table_grid, grid)
        return rearrange(table[index.flatten()], "(n m) heads -> 1 heads n m", n=len(index))


def hivit_block(grid: tuple[int, int], config: HiViTConfig, drop_path: float) -> EncoderBlock:
    """Attention, then an MLP, each on normalized tokens and beside a shortcut: a block of the last stage."""
    attn = RelativeAttention(grid, config)
    mlp = Mlp(config.embed_dim, int(config.embed_dim * config.mlp_ratio), dropout=config.dropout)
    return EncoderBlock(config.embed_dim, attn, mlp, norm_eps=config.norm_eps, drop_path=drop_path)


def hivit_blocks(config: HiViTConfig, grid: tuple[int, int]) -> list[nn.Module]:
    """Returns the three stages' blocks in one list, with the two mergings between them (Fig. 2)."""
    first, second, main = config.num_layers
    rates = drop_path_rates(config.drop_path_rate, 2 * first + 2 * second + main)
    quarter, half = config.embed_dim // 4, config.embed_dim // 2
    return [
        *(UnitBlock(quarter, config, rate) for rate in rates[: 2 * first]),
        UnitMerge(quarter, config),
        *(UnitBlock(half, config, rate) for rate in rates[2 * first : -main]),
        UnitMerge(half, config),
        *(hivit_block(grid, config, rate) for rate in rates[-main:]),
    ]


def unfold(units: Float[Tensor, "b n u v d"], grid: tuple[int, int]) -> Float[Tensor, "b d _ _"]:
    """Returns the units of all patches as one map."""
    return rearrange(units, "b (h w) u v d -> b d (h u) (w v)", h=grid[0])


class HiViT(WeightInitMixin, Classifier):
    """Image classifier. `config` is a `HiViTConfig` or a mapping of its fields.

    Images may have any size whose sides are multiples of `patch_size`: positions and biases are interpolated.
    """

    config: HiViTConfig
    index: Tensor

    def __init__(self, config: HiViTConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        config = self.config
        self.patch_embed = UnitEmbed(config)
        self.grid = self.patch_embed.grid(image_sides(config.image_size))
        self.absolute_pos_embed = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1], config.embed_dim))
        self.register_buffer("index", relative_positions(self.grid, self.grid), persistent=False)
        self.num_main = config.num_layers[-1]
        self.blocks = nn.ModuleList(hivit_blocks(config, self.grid))
        self.fc_norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.head = make_head(config.embed_dim, config.num_classes)
        self.init_weights_vision()
        nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)

    def forward(
        self, images: Float[Tensor, "b c h w"], *, output_attentions: bool = False, output_features: bool = True
    ) -> dict[str, Any]:
        """Classifies normalized images.

        Args:
            images: Sides must be multiples of `patch_size`.
            output_attentions: Also return the last stage's attention maps, which the fused kernel must compute again.
            output_features: Return `features`; without them inference needs less memory.

        Returns:
            `logits` (b, k), `embeddings` (b, d) that the head reads, the normalized mean of the patches; `features`
            after each entry of `blocks`, maps (b, d, h, w) in the first two stages (1/4, 1/8, and after the last
            merging 1/16 of the image) and tokens (b, n, d) in the last; on request `attentions` (b, heads, n, n).
        """
        grid = self.patch_embed.grid(images.shape[-2:])
        units, keep = self.patch_embed(images), output_features or output_attentions
        blocks = list(self.blocks)
        early = collect(blocks[: -self.num_main], units, checkpointing=self.checkpointing, keep=keep)
        tokens, index = self.place(early[-1], grid), self.offsets(grid)
        main = cast("list[EncoderBlock]", blocks[-self.num_main :])
        placed = [partial(block, index=index, grid=grid) for block in main]
        late = collect(placed, tokens, checkpointing=self.checkpointing, keep=keep)
        embeddings = self.pool_features(late[-1])
        outputs: dict[str, Any] = {"logits": self.head(embeddings), "embeddings": embeddings}
        if output_features:
            outputs["features"] = [*(unfold(x, grid) for x in early), *late]
        if output_attentions:
            inputs = [tokens, *late[:-1]]
            outputs["attentions"] = [block.attention_maps(x, index=index, grid=grid) for block, x in zip(main, inputs)]
        return outputs

    def place(self, units: Float[Tensor, "b n 1 1 d"], grid: tuple[int, int]) -> Float[Tensor, "b n d"]:
        """Returns the merged patches as tokens with their positions."""
        positions = resample_position_embedding(self.absolute_pos_embed, self.grid, grid, antialias=False)
        return units[:, :, 0, 0] + positions

    def offsets(self, grid: tuple[int, int]) -> Int[Tensor, "n n"]:
        """Returns the number of the offset between each two patches."""
        return self.index if grid == self.grid else relative_positions(grid, grid).to(self.index.device)

    @property
    def num_features(self) -> int:
        return self.config.embed_dim

    @property
    def feature_info(self) -> FeatureInfo:
        """The last map of each stage."""
        width, patch = self.config.embed_dim, self.config.patch_size
        rows = zip(self._stage_ends(), (width // 4, width // 2, width), (patch // 4, patch // 2, patch))
        return FeatureInfo((f"blocks.{end}", width, stride) for end, width, stride in rows)

    def _stage_ends(self) -> tuple[int, int, int]:
        first, second, _ = self.config.num_layers
        return 2 * first - 1, 2 * (first + second), len(self.blocks) - 1

    def forward_stages(self, images: Float[Tensor, "b c h w"], count: int | None = None) -> list[Tensor]:
        grid, num_early = self.patch_embed.grid(images.shape[-2:]), len(self.blocks) - self.num_main
        early_blocks, main = self.blocks[:count][:num_early], self.blocks[:count][num_early:]
        early = collect(early_blocks, self.patch_embed(images), checkpointing=self.checkpointing)
        maps = [unfold(x, grid) for x in early]
        if not len(main):
            return maps
        placed = [partial(block, index=self.offsets(grid), grid=grid) for block in main]
        return [*maps, *collect(placed, self.place(early[-1], grid), checkpointing=self.checkpointing)]

    def forward_features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        return self.forward_stages(images)[-1]

    def pool_features(self, features: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        return self.fc_norm(features.mean(dim=1))

    def forward_maps(self, images: Float[Tensor, "b c h w"], count: int | None = None) -> list[Tensor]:
        ends, height = self._stage_ends()[:count], self.patch_embed.grid(images.shape[-2:])[0]
        stages = self.forward_stages(images, ends[-1] + 1)
        maps = [stages[end] for end in ends]
        return [x if x.ndim == 4 else rearrange(x, "b (h w) d -> b d h w", h=height) for x in maps]

    def token_layout(self, image_size: Sequence[int]) -> TokenLayout:
        return TokenLayout(0, *self.patch_embed.grid(image_size))

    def fit_state(self, state: State) -> State:
        """Resamples positions and biases of a (square) image size to this model's.

        Weights of the pre-training bring neither biases nor a last norm for the mean of the patches: fresh ones are
        taken.
        """
        fitted = dict(state)
        if "fc_norm.weight" not in fitted and "absolute_pos_embed" in fitted:
            own = self.state_dict()
            fresh = (key for key in own if key.startswith("fc_norm.") or key.endswith(_TABLE))
            fitted |= {key: own[key] for key in fresh if key not in fitted}
        for key, value in state.items():
            if key == "absolute_pos_embed":
                side = math.isqrt(value.shape[1])
                if side * side == value.shape[1] != self.absolute_pos_embed.shape[1]:
                    fitted[key] = resample_position_embedding(value, (side, side), self.grid, antialias=False)
            elif key.endswith(_TABLE):
                side = (math.isqrt(len(value)) + 1) // 2
                if (2 * side - 1) ** 2 == len(value) != (2 * self.grid[0] - 1) * (2 * self.grid[1] - 1):
                    fitted[key] = resample_offsets(value, (side, side), self.grid)
        return fitted


HiViT.formats = (  # the authors' names are ours, without what follows from the sizes and what is of the pre-training
    Format(
        "authors",
        detect=r"relative_position_index$|^decoder_|^mask_token$",
        rename={r"relative_position_index$": None, r"^decoder_": None, r"^mask_token$": None, r"^norm\.": None},
    ),
)

VARIANTS = {
    "hivit_tiny": HiViTConfig(embed_dim=384, num_layers=(1, 1, 10), num_heads=6),
    "hivit_small": HiViTConfig(embed_dim=384, num_heads=6),
    "hivit_base": HiViTConfig(),
}
