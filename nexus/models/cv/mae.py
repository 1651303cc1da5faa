"""Masked autoencoder.

He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022. https://arxiv.org/abs/2111.06377

The encoder is a Vision Transformer that sees a quarter of the patches. `masked_autoencoder.py` has what paints the
others from what it says.

Dims: b batch, c channels, h w pixels, n patches, v visible patches and the class token, d width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.foreign import ForeignSettings
from nexus.core.formats import Format
from nexus.layers import EncoderBlock, PatchEmbed, collect, image_sides
from nexus.models.cv.masked_autoencoder import (
    Encoded,
    MaskedAutoencoder,
    MaskedAutoencoderConfig,
    Masking,
    sincos_positions,
)
from nexus.models.cv.vit import VisionTransformer, ViTConfig, vit_block


@dataclass(frozen=True, kw_only=True)
class MAEConfig(MaskedAutoencoderConfig):
    """Defaults are ViT-B/16 with the paper's decoder (Sec. 4.1 and A.1)."""

    num_layers: int = 12

    @property
    def encoder(self) -> ViTConfig:
        """The Vision Transformer that the encoder is, without a head."""
        return self.decoder.replace(embed_dim=self.embed_dim, num_layers=self.num_layers, num_heads=self.num_heads)


class MAE(MaskedAutoencoder):
    """Pre-training of a Vision Transformer. `config` is an `MAEConfig` or a mapping of its fields.

    `embeddings` are the encoder's normalized class tokens; its `features` are (b, v, d), its `attentions`
    (b, heads, v, v), over the class token and the visible patches.
    """

    config: MAEConfig
    num_prefix = 1

    def __init__(self, config: MAEConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        encoder = self.config.encoder
        self.patch_embed = PatchEmbed(encoder.patch_size, encoder.in_channels, encoder.embed_dim)
        self.grid = self.patch_embed.grid(image_sides(encoder.image_size))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, encoder.embed_dim))
        positions = sincos_positions(self.grid, encoder.embed_dim, self.num_prefix)
        self.pos_embed = nn.Parameter(positions, requires_grad=False)
        self.blocks = nn.ModuleList([vit_block(encoder, 0.0) for _ in range(encoder.num_layers)])
        self.norm = nn.LayerNorm(encoder.embed_dim, eps=encoder.norm_eps)
        self.add_decoder(encoder.embed_dim)
        self.draw_weights()
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.view(encoder.embed_dim, -1))  # as if it were linear
        nn.init.normal_(self.cls_token, std=0.02)

    def encode(
        self, images: Float[Tensor, "b c h w"], masking: Masking, *, keep: bool, output_attentions: bool
    ) -> Encoded:
        tokens, positions = self.patch_embed(images), self.positions(self.pos_embed, self.patch_grid(images.shape[-2:]))
        visible = masking.keep(tokens + positions[:, 1:])
        cls_token = (self.cls_token + positions[:, :1]).expand(images.shape[0], -1, -1)
        inputs = torch.cat([cls_token, visible], dim=1)
        features = collect(self.blocks, inputs, checkpointing=self.checkpointing, keep=keep)
        latent = self.norm(features[-1])
        attentions = None
        if output_attentions:
            blocks = cast("list[EncoderBlock]", self.blocks)
            attentions = [block.attention_maps(x) for block, x in zip(blocks, [inputs, *features[:-1]])]
        return Encoded(latent, latent[:, 0], features, attentions)

    def to_classifier(self, num_classes: int, **changes: Any) -> VisionTransformer:
        model = VisionTransformer(self.config.encoder.replace(**{"num_classes": num_classes, "pool": "mean"} | changes))
        self.hand_over(model, changes)
        return model

    @classmethod
    def config_from_hub(cls, mapping: Mapping[str, Any]) -> MAEConfig:
        settings = ForeignSettings(mapping, builder="MAE")
        settings.expect(hidden_act="gelu", qkv_bias=True)
        for key in ("hidden_dropout_prob", "attention_probs_dropout_prob"):  # of training
            settings.number(key, 0.0)
        width, decoder_width = settings.integer("hidden_size", 768, 1), settings.integer("decoder_hidden_size", 512, 1)
        ratio = settings.integer("intermediate_size", 3072) / width
        other = settings.integer("decoder_intermediate_size", 2048) / decoder_width
        if ratio != other:
            raise ValueError(f"The MLPs are {ratio:g} and {other:g} times as wide; MAE has one ratio for both.")
        config = MAEConfig(
            image_size=settings.sides("image_size", 224),
            patch_size=settings.integer("patch_size", 16),
            in_channels=settings.integer("num_channels", 3),
            embed_dim=width,
            num_layers=settings.integer("num_hidden_layers", 12),
            num_heads=settings.integer("num_attention_heads", 12),
            mlp_ratio=ratio,
            norm_eps=settings.number("layer_norm_eps", 1e-12),
            decoder_dim=decoder_width,
            decoder_num_layers=settings.integer("decoder_num_hidden_layers", 8),
            decoder_num_heads=settings.integer("decoder_num_attention_heads", 16),
            mask_ratio=settings.number("mask_ratio", 0.75),
            norm_pix_loss=settings.boolean("norm_pix_loss", False),
        )
        settings.finish()
        return config


_VIT_HUB = next(names for names in VisionTransformer.formats if names.name == "hub")

MAE.hub_types = ("vit_mae",)
MAE.formats = (  # the authors' names are ours
    Format(
        "hub",
        detect=_VIT_HUB.detect,
        rename={
            r"^decoder\.(decoder_|mask)": r"\1",
            r"^decoder_(layers|encoder\.layer)\.": "decoder_blocks.",
            **_VIT_HUB.rename,
        },
        convert=_VIT_HUB.convert,
    ),
)

VARIANTS = {
    "mae_vit_base_patch16_224": MAEConfig(),
    "mae_vit_large_patch16_224": MAEConfig(embed_dim=1024, num_layers=24, num_heads=16),
    "mae_vit_huge_patch14_224": MAEConfig(patch_size=14, embed_dim=1280, num_layers=32, num_heads=16),
}
