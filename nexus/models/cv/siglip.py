"""SigLIP and SigLIP 2.

Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023. https://arxiv.org/abs/2303.15343
Tschannen et al., "SigLIP 2: Multilingual Vision-Language Encoders", 2025. https://arxiv.org/abs/2502.14786

Images and texts in one space, as in CLIP, but each pair is judged alone: does this text belong to this image?
A learned probe gathers the patches, and text is read in both directions. SigLIP 2 has the same networks, another
training and vocabulary; its NaFlex models keep the aspect ratio of images.

Dims: b images, t texts, c channels, h w pixels, n tokens, d width of the image tower and of the shared space.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.core.foreign import ForeignSettings
from nexus.core.formats import State
from nexus.core.module import TokenLayout
from nexus.layers import Mlp, PatchEmbed, check_images, collect, drop_path_rates, encoder_block, fit_positions
from nexus.layers.position_embedding import resample_position_embedding
from nexus.models.cv.image_text import ImageTextModel, TransformerTower, check_ids
from nexus.models.cv.siglip_names import FORMATS
from nexus.ops.contrastive import sigmoid_contrastive_loss

GELU = partial(nn.GELU, approximate="tanh")


@dataclass(frozen=True, kw_only=True)
class SigLIPConfig(Config):
    """Defaults are SigLIP B/16 at 224 pixels.

    Attributes:
        image_size: Side in pixels that the position embedding is made for; what is left of whole patches is cut off.
        embed_dim: Width of the image tower, and of the space in which images and texts meet.
        hidden_dim: Width inside the image tower's perceptrons.
        text_dim: Width of the text tower; `text_hidden_dim` that inside its perceptrons.
        context_length: Tokens of every text, padding included.
        position_mode: How positions are resampled to other sizes; NaFlex models were trained with "bilinear".
        drop_path_rate: Of the image tower's last block; rises linearly from 0 at the first.
    """

    image_size: int = 224
    patch_size: int = 16
    in_channels: int = 3
    embed_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    hidden_dim: int = 3072
    text_dim: int = 768
    text_num_layers: int = 12
    text_num_heads: int = 12
    text_hidden_dim: int = 3072
    context_length: int = 64
    vocab_size: int = 32000
    position_mode: Literal["bicubic", "bilinear"] = "bicubic"
    norm_eps: float = 1e-6
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size < self.patch_size:
            raise ValueError(f"image_size {self.image_size} is smaller than one patch of {self.patch_size} pixels.")
        widths = {"embed_dim": (self.embed_dim, self.num_heads), "text_dim": (self.text_dim, self.text_num_heads)}
        for name, (width, heads) in widths.items():
            if width % heads:
                raise ValueError(f"{name} {width} is not a multiple of its {heads} heads.")


class ProbePool(nn.Module):
    """A learned probe asks all tokens by attention, and a perceptron follows (Zhai et al. 2022, "MAP head")."""

    def __init__(self, embed_dim: int, num_heads: int, hidden_dim: int, norm_eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.probe = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.q = nn.Linear(embed_dim, embed_dim)
        self.kv = nn.Linear(embed_dim, 2 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.mlp = Mlp(embed_dim, hidden_dim, activation=GELU)
        nn.init.xavier_uniform_(self.probe)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        q = rearrange(
            self.q(self.probe.expand(x.shape[0], -1, -1)), "b n (heads e) -> b heads n e", heads=self.num_heads
        )
        k, v = rearrange(self.kv(x), "b n (two heads e) -> two b heads n e", two=2, heads=self.num_heads)
        pooled = F.scaled_dot_product_attention(q, k, v)
        pooled = self.proj(rearrange(pooled, "b heads 1 e -> b (heads e)"))
        return pooled + self.mlp(self.norm(pooled))


class VisionTower(TransformerTower):
    """A Vision Transformer without class token; the probe gathers its tokens."""

    def __init__(self, config: SigLIPConfig) -> None:
        super().__init__()
        width, eps = config.embed_dim, config.norm_eps
        self.position_mode: Literal["bicubic", "bilinear"] = config.position_mode
        self.patch_embed = PatchEmbed(config.patch_size, config.in_channels, width)
        self.grid = self.patch_embed.grid((config.image_size, config.image_size))
        self.pos_embed = nn.Parameter(torch.randn(1, self.grid[0] * self.grid[1], width) * width**-0.5)
        self.blocks = nn.ModuleList(
            [
                encoder_block(width, config.num_heads, config.hidden_dim, activation=GELU, norm_eps=eps, drop_path=rate)
                for rate in drop_path_rates(config.drop_path_rate, config.num_layers)
            ]
        )
        self.norm = nn.LayerNorm(width, eps=eps)
        self.pool = ProbePool(width, config.num_heads, config.hidden_dim, eps)

    def resample(self, positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        """Returns a position embedding for another grid of patches."""
        bilinear = self.position_mode == "bilinear"
        return resample_position_embedding(positions, old, new, mode=self.position_mode, antialias=bilinear)

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Returns the patches with their positions; pixels beyond the last whole patch are not seen."""
        check_images(images, self.patch_embed.in_channels)
        patch, grid = self.patch_embed.patch_size, self.patch_embed.grid(images.shape[-2:])
        patches = self.patch_embed(images[..., : grid[0] * patch, : grid[1] * patch])
        return patches + self.resample(self.pos_embed, self.grid, grid)

    def project(self, features: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        return self.pool(self.norm(features))


class TextTower(nn.Module):
    """A transformer that reads a text in both directions; the last position, mostly padding, stands for it."""

    def __init__(self, config: SigLIPConfig) -> None:
        super().__init__()
        width, eps = config.text_dim, config.norm_eps
        self.token_embed = nn.Embedding(config.vocab_size, width)
        self.pos_embed = nn.Parameter(torch.randn(1, config.context_length, width) * width**-0.5)
        self.blocks = nn.ModuleList(
            [
                encoder_block(width, config.text_num_heads, config.text_hidden_dim, activation=GELU, norm_eps=eps)
                for _ in range(config.text_num_layers)
            ]
        )
        self.norm = nn.LayerNorm(width, eps=eps)
        self.head = nn.Linear(width, config.embed_dim)

    def forward(self, tokens: Int[Tensor, "t n"], checkpointing: bool) -> Float[Tensor, "t d"]:
        """Returns the place of each text in the shared space, of any length.

        Raises:
            ValueError: The tokens are no ids, or the texts were not padded to the length of the training.
        """
        length = self.pos_embed.shape[1]
        check_ids(tokens)
        if tokens.shape[1] != length:
            raise ValueError(
                f"The texts have {tokens.shape[1]} tokens; SigLIP reads exactly {length}, as in its training. "
                f'Pad and cut them in the tokenizer: padding="max_length", truncation=True, max_length={length}.'
            )
        x = collect(self.blocks, self.token_embed(tokens) + self.pos_embed, checkpointing=checkpointing, keep=False)[-1]
        return self.head(self.norm(x[:, -1]))


class SigLIP(ImageTextModel):
    """Images and texts in one space. `config` is a `SigLIPConfig` or a mapping of its fields.

    Images may have any size: positions are interpolated, and pixels beyond the last whole patch are cut off.
    """

    config: SigLIPConfig
    lower_case = True
    visual: VisionTower
    text: TextTower

    def __init__(self, config: SigLIPConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        self.visual = VisionTower(self.config)
        self.text = TextTower(self.config)
        self.logit_scale = nn.Parameter(torch.tensor([math.log(10.0)]))
        self.logit_bias = nn.Parameter(torch.tensor([-10.0]))
        self._init_weights()

    def _init_weights(self) -> None:
        """As the authors' JAX code: Xavier in the blocks and the probe's head, LeCun for patches; no text says much."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        patches = self.visual.patch_embed.proj
        nn.init.trunc_normal_(patches.weight, std=patches.weight[0].numel() ** -0.5)
        nn.init.zeros_(cast("nn.Parameter", patches.bias))
        nn.init.normal_(self.text.token_embed.weight, std=self.config.text_dim**-0.5)

    def compare(self, embeddings: Float[Tensor, "b d"], text_embeddings: Float[Tensor, "t d"]) -> Float[Tensor, "b t"]:
        """Returns logits whose sigmoid is the probability that a text belongs to an image."""
        return self.logit_scale.exp() * embeddings @ text_embeddings.T + self.logit_bias

    def contrastive_loss(
        self, embeddings: Float[Tensor, "b d"], text_embeddings: Float[Tensor, "b d"]
    ) -> Float[Tensor, ""]:
        return sigmoid_contrastive_loss(embeddings, text_embeddings, self.logit_scale.exp(), self.logit_bias)

    def token_layout(self, image_size: Sequence[int]) -> TokenLayout:
        return TokenLayout(0, *self.visual.patch_embed.grid(image_size))

    def fit_state(self, state: State) -> State:
        """Resamples the image tower's positions from another (square) image size."""
        return fit_positions(state, "visual.pos_embed", self.visual.grid, self.visual.resample, num_prefix=0)

    @classmethod
    def config_from_hub(cls, mapping: Mapping[str, Any]) -> SigLIPConfig:
        settings = ForeignSettings(mapping, builder="SigLIP")
        vision, text = settings.section("vision_config"), settings.section("text_config")
        for tower in (vision, text):
            tower.expect(hidden_act="gelu_pytorch_tanh")
            for key in ("attention_dropout", "dropout", "eos_token_id"):  # of training; texts are padded, never ended
                tower.get(key)
        vision.expect(vision_use_head=True)
        eps = vision.number("layer_norm_eps", 1e-6)
        if text.number("layer_norm_eps", 1e-6) != eps:
            raise text.refuse("layer_norm_eps", f"SigLIP has one for both towers, and the other's is {eps}")
        naflex = settings.text("model_type", "siglip") == "siglip2"
        patch_size, width = vision.integer("patch_size", 16, 1), vision.integer("hidden_size", 768)
        if text.integer("projection_size", width) != width:
            raise text.refuse("projection_size", f"the image tower is {width} wide")
        square = math.isqrt(vision.integer("num_patches", 256)) * patch_size
        image_size = vision.integer("image_size", 224)
        config = SigLIPConfig(
            image_size=square if naflex else image_size,
            patch_size=patch_size,
            in_channels=vision.integer("num_channels", 3),
            embed_dim=width,
            num_layers=vision.integer("num_hidden_layers", 12),
            num_heads=vision.integer("num_attention_heads", 12),
            hidden_dim=vision.integer("intermediate_size", 3072),
            text_dim=text.integer("hidden_size", 768),
            text_num_layers=text.integer("num_hidden_layers", 12),
            text_num_heads=text.integer("num_attention_heads", 12),
            text_hidden_dim=text.integer("intermediate_size", 3072),
            context_length=text.integer("max_position_embeddings", 64),
            vocab_size=text.integer("vocab_size", 32000),
            position_mode="bilinear" if naflex else "bicubic",
            norm_eps=eps,
        )
        settings.finish()
        return config


SigLIP.hub_types = ("siglip", "siglip2")
SigLIP.formats = FORMATS

_LARGE = {
    "embed_dim": 1024,
    "num_layers": 24,
    "num_heads": 16,
    "hidden_dim": 4096,
    "text_dim": 1024,
    "text_num_layers": 24,
    "text_num_heads": 16,
    "text_hidden_dim": 4096,
}
_SO400M_TEXT = {"text_dim": 1152, "text_num_layers": 27, "text_num_heads": 16, "text_hidden_dim": 4304}
_SIZES: dict[str, dict[str, Any]] = {
    "base": {},
    "large": _LARGE,
    "so400m": {"embed_dim": 1152, "num_layers": 27, "num_heads": 16, "hidden_dim": 4304, **_SO400M_TEXT},
    "giant_opt": {"embed_dim": 1536, "num_layers": 40, "num_heads": 16, "hidden_dim": 6144, **_SO400M_TEXT},
}
_SIGLIP = [("base", 16, (224, 256, 384, 512)), ("large", 16, (256, 384)), ("so400m", 14, (224, 384))]
_SIGLIP2 = [
    ("base", 32, (256,)),
    ("base", 16, (224, 256, 384, 512)),
    ("large", 16, (256, 384, 512)),
    ("so400m", 14, (224, 384)),
    ("so400m", 16, (256, 384, 512)),
    ("giant_opt", 16, (256, 384)),
]


def _variants(family: str, rows: Sequence[tuple[str, int, Sequence[int]]], **changes: Any) -> dict[str, SigLIPConfig]:
    return {
        f"{family}_{size}_patch{patch}_{image}": SigLIPConfig(
            image_size=image, patch_size=patch, **_SIZES[size] | changes
        )
        for size, patch, images in rows
        for image in images
    }


_NAFLEX: dict[str, Any] = {"image_size": 256, "position_mode": "bilinear", "vocab_size": 256000}

VARIANTS = (
    _variants("siglip", _SIGLIP)
    | {
        "siglip_so400m_patch14_224": SigLIPConfig(patch_size=14, context_length=16, **_SIZES["so400m"]),
        "siglip_base_patch16_256_multilingual": SigLIPConfig(image_size=256, vocab_size=250000),
    }
    | _variants("siglip2", _SIGLIP2, vocab_size=256000)
    | {f"siglip2_{size}_patch16_naflex": SigLIPConfig(**_SIZES[size], **_NAFLEX) for size in ("base", "so400m")}
)
