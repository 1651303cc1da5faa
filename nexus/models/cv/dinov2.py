"""DINOv2.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023. https://arxiv.org/abs/2304.07193
Registers: Darcet et al., "Vision Transformers Need Registers", 2024. https://arxiv.org/abs/2309.16588

A Vision Transformer trained without labels, whose frozen features serve as they are. Every branch is scaled per
channel; registers, tokens without a place, give the blocks room for notes that would otherwise spoil patches.

Dims: b batch, c channels, h w pixels, n tokens, d width, k classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.core.foreign import ForeignSettings
from nexus.core.formats import Format, State, join_keys, rename_keys
from nexus.core.initialization import WeightInitMixin
from nexus.core.module import TokenLayout
from nexus.layers import (
    Attention,
    EncoderBlock,
    Mlp,
    PatchEmbed,
    SwiGLU,
    check_heads,
    check_image_size,
    collect,
    drop_path_rates,
    fit_positions,
    image_sides,
    resample_position_embedding,
)
from nexus.models.cv.classifier import Classifier, make_head
from nexus.models.features import FeatureInfo


@dataclass(frozen=True, kw_only=True)
class DINOv2Config(Config):
    """Defaults are ViT-B/14 as published: positions for 518 pixels, no head.

    Attributes:
        image_size: Pixels of the sides that the position embedding is made for: one number, or (height, width).
        num_classes: Outputs of the head; 0 makes it the identity, and `logits` are the embeddings.
        pool: What the head reads: the class token, or the class token and the mean of the patches side by side,
            as the published linear classifiers do.
        num_registers: Tokens beside the class token that have no place in the image.
        ffn: The perceptron of a block; `swiglu` keeps about as many weights as `mlp` (ViT-g).
        layer_scale: Of fresh weights; pre-training starts from 1e-5, published files bring their own.
        drop_path_rate: Of the last block; rises linearly from 0 at the first.
        interpolate_antialias: Low-pass filter when positions are resampled; on for the weights with registers.
        interpolate_offset: Added to the grid when positions are resampled; 0 for the weights with registers.
    """

    image_size: int | tuple[int, int] = 518
    patch_size: int = 14
    in_channels: int = 3
    num_classes: int = 0
    embed_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    ffn: Literal["mlp", "swiglu"] = "mlp"
    pool: Literal["token", "token+mean"] = "token"
    num_registers: int = 0
    layer_scale: float = 1.0
    norm_eps: float = 1e-6
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path_rate: float = 0.0
    interpolate_antialias: bool = False
    interpolate_offset: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_size(self.image_size, self.patch_size)
        check_heads(self.embed_dim, self.num_heads)

    @property
    def hidden_dim(self) -> int:
        """Width inside a block's perceptron; a gated one has two thirds, rounded up to a multiple of 8."""
        hidden = int(self.embed_dim * self.mlp_ratio)
        return hidden if self.ffn == "mlp" else -(-int(hidden * 2 / 3) // 8) * 8

    @property
    def num_prefix(self) -> int:
        """Tokens before the patches."""
        return 1 + self.num_registers


def dinov2_block(config: DINOv2Config, drop_path: float) -> EncoderBlock:
    """Attention, then a perceptron, each on normalized tokens, scaled per channel, beside a shortcut."""
    attn = Attention(
        config.embed_dim,
        config.num_heads,
        qkv_bias=config.qkv_bias,
        dropout=config.attention_dropout,
        proj_dropout=config.dropout,
    )
    ffn = Mlp if config.ffn == "mlp" else SwiGLU
    mlp = ffn(config.embed_dim, config.hidden_dim, dropout=config.dropout)
    scale = config.layer_scale
    return EncoderBlock(config.embed_dim, attn, mlp, norm_eps=config.norm_eps, drop_path=drop_path, layer_scale=scale)


class DINOv2(WeightInitMixin, Classifier):
    """Backbone, or classifier with a head. `config` is a `DINOv2Config` or a mapping of its fields.

    Images may have any size whose sides are multiples of `patch_size`: the position embedding is interpolated.
    """

    config: DINOv2Config

    def __init__(self, config: DINOv2Config | Mapping[str, Any]) -> None:
        super().__init__(config)
        config = self.config
        width = config.embed_dim
        self.patch_embed = PatchEmbed(config.patch_size, config.in_channels, width)
        self.grid = self.patch_embed.grid(image_sides(config.image_size))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], width))
        if config.num_registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, config.num_registers, width))
        # Only pre-training reads it: frozen, so that optimizers and DDP need not know. Pre-training unfreezes it.
        self.mask_token = nn.Parameter(torch.zeros(1, width), requires_grad=False)
        rates = drop_path_rates(config.drop_path_rate, config.num_layers)
        self.blocks = nn.ModuleList([dinov2_block(config, rate) for rate in rates])
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.head = make_head(self.head_hidden_size, config.num_classes)
        self.init_weights_vision()
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        if config.num_registers:
            nn.init.normal_(self.register_tokens, std=1e-6)

    def forward(
        self,
        images: Float[Tensor, "b c h w"],
        *,
        masks: Bool[Tensor, "b n"] | None = None,
        output_attentions: bool = False,
        output_features: bool = True,
    ) -> dict[str, Any]:
        """Describes normalized images.

        Args:
            images: Sides must be multiples of `patch_size`.
            masks: True where a patch is replaced by the mask token, as the student's are in pre-training (Sec. 4).
            output_attentions: Also return the attention maps, which the fused kernel must compute again.
            output_features: Return `features` and `patch_embeddings`; without them inference needs less memory.

        Returns:
            `logits` (b, k), `embeddings` (b, d) that the head reads (width 2 d with the pool "token+mean"),
            `features` the tokens (b, n, d) after each block, `patch_embeddings` (b, n, d) the patches after the last
            norm, and on request `attentions` (b, heads, n, n) of each block. `token_layout` says which token is where.
        """
        tokens = self.embed(images, masks)
        keep = output_features or output_attentions
        features = collect(self.blocks, tokens, checkpointing=self.checkpointing, keep=keep)
        normalized = self.norm(features[-1])
        embeddings, patches = self.pool_features(normalized), normalized[:, self.config.num_prefix :]
        outputs: dict[str, Any] = {"logits": self.head(embeddings), "embeddings": embeddings}
        if output_features:
            outputs |= {"features": features, "patch_embeddings": patches}
        if output_attentions:
            blocks, inputs = cast("list[EncoderBlock]", self.blocks), [tokens, *features[:-1]]
            outputs["attentions"] = [block.attention_maps(x) for block, x in zip(blocks, inputs)]
        return outputs

    def embed(
        self, images: Float[Tensor, "b c h w"], masks: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Returns the class token, the registers, and the patches with their positions.

        Raises:
            ValueError: The images do not fit, or `masks` has not one value per patch.
        """
        patches = self.patch_embed(images)
        if masks is not None:
            if masks.shape != patches.shape[:2]:
                raise ValueError(f"masks have shape {tuple(masks.shape)}; patches have {tuple(patches.shape[:2])}.")
            patches = torch.where(masks[..., None], self.mask_token.to(patches.dtype), patches)
        tokens = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)
        tokens = tokens + self.resample(self.pos_embed, self.grid, self.patch_embed.grid(images.shape[-2:]))
        if self.config.num_registers:
            registers = self.register_tokens.expand(tokens.shape[0], -1, -1)
            tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)
        return tokens

    def resample(self, positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        """Returns a position embedding for another grid of patches, as the weights were trained and evaluated."""
        return resample_position_embedding(
            positions,
            old,
            new,
            num_prefix=1,
            antialias=self.config.interpolate_antialias,
            offset=self.config.interpolate_offset,
        )

    @property
    def num_features(self) -> int:
        return self.config.embed_dim

    @property
    def feature_info(self) -> FeatureInfo:
        width, stride = self.config.embed_dim, self.config.patch_size
        return FeatureInfo((f"blocks.{index}", width, stride) for index in range(len(self.blocks)))

    @property
    def head_hidden_size(self) -> int:
        return self.num_features * (1 if self.config.pool == "token" else 2)

    def forward_stages(self, images: Float[Tensor, "b c h w"], count: int | None = None) -> list[Tensor]:
        return collect(self.blocks[:count], self.embed(images), checkpointing=self.checkpointing)

    def forward_features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        return self.norm(self.forward_stages(images)[-1])

    def pool_features(self, features: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        token = features[:, 0]
        if self.config.pool == "token":
            return token
        return torch.cat([token, features[:, self.config.num_prefix :].mean(dim=1)], dim=1)

    def token_layout(self, image_size: Sequence[int]) -> TokenLayout:
        return TokenLayout(self.config.num_prefix, *self.patch_embed.grid(image_size))

    def fit_state(self, state: State) -> State:
        """Resamples positions of a (square) image size to this model's; fills in what timm's files leave out."""
        if self.config.ffn == "swiglu":
            state = rename_keys(state, {r"\.mlp\.fc1\.": ".mlp.w12.", r"\.mlp\.fc2\.": ".mlp.w3."})
        if "cls_token" in state and "mask_token" not in state:
            state = {**state, "mask_token": self.mask_token.detach()}
        return fit_positions(state, "pos_embed", self.grid, self.resample, num_prefix=1)

    @classmethod
    def config_from_hub(cls, mapping: Mapping[str, Any]) -> DINOv2Config:
        settings = ForeignSettings(mapping, builder="DINOv2")
        settings.expect(hidden_act="gelu")
        settings.number("drop_path_rate", 0.0)  # of training
        with_registers = "registers" in settings.text("model_type", "dinov2")
        num_classes = settings.num_head_classes()
        config = DINOv2Config(
            image_size=settings.sides("image_size", 224),
            patch_size=settings.integer("patch_size", 16 if with_registers else 14),
            in_channels=settings.integer("num_channels", 3),
            num_classes=num_classes,
            embed_dim=settings.integer("hidden_size", 768),
            num_layers=settings.integer("num_hidden_layers", 12),
            num_heads=settings.integer("num_attention_heads", 12),
            mlp_ratio=settings.number("mlp_ratio", 4),
            qkv_bias=settings.boolean("qkv_bias", True),
            ffn="swiglu" if settings.boolean("use_swiglu_ffn", False) else "mlp",
            pool="token+mean" if num_classes else "token",
            num_registers=settings.integer("num_register_tokens", 4) if with_registers else 0,
            norm_eps=settings.number("layer_norm_eps", 1e-6),
            dropout=settings.number("hidden_dropout_prob", 0.0),
            attention_dropout=settings.number("attention_probs_dropout_prob", 0.0),
            interpolate_antialias=with_registers,
            interpolate_offset=0.0 if with_registers else 0.1,
        )
        settings.finish()
        return config


def _unfold_class_position(state: State) -> State:
    """Puts a zero before timm's positions: it has added the class token's position to the class token itself."""
    positions = state["pos_embed"]
    return {**state, "pos_embed": torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)}


def _join_projections(state: State) -> State:
    return join_keys(join_keys(state, ("q", "k", "v"), "qkv"), ("gate_proj", "up_proj"), "w12")


DINOv2.hub_types = ("dinov2", "dinov2_with_registers")
DINOv2.formats = (  # the authors' names are ours; without registers, so are timm's
    Format(
        "timm",
        detect=r"^reg_token$",
        rename={r"^reg_token$": "register_tokens"},
        convert=_unfold_class_position,
    ),
    Format(
        "hub",
        detect=r"^(dinov2(_with_registers)?\.)?embeddings\.patch_embeddings\.",
        rename={
            r"^dinov2(_with_registers)?\.": "",
            r"^embeddings\.position_embeddings$": "pos_embed",
            r"^embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
            r"^embeddings\.": "",
            r"^(encoder\.layer|layers)\.": "blocks.",
            r"\.attention\.(?:attention\.)?(q|k|v)(?:uery|ey|alue|_proj)\.": r".attn.\1.",
            r"\.attention\.(output\.dense|o_proj)\.": ".attn.proj.",
            r"\.layer_scale(\d)\.lambda1$": r".ls\1.gamma",
            r"\.mlp\.weights_in\.": ".mlp.w12.",
            r"\.mlp\.(weights_out|down_proj)\.": ".mlp.w3.",
            r"^layernorm\.": "norm.",
            r"^classifier\.": "head.",
        },
        convert=_join_projections,
    ),
)

_SIZES: dict[str, dict[str, Any]] = {  # Table 17
    "vits14": {"embed_dim": 384, "num_heads": 6},
    "vitb14": {},
    "vitl14": {"embed_dim": 1024, "num_layers": 24, "num_heads": 16},
    "vitg14": {"embed_dim": 1536, "num_layers": 40, "num_heads": 24, "ffn": "swiglu"},
}
_REGISTERS: dict[str, Any] = {"num_registers": 4, "interpolate_antialias": True, "interpolate_offset": 0.0}
VARIANTS = {f"dinov2_{size}": DINOv2Config(**changes) for size, changes in _SIZES.items()} | {
    f"dinov2_{size}_reg": DINOv2Config(**changes, **_REGISTERS) for size, changes in _SIZES.items()
}
