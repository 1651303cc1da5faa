"""EVA-02.

Fang et al., "EVA-02: A Visual Representation for Neon Genesis", 2023. https://arxiv.org/abs/2303.11331

A Vision Transformer with what language models have found: gated perceptrons, normalized inside in the larger sizes,
and queries and keys that turn with the place of their patch. Pre-trained to predict the features of a large CLIP.

Dims: b batch, c channels, h w pixels, n tokens, d width, k classes, e one head's width, p pairs of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.core.formats import Format, State, join_keys
from nexus.core.initialization import WeightInitMixin
from nexus.core.module import TokenLayout
from nexus.layers import (
    EncoderBlock,
    PatchEmbed,
    SwiGLU,
    check_image_size,
    collect,
    drop_path_rates,
    fit_positions,
    image_sides,
    resample_position_embedding,
    rotary_angles,
    rotate_pairs,
)
from nexus.models.cv.classifier import Classifier, make_head
from nexus.models.features import FeatureInfo


@dataclass(frozen=True, kw_only=True)
class EVA02Config(Config):
    """Defaults are EVA-02-B at 448 pixels (Table 3).

    Attributes:
        image_size: Pixels of the sides that the position embedding is made for: one number, or (height, width).
        num_classes: Outputs of the head; 0 leaves the head out, and `logits` are the embeddings.
        mlp_ratio: Of the gated perceptron's width to the tokens', rounded down.
        sub_norm: A layer norm before the last projection of each perceptron (B and L).
        rope_grid: Rows and columns of patches in pre-training, onto which other grids are scaled.
        rope_theta: Of the slowest turning pairs.
        drop_path_rate: Of the last block; rises linearly from 0 at the first.
        interpolate_antialias: Low-pass filter when positions are resampled, as timm has it; the authors have none.
    """

    image_size: int | tuple[int, int] = 448
    patch_size: int = 14
    in_channels: int = 3
    num_classes: int = 1000
    embed_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_ratio: float = 8 / 3
    sub_norm: bool = True
    rope_grid: tuple[int, int] = (16, 16)
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path_rate: float = 0.0
    interpolate_antialias: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_size(self.image_size, self.patch_size)
        if self.embed_dim % (4 * self.num_heads):
            raise ValueError(
                f"embed_dim {self.embed_dim} is not a multiple of 4 x num_heads ({4 * self.num_heads}), "
                "which turning queries and keys in two dimensions needs."
            )


class RotaryAttention(nn.Module):
    """Self-attention whose queries and keys turn with their place; keys have no bias (Sec. 2.1)."""

    def __init__(self, config: EVA02Config) -> None:
        super().__init__()
        width = config.embed_dim
        self.num_heads = config.num_heads
        self.dropout = config.attention_dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "b n d"], angles: Float[Tensor, "m p"]) -> Float[Tensor, "b n d"]:
        q, k, v = self._project(x, angles)
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.proj_drop(self.proj(rearrange(x, "b heads n e -> b n (heads e)")))

    def maps(self, x: Float[Tensor, "b n d"], angles: Float[Tensor, "m p"]) -> Float[Tensor, "b heads n n"]:
        """Returns the attention weights that `forward` uses for `x`; each row sums to 1."""
        q, k, _ = self._project(x, angles)
        return (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1)

    def _project(self, x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries, keys and values of each head; the class token, which has no place, does not turn."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        joined = F.linear(x, self.qkv.weight, bias)
        q, k, v = rearrange(joined, "b n (three heads e) -> three b heads n e", three=3, heads=self.num_heads)
        q, k = (torch.cat([t[:, :, :1], rotate_pairs(t[:, :, 1:], angles)], dim=2) for t in (q, k))
        return q, k, v


def eva02_block(config: EVA02Config, drop_path: float) -> EncoderBlock:
    """Attention, then a gated perceptron, each on normalized tokens and beside a shortcut (Fig. 2)."""
    attn = RotaryAttention(config)
    mlp = SwiGLU(
        config.embed_dim,
        int(config.embed_dim * config.mlp_ratio),
        norm_eps=config.norm_eps if config.sub_norm else None,
        dropout=config.dropout,
    )
    return EncoderBlock(config.embed_dim, attn, mlp, norm_eps=config.norm_eps, drop_path=drop_path)


class EVA02(WeightInitMixin, Classifier):
    """Image classifier. `config` is an `EVA02Config` or a mapping of its fields.

    Images may have any size whose sides are multiples of `patch_size`: the position embedding is interpolated, and
    the places by which queries and keys turn are scaled.
    """

    config: EVA02Config

    def __init__(self, config: EVA02Config | Mapping[str, Any]) -> None:
        super().__init__(config)
        config = self.config
        width = config.embed_dim
        self.patch_embed = PatchEmbed(config.patch_size, config.in_channels, width)
        self.grid = self.patch_embed.grid(image_sides(config.image_size))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], width))
        rates = drop_path_rates(config.drop_path_rate, config.num_layers)
        self.blocks = nn.ModuleList([eva02_block(config, rate) for rate in rates])
        self.fc_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.head = make_head(width, config.num_classes)
        self._init_weights()

    def _init_weights(self) -> None:
        """As the authors' code: branches of later blocks start smaller."""
        self.init_weights_vision()
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        with torch.no_grad():
            for depth, block in enumerate(cast("list[EncoderBlock]", self.blocks), start=1):
                block.attn.proj.weight.div_(math.sqrt(2 * depth))
                block.mlp.w3.weight.div_(math.sqrt(2 * depth))

    def forward(
        self, images: Float[Tensor, "b c h w"], *, output_attentions: bool = False, output_features: bool = True
    ) -> dict[str, Any]:
        """Classifies normalized images.

        Args:
            images: Sides must be multiples of `patch_size`.
            output_attentions: Also return the attention maps, which the fused kernel must compute again.
            output_features: Return `features`; without them inference needs less memory.

        Returns:
            `logits` (b, k), `embeddings` (b, d) that the head reads, the normalized mean of the patches, `features` the
            tokens (b, n, d) after each block, and on request `attentions` (b, heads, n, n) of each block.
        """
        tokens = self.embed(images)
        angles = self.angles(images)
        keep = output_features or output_attentions
        blocks = cast("list[EncoderBlock]", self.blocks)
        placed = [partial(block, angles=angles) for block in blocks]
        features = collect(placed, tokens, checkpointing=self.checkpointing, keep=keep)
        embeddings = self.fc_norm(features[-1][:, 1:].mean(dim=1))
        outputs: dict[str, Any] = {"logits": self.head(embeddings), "embeddings": embeddings}
        if output_features:
            outputs["features"] = features
        if output_attentions:
            inputs = [tokens, *features[:-1]]
            outputs["attentions"] = [block.attention_maps(x, angles=angles) for block, x in zip(blocks, inputs)]
        return outputs

    def angles(self, images: Float[Tensor, "b c h w"]) -> Tensor:
        """Returns by how much queries and keys turn at each patch."""
        return rotary_angles(
            self.patch_embed.grid(images.shape[-2:]),
            self.config.embed_dim // self.config.num_heads,
            reference=self.config.rope_grid,
            theta=self.config.rope_theta,
            device=images.device,
        )

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Returns the class token and the patches with their learned positions."""
        patches = self.patch_embed(images)
        positions = self.resample(self.pos_embed, self.grid, self.patch_embed.grid(images.shape[-2:]))
        return torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1) + positions

    def resample(self, positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        """Returns a position embedding for another grid of patches."""
        return resample_position_embedding(
            positions, old, new, num_prefix=1, antialias=self.config.interpolate_antialias
        )

    @property
    def num_features(self) -> int:
        return self.config.embed_dim

    @property
    def feature_info(self) -> FeatureInfo:
        width, stride = self.config.embed_dim, self.config.patch_size
        return FeatureInfo((f"blocks.{index}", width, stride) for index in range(len(self.blocks)))

    def forward_stages(self, images: Float[Tensor, "b c h w"], count: int | None = None) -> list[Tensor]:
        placed = [partial(block, angles=self.angles(images)) for block in self.blocks[:count]]
        return collect(placed, self.embed(images), checkpointing=self.checkpointing)

    def forward_features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        return self.forward_stages(images)[-1]

    def pool_features(self, features: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        return self.fc_norm(features[:, 1:].mean(dim=1))

    def token_layout(self, image_size: Sequence[int]) -> TokenLayout:
        return TokenLayout(1, *self.patch_embed.grid(image_size))

    def fit_state(self, state: State) -> State:
        """Resamples the position embedding of a (square) image size to this model's."""
        return fit_positions(state, "pos_embed", self.grid, self.resample, num_prefix=1)


