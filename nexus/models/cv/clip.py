"""CLIP.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.
https://arxiv.org/abs/2103.00020

A tower for images and a tower for text end in one space, trained so that an image is near its own text: any
words then classify images. The image tower is a Vision Transformer, or a ResNet whose last pooling is attention.

Dims: b images, t texts, c channels, h w pixels, n tokens, d width, e width of the shared space.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.core.foreign import ForeignSettings
from nexus.core.formats import State
from nexus.core.module import TokenLayout
from nexus.layers import (
    EncoderBlock,
    PatchEmbed,
    check_image_size,
    collect,
    drop_path_rates,
    encoder_block,
    fit_positions,
    resample_position_embedding,
)
from nexus.models.cv.clip_names import FORMATS
from nexus.models.cv.clip_resnet import ResNetTower
from nexus.models.cv.image_text import ImageTextModel, TransformerTower, check_ids
from nexus.ops.contrastive import softmax_contrastive_loss


@dataclass(frozen=True, kw_only=True)
class CLIPConfig(Config):
    """Defaults are CLIP ViT-B/32 (Tables 19 and 20).

    Attributes:
        patch_size: Of a Vision Transformer; a ResNet halves the image five times and leaves it 32.
        embed_dim: Width of the image tower: of its tokens, or of a ResNet's last map, 32 times that of its stem.
        num_layers: Blocks of a Vision Transformer, or of each of the four stages of a ResNet.
        num_heads: Of the image tower's attention; a ResNet's last pooling has as many.
        text_dim: Width of the text tower.
        context_length: Tokens that a text may have.
        vocab_size: Of the tokenizer; its highest id ends every text.
        projection_dim: Width of the space in which images and texts meet.
        activation: OpenAI's weights need "quick_gelu", most later ones "gelu".
        drop_path_rate: Of the last block of a Vision Transformer; rises linearly from 0 at the first.
    """

    image_size: int = 224
    patch_size: int = 32
    in_channels: int = 3
    embed_dim: int = 768
    num_layers: int | tuple[int, int, int, int] = 12
    num_heads: int = 12
    text_dim: int = 512
    text_num_layers: int = 12
    text_num_heads: int = 8
    mlp_ratio: float = 4.0
    context_length: int = 77
    vocab_size: int = 49408
    projection_dim: int = 512
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    norm_eps: float = 1e-5
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_size(self.image_size, 32 if self.is_resnet else self.patch_size)
        widths = {"embed_dim": (self.embed_dim, self.num_heads), "text_dim": (self.text_dim, self.text_num_heads)}
        for name, (width, heads) in widths.items():
            if width % heads:
                raise ValueError(f"{name} {width} is not a multiple of its {heads} heads.")
        if self.is_resnet and self.embed_dim % 64:
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of 64, which a ResNet's stem needs.")

    @property
    def is_resnet(self) -> bool:
        """Whether the image tower is a ResNet."""
        return not isinstance(self.num_layers, int)


class QuickGELU(nn.Module):
    """The approximation of GELU that OpenAI trained with (Hendrycks and Gimpel 2016, Sec. 2)."""

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return x * torch.sigmoid(1.702 * x)


_ACTIVATIONS = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


def _block(config: CLIPConfig, width: int, num_heads: int, *, causal: bool, drop_path: float = 0.0) -> EncoderBlock:
    return encoder_block(
        width,
        num_heads,
        int(width * config.mlp_ratio),
        activation=_ACTIVATIONS[config.activation],
        norm_eps=config.norm_eps,
        causal=causal,
        drop_path=drop_path,
    )


class VisionTower(TransformerTower):
    """A Vision Transformer with a norm before its first block, and a projection of the class token (Sec. 2.4)."""

    def __init__(self, config: CLIPConfig, num_layers: int) -> None:
        super().__init__()
        width = config.embed_dim
        self.patch_embed = PatchEmbed(config.patch_size, config.in_channels, width, bias=False)
        self.grid = self.patch_embed.grid((config.image_size, config.image_size))
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + self.grid[0] * self.grid[1], width) * width**-0.5)
        self.norm_pre = nn.LayerNorm(width, eps=config.norm_eps)
        rates = drop_path_rates(config.drop_path_rate, num_layers)
        self.blocks = nn.ModuleList(
            [_block(config, width, config.num_heads, causal=False, drop_path=rate) for rate in rates]
        )
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.head = nn.Linear(width, config.projection_dim, bias=False)
        nn.init.normal_(self.head.weight, std=width**-0.5)

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Returns the class token and the patches with their positions, normalized."""
        patches = self.patch_embed(images)
        positions = resample_position_embedding(
            self.pos_embed, self.grid, self.patch_embed.grid(images.shape[-2:]), num_prefix=1, antialias=False
        )
        tokens = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)
        return self.norm_pre(tokens + positions)

    def project(self, features: Float[Tensor, "b n d"]) -> Float[Tensor, "b e"]:
        return self.head(self.norm(features[:, 0]))


