"""Vision Transformer.

Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", 2021.
https://arxiv.org/abs/2010.11929
Sizes Ti and S, and the weights called augreg: Steiner et al., "How to train your ViT?", 2022.
https://arxiv.org/abs/2106.10270

Patches and a class token become a sequence; each block lets the tokens look at each other, then changes each alone.

Dims: b batch, c channels, h w pixels, n tokens, d width, k classes, e one head's width.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.core.foreign import ForeignSettings
from nexus.core.formats import Format, State, join_keys
from nexus.core.initialization import WeightInitMixin, init_vision_layer
from nexus.core.module import TokenLayout
from nexus.layers import (
    EncoderBlock,
    PatchEmbed,
    check_heads,
    check_image_size,
    collect,
    drop_path_rates,
    encoder_block,
    fit_positions,
    image_sides,
    resample_position_embedding,
)
from nexus.models.cv.classifier import Classifier, make_head
from nexus.models.features import FeatureInfo


@dataclass(frozen=True, kw_only=True)
class ViTConfig(Config):
    """Defaults are ViT-B/16 (Table 1).

    Attributes:
        image_size: Pixels of the sides that the position embedding is made for: one number, or (height, width).
        num_classes: Outputs of the head; 0 leaves the head out, and `logits` are the embeddings.
        pool: What the head reads: the normalized class token, or, as after MAE, the normalized mean of the patches.
        dropout: In the embedding, after attention, and in the MLP.
        attention_dropout: On attention weights.
        drop_path_rate: Of the last block; rises linearly from 0 at the first.
        weight_std: Of fresh weights. 0.02 is for widths of hundreds; a narrow model learns sooner with about
            `embed_dim ** -0.5`.
        position_std: Of a fresh position embedding, likewise; beside patches of few pixels it may be 0.5.
    """

    image_size: int | tuple[int, int] = 224
    patch_size: int = 16
    in_channels: int = 3
    num_classes: int = 1000
    embed_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    pool: Literal["token", "mean"] = "token"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path_rate: float = 0.0
    weight_std: float = 0.02
    position_std: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_size(self.image_size, self.patch_size)
        check_heads(self.embed_dim, self.num_heads)


def vit_block(config: ViTConfig, drop_path: float) -> EncoderBlock:
    """Attention, then an MLP, each on normalized tokens and beside a shortcut (Eq. 2 and 3)."""
    return encoder_block(
        config.embed_dim,
        config.num_heads,
        int(config.embed_dim * config.mlp_ratio),
        norm_eps=config.norm_eps,
        qkv_bias=config.qkv_bias,
        attention_dropout=config.attention_dropout,
        dropout=config.dropout,
        drop_path=drop_path,
    )


class VisionTransformer(WeightInitMixin, Classifier):
    """Image classifier. `config` is a `ViTConfig` or a mapping of its fields.

    Images may have any size whose sides are multiples of `patch_size`: the position embedding is interpolated.
    """

    config: ViTConfig

    def __init__(self, config: ViTConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        config = self.config
        self.patch_embed = PatchEmbed(config.patch_size, config.in_channels, config.embed_dim)
        self.grid = self.patch_embed.grid(image_sides(config.image_size))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], config.embed_dim))
        self.pos_drop = nn.Dropout(config.dropout)
        rates = drop_path_rates(config.drop_path_rate, config.num_layers)
        self.blocks = nn.ModuleList([vit_block(config, rate) for rate in rates])
        last_norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.norm, self.fc_norm = (last_norm, nn.Identity()) if config.pool == "token" else (nn.Identity(), last_norm)
        self.head = make_head(config.embed_dim, config.num_classes)
        self.init_weights_vision(std=config.weight_std)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=config.position_std)

    def forward(
        self, images: Float[Tensor, "b c h w"], *, output_attentions: bool = False, output_features: bool = True
    ) -> dict[str, Any]:
        """Classifies normalized images.

        Args:
            images: Sides must be multiples of `patch_size`.
            output_attentions: Also return the attention maps, which the fused kernel must compute again.
            output_features: Return `features`; without them inference needs less memory.

        Returns:
            `logits` (b, k), `embeddings` (b, d) that the head reads, `features` the tokens (b, n, d) after each
            block, and on request `attentions` (b, heads, n, n) of each block. `token_layout` says which token is where.
        """
        tokens = self.embed(images)
        keep = output_features or output_attentions
        features = collect(self.blocks, tokens, checkpointing=self.checkpointing, keep=keep)
        embeddings = self.pool(features[-1])
        outputs: dict[str, Any] = {"logits": self.head(embeddings), "embeddings": embeddings}
        if output_features:
            outputs["features"] = features
        if output_attentions:
            blocks, inputs = cast("list[EncoderBlock]", self.blocks), [tokens, *features[:-1]]
            outputs["attentions"] = [block.attention_maps(x) for block, x in zip(blocks, inputs)]
        return outputs

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        """Returns what the head reads: one normalized vector for the image."""
        if self.config.pool == "token":
            return self.norm(tokens[:, 0])
        return self.fc_norm(tokens[:, 1:].mean(dim=1))

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Returns the class token and the patches with their positions (Eq. 1)."""
        patches = self.patch_embed(images)
        positions = self.resample(self.pos_embed, self.grid, self.patch_embed.grid(images.shape[-2:]))
        tokens = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)
        return self.pos_drop(tokens + positions)

    @property
    def num_features(self) -> int:
        return self.config.embed_dim

    @property
    def feature_info(self) -> FeatureInfo:
        width, stride = self.config.embed_dim, self.config.patch_size
        return FeatureInfo((f"blocks.{index}", width, stride) for index in range(len(self.blocks)))

    def forward_stages(self, images: Float[Tensor, "b c h w"], count: int | None = None) -> list[Tensor]:
        return collect(self.blocks[:count], self.embed(images), checkpointing=self.checkpointing)

    def forward_features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        return self.norm(self.forward_stages(images)[-1])

    def pool_features(self, features: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        return features[:, 0] if self.config.pool == "token" else self.fc_norm(features[:, 1:].mean(dim=1))

    def init_head(self, head: nn.Module) -> None:
        init_vision_layer(head, std=self.config.weight_std)

    def token_layout(self, image_size: Sequence[int]) -> TokenLayout:
        return TokenLayout(1, *self.patch_embed.grid(image_size))

    def fit_state(self, state: State) -> State:
        """Resamples the position embedding of a (square) image size to this model's.

        A model that pools the mean gets a fresh last norm from weights that have one for tokens, as MAE's authors do.
        """
        if self.config.pool == "mean" and "norm.weight" in state and "fc_norm.weight" not in state:
            own = {f"fc_norm.{name}": value.detach() for name, value in self.fc_norm.named_parameters()}
            state = {key: value for key, value in state.items() if not key.startswith("norm.")} | own
        return fit_positions(state, "pos_embed", self.grid, self.resample, num_prefix=1)

    def resample(self, positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        """Returns a position embedding for another grid of patches."""
        return resample_position_embedding(positions, old, new, num_prefix=1)

    @classmethod
    def config_from_hub(cls, mapping: Mapping[str, Any]) -> ViTConfig:
        settings = ForeignSettings(mapping, builder="ViT")
        settings.expect(hidden_act="gelu")
        width = settings.integer("hidden_size", 768, 1)
        config = ViTConfig(
            image_size=settings.sides("image_size", 224),
            patch_size=settings.integer("patch_size", 16),
            in_channels=settings.integer("num_channels", 3),
            num_classes=settings.num_head_classes(),
            embed_dim=width,
            num_layers=settings.integer("num_hidden_layers", 12),
            num_heads=settings.integer("num_attention_heads", 12),
            mlp_ratio=settings.integer("intermediate_size", 3072) / width,
            qkv_bias=settings.boolean("qkv_bias", True),
            norm_eps=settings.number("layer_norm_eps", 1e-12),
            dropout=settings.number("hidden_dropout_prob", 0.0),
            attention_dropout=settings.number("attention_probs_dropout_prob", 0.0),
        )
        settings.finish()
        return config


def _heads_to_rows(state: State) -> State:
    """Turns flax arrays (kernels with the input first, heads on an axis of their own) into torch's layout."""
    converted: State = {}
    for key, value in state.items():
        if key.startswith("pre_logits") or (key.startswith("head.") and "pre_logits.kernel" in state):
            continue  # the 21k originals put tanh(pre_logits) before their head: neither exists here
        if key.endswith("kernel"):
            key = key.removesuffix("kernel") + "weight"
            if value.ndim == 4:
                value = rearrange(value, "h w c d -> d c h w")
            elif ".proj." in key:
                value = rearrange(value, "heads e d -> d (heads e)")
            else:
                value = value.flatten(1).T  # (d, k), or (d, heads, e) for queries, keys and values
        elif re.search(r"attn\.[qkv]\.bias", key):
            value = value.flatten()
        converted[key] = value.contiguous()
    return join_keys(converted, ("q", "k", "v"), "qkv")


def _join_qkv(state: State) -> State:
    return join_keys(state, ("q", "k", "v"), "qkv")


VisionTransformer.hub_types = ("vit",)
VisionTransformer.formats = (
    Format("mae", detect=r"^decoder_embed\.", rename={r"^(decoder_|mask_token)": None}),  # its encoder is this model
    Format(
        "jax",
        detect=r"^Transformer/encoderblock_0/",
        rename={
            r"^Transformer/posembed_input/pos_embedding$": "pos_embed",
            r"^Transformer/encoder_norm/": "norm/",
            r"^Transformer/encoderblock_(\d+)/": r"blocks/\1/",
            r"MultiHeadDotProductAttention_\d+/": "attn/",
            r"attn/(q|k|v)(uery|ey|alue)/": r"attn/\1/",
            r"attn/out/": "attn/proj/",
            r"MlpBlock_\d+/Dense_0/": "mlp/fc1/",
            r"MlpBlock_\d+/Dense_1/": "mlp/fc2/",
            r"LayerNorm_0/": "norm1/",
            r"LayerNorm_[12]/": "norm2/",
            r"^embedding/": "patch_embed/proj/",
            r"^cls$": "cls_token",
            r"/scale$": "/weight",
            r"/": ".",
        },
        convert=_heads_to_rows,
    ),
    Format(
        "torchvision",
        detect=r"^encoder\.layers\.encoder_layer_0\.",
        rename={
            r"^class_token$": "cls_token",
            r"^conv_proj\.": "patch_embed.proj.",
            r"^encoder\.pos_embedding$": "pos_embed",
            r"^encoder\.layers\.encoder_layer_": "blocks.",
            r"\.ln_(\d)\.": r".norm\1.",
            r"\.self_attention\.in_proj_": ".attn.qkv.",
            r"\.self_attention\.out_proj\.": ".attn.proj.",
            r"\.mlp\.(0|linear_1)\.": ".mlp.fc1.",
            r"\.mlp\.(3|linear_2)\.": ".mlp.fc2.",
            r"^encoder\.ln\.": "norm.",
            r"^heads\.head\.": "head.",
        },
    ),
    Format(
        "hub",
        detect=r"^(vit\.)?embeddings\.patch_embeddings\.",
        rename={
            r"^vit\.": "",
            r"^pooler\.": None,
            r"^embeddings\.cls_token$": "cls_token",
            r"^embeddings\.position_embeddings$": "pos_embed",
            r"^embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
            r"^(encoder\.layer|layers)\.": "blocks.",
            r"\.attention\.attention\.(q|k|v)(uery|ey|alue)\.": r".attn.\1.",
            r"\.attention\.(q|k|v)_proj\.": r".attn.\1.",
            r"\.attention\.(output\.dense|o_proj)\.": ".attn.proj.",
            r"\.intermediate\.dense\.": ".mlp.fc1.",
            r"\.output\.dense\.": ".mlp.fc2.",
            r"\.layernorm_before\.": ".norm1.",
            r"\.layernorm_after\.": ".norm2.",
            r"^layernorm\.": "norm.",
            r"^classifier\.": "head.",
        },
        convert=_join_qkv,
    ),
)  # timm's names are ours

_SIZES: dict[str, dict[str, Any]] = {  # Table 1; Ti and S as in "How to train your ViT?", Table 2
    "tiny": {"embed_dim": 192, "num_heads": 3},
    "small": {"embed_dim": 384, "num_heads": 6},
    "base": {},
    "large": {"embed_dim": 1024, "num_layers": 24, "num_heads": 16},
    "huge": {"embed_dim": 1280, "num_layers": 32, "num_heads": 16},
}
_PATCHES_AND_IMAGES = {
    "tiny": [(16, 224), (16, 384)],
    "small": [(8, 224), (16, 224), (16, 384), (32, 224), (32, 384)],
    "base": [(8, 224), (16, 224), (16, 384), (32, 224), (32, 384)],
    "large": [(14, 224), (16, 224), (16, 384), (16, 512), (32, 224), (32, 384)],
    "huge": [(14, 224), (14, 518)],
}
VARIANTS = {
    f"vit_{size}_patch{patch}_{image}": ViTConfig(patch_size=patch, image_size=image, **_SIZES[size])
    for size, pairs in _PATCHES_AND_IMAGES.items()
    for patch, image in pairs
}