def _join_projections(state: State) -> State:
    return join_keys(join_keys(state, ("q_proj", "k_proj", "v_proj"), "qkv"), ("w1", "w2"), "w12")


EVA02.formats = (  # ours are the authors' names of Ti and S, without the tables of angles repeated in each block
    Format(
        "eva",
        detect=r"rope\.freqs|\.q_proj\.|\.mlp\.(w1|fc1|fc1_g)\.|^lm_head\.|^mask_token$",
        rename={
            r"(^|\.)rope\.": None,
            r"^(mask_token|lm_head\..*)$": None,  # of pre-training, whose last norm serves the head to be trained
            r"^norm\.": "fc_norm.",
            r"\.attn\.([qv])_proj\.bias$": r".attn.\1_bias",
            r"\.mlp\.fc1_g\.": ".mlp.w1.",
            r"\.mlp\.fc1_x\.": ".mlp.w2.",
            r"\.mlp\.fc1\.": ".mlp.w12.",
            r"\.mlp\.fc2\.": ".mlp.w3.",
            r"\.mlp\.ffn_ln\.": ".mlp.norm.",
        },
        convert=_join_projections,
    ),
)

_SIZES: dict[str, dict[str, Any]] = {  # Table 3
    "tiny": {"embed_dim": 192, "num_heads": 3, "sub_norm": False},
    "small": {"embed_dim": 384, "num_heads": 6, "sub_norm": False},
    "base": {},
    "large": {"embed_dim": 1024, "num_layers": 24, "num_heads": 16},
}
VARIANTS = {
    f"eva02_{size}_patch14_224": EVA02Config(image_size=224, num_classes=0, **changes)
    for size, changes in _SIZES.items()
} | {
    f"eva02_{size}_patch14_{image}": EVA02Config(image_size=image, **_SIZES[size])
    for size, image in (("tiny", 336), ("small", 336), ("base", 448), ("large", 448))
}