class TextTower(nn.Module):
    """A transformer that reads a text from left to right; its last token stands for the text (Sec. 2.4)."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        width, count = config.text_dim, config.text_num_layers
        self.token_embed = nn.Embedding(config.vocab_size, width)
        self.pos_embed = nn.Parameter(torch.randn(1, config.context_length, width) * 0.01)
        self.blocks = nn.ModuleList([_block(config, width, config.text_num_heads, causal=True) for _ in range(count)])
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.head = nn.Linear(width, config.projection_dim, bias=False)
        nn.init.normal_(self.token_embed.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=width**-0.5)
        for block in cast("list[EncoderBlock]", self.blocks):
            nn.init.normal_(block.attn.qkv.weight, std=width**-0.5)
            nn.init.normal_(block.attn.proj.weight, std=(2 * width * count) ** -0.5)
            nn.init.normal_(block.mlp.fc1.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.fc2.weight, std=(2 * width * count) ** -0.5)

    def forward(self, tokens: Int[Tensor, "t n"], checkpointing: bool) -> Float[Tensor, "t e"]:
        """Returns the place of each text in the shared space, of any length."""
        check_tokens(tokens, self.pos_embed.shape[1])
        x = self.token_embed(tokens) + self.pos_embed[:, : tokens.shape[1]]
        x = collect(self.blocks, x, checkpointing=checkpointing, keep=False)[-1]
        ends = tokens.argmax(dim=-1)  # the highest id ends a text; what follows is padding
        return self.head(self.norm(x[torch.arange(len(x), device=x.device), ends]))


def check_tokens(tokens: Tensor, context_length: int) -> None:
    """Raises unless `tokens` are ids of texts (t, n) of at most `context_length` tokens."""
    check_ids(tokens)
    if tokens.shape[1] > context_length:
        raise ValueError(
            f"The texts have {tokens.shape[1]} tokens; the model reads {context_length}. Truncate them in the "
            f"tokenizer: truncation=True, max_length={context_length}."
        )


def _image_tower(config: CLIPConfig) -> VisionTower | ResNetTower:
    if isinstance(config.num_layers, int):
        return VisionTower(config, config.num_layers)
    return ResNetTower(
        config.num_layers,
        image_size=config.image_size,
        in_channels=config.in_channels,
        embed_dim=config.embed_dim,
        num_heads=config.num_heads,
        out_dim=config.projection_dim,
    )


class CLIP(ImageTextModel):
    """Images and texts in one space. `config` is a `CLIPConfig` or a mapping of its fields.

    Images may have any size whose sides are multiples of the patch (of 32 for a ResNet): positions are interpolated.
    """

    config: CLIPConfig
    largest_scale = 100.0  # Sec. 2.5
    tokenizer = "openai/clip-vit-base-patch32"  # all of OpenAI's models have one vocabulary
    visual: VisionTower | ResNetTower
    text: TextTower

    def __init__(self, config: CLIPConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        self.visual = _image_tower(self.config)
        self.text = TextTower(self.config)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def compare(self, embeddings: Float[Tensor, "b e"], text_embeddings: Float[Tensor, "t e"]) -> Float[Tensor, "b t"]:
        """Returns scaled cosines: their softmax over texts is a zero-shot classifier."""
        return self.logit_scale.exp() * embeddings @ text_embeddings.T

    def contrastive_loss(
        self, embeddings: Float[Tensor, "b e"], text_embeddings: Float[Tensor, "b e"]
    ) -> Float[Tensor, ""]:
        return softmax_contrastive_loss(embeddings, text_embeddings, self.logit_scale.exp())

    def token_layout(self, image_size: Sequence[int]) -> TokenLayout | None:
        if isinstance(self.visual, ResNetTower):
            return None
        return TokenLayout(1, *self.visual.patch_embed.grid(image_size))

    def fit_state(self, state: State) -> State:
        """Resamples the image tower's positions from another (square) image size."""
        key = "visual.attnpool.pos_embed" if self.config.is_resnet else "visual.pos_embed"
        side = self.config.image_size // (32 if self.config.is_resnet else self.config.patch_size)
        resample = partial(resample_position_embedding, num_prefix=1, antialias=self.config.is_resnet)
        return fit_positions(state, key, (side, side), resample, num_prefix=1)

    @classmethod
    def config_from_hub(cls, mapping: Mapping[str, Any]) -> CLIPConfig:
        settings = ForeignSettings(mapping, builder="CLIP")
        vision, text = _tower(settings, "vision_config"), _tower(settings, "text_config")
        for tower in (vision, text):
            for key in ("attention_dropout", "dropout", "projection_dim"):  # of training; the whole model's is read
                tower.get(key)
        activation, eps = vision.text("hidden_act", "quick_gelu"), vision.number("layer_norm_eps", 1e-5)
        if (other := text.text("hidden_act", "quick_gelu")) != activation:
            raise ValueError(f"The towers' hidden_act are {activation!r} and {other!r}; CLIP has one for both.")
        if text.number("layer_norm_eps", 1e-5) != eps:
            raise text.refuse("layer_norm_eps", f"CLIP has one for both towers, and the other's is {eps}")
        vocab_size, end = text.integer("vocab_size", 49408), text.integer("eos_token_id", 49407)
        if end not in (2, vocab_size - 1):  # 2 stands in OpenAI's own files, and means the highest id
            raise ValueError(f"eos_token_id is {end}; CLIP ends a text with the highest id, {vocab_size - 1}.")
        width, text_width = vision.integer("hidden_size", 768, 1), text.integer("hidden_size", 512, 1)
        ratio = vision.integer("intermediate_size", 3072) / width
        text_ratio = text.integer("intermediate_size", 2048) / text_width
        if ratio != text_ratio:
            raise ValueError(f"The MLPs are {ratio:g} and {text_ratio:g} times as wide; CLIP has one ratio for both.")
        config = CLIPConfig(
            image_size=vision.integer("image_size", 224),
            patch_size=vision.integer("patch_size", 32),
            in_channels=vision.integer("num_channels", 3),
            embed_dim=width,
            num_layers=vision.integer("num_hidden_layers", 12),
            num_heads=vision.integer("num_attention_heads", 12),
            text_dim=text_width,
            text_num_layers=text.integer("num_hidden_layers", 12),
            text_num_heads=text.integer("num_attention_heads", 8),
            mlp_ratio=ratio,
            context_length=text.integer("max_position_embeddings", 77),
            vocab_size=vocab_size,
            projection_dim=settings.integer("projection_dim", 512),
            activation=activation,  # pyrefly: ignore[bad-argument-type]
            norm_eps=eps,
        )
        settings.finish()
        return config


def _tower(settings: ForeignSettings, key: str) -> ForeignSettings:
    """Returns the section of a tower; in transformers a `<key>_dict`, of older files, takes its place as a whole."""
    older = f"{key}_dict"
    if settings.get(older) is None:
        return settings.section(key)
    settings.get(key)
    return settings.section(older)


CLIP.hub_types = ("clip",)
CLIP.formats = FORMATS

_LARGE = {"patch_size": 14, "embed_dim": 1024, "num_layers": 24, "num_heads": 16}
_LARGE_TEXT = {"text_dim": 768, "text_num_heads": 12, "projection_dim": 768}


def _resnet(layers: tuple[int, int, int, int], stem: int, image_size: int, projection: int, text: int) -> CLIPConfig:
    return CLIPConfig(
        num_layers=layers,
        embed_dim=32 * stem,
        num_heads=stem // 2,
        image_size=image_size,
        projection_dim=projection,
        text_dim=text,
        text_num_heads=text // 64,
    )


VARIANTS = {
    "clip_vit_base_patch32_224": CLIPConfig(),
    "clip_vit_base_patch16_224": CLIPConfig(patch_size=16),
    "clip_vit_large_patch14_224": CLIPConfig(**_LARGE, **_LARGE_TEXT),
    "clip_vit_large_patch14_336": CLIPConfig(image_size=336, **_LARGE, **_LARGE_TEXT),
    "clip_resnet50": _resnet((3, 4, 6, 3), 64, 224, 1024, 512),
    "clip_resnet101": _resnet((3, 4, 23, 3), 64, 224, 512, 512),
    "clip_resnet50x4": _resnet((4, 6, 10, 6), 80, 288, 640, 640),
    "clip_resnet50x16": _resnet((6, 8, 18, 8), 96, 384, 768, 768),
    "clip_resnet50x64": _resnet((3, 15, 36, 10), 128, 448, 1024, 1024),
}
