"""Masked pre-training of HiViT.

Zhang et al., "HiViT: A Simpler and More Efficient Design of Hierarchical Vision Transformer", ICLR 2023, Sec. 3.3.
https://arxiv.org/abs/2205.14949

No stage before the last looks beyond a patch, so masked patches are left out from the first on, as in a plain
transformer. The decoder reads all three stages. `masked_autoencoder.py` has what is not HiViT's.

Dims: b batch, c channels, h w pixels, v visible patches, r s rows and columns of units inside a patch, d width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers import EncoderBlock, collect, image_sides
from nexus.models.cv.hivit import HiViT, HiViTConfig, UnitEmbed, hivit_blocks
from nexus.models.cv.masked_autoencoder import (
    Encoded,
    MaskedAutoencoder,
    MaskedAutoencoderConfig,
    Masking,
    sincos_positions,
)


@dataclass(frozen=True, kw_only=True)
class HiViTMAEConfig(MaskedAutoencoderConfig):
    """Defaults are HiViT-B with its authors' decoder, `mae_hivit_base_dec512d6b`; other fields as of `HiViTConfig`."""

    embed_dim: int = 512
    num_layers: tuple[int, int, int] = (2, 2, 20)
    num_heads: int = 8
    stem_mlp_ratio: float = 3.0
    decoder_num_layers: int = 6

    @property
    def encoder(self) -> HiViTConfig:
        """The HiViT that the encoder is: without a head, and without biases for offsets."""
        return HiViTConfig(
            image_size=self.image_size,
            patch_size=self.patch_size,
            in_channels=self.in_channels,
            num_classes=0,
            embed_dim=self.embed_dim,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            stem_mlp_ratio=self.stem_mlp_ratio,
            mlp_ratio=self.mlp_ratio,
            relative_bias=False,
            norm_eps=self.norm_eps,
        )


class HiViTMAE(MaskedAutoencoder):
    """Pre-training of HiViT. `config` is a `HiViTMAEConfig` or a mapping of its fields.

    `embeddings` are the means of the last stage's tokens; `features` are the units (b, v, r, s, d) after each entry of
    `blocks` in the first two stages, then tokens (b, v, d); `attentions` (b, heads, v, v) those of the last stage.
    """

    config: HiViTMAEConfig
    num_prefix = 0

    def __init__(self, config: HiViTMAEConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        encoder = self.config.encoder
        self.patch_embed = UnitEmbed(encoder)
        self.grid = self.patch_embed.grid(image_sides(encoder.image_size))
        positions = sincos_positions(self.grid, encoder.embed_dim, self.num_prefix)
        self.absolute_pos_embed = nn.Parameter(positions)  # where learning starts
        self.blocks = nn.ModuleList(hivit_blocks(encoder, self.grid))
        read = (4 + 2 + 1) * encoder.embed_dim  # of a patch: 16 units of a quarter, 4 of a half, and the token
        self.norm = nn.LayerNorm(read, eps=encoder.norm_eps)
        self.add_decoder(read)
        self.draw_weights()

    def encode(
        self, images: Float[Tensor, "b c h w"], masking: Masking, *, keep: bool, output_attentions: bool
    ) -> Encoded:
        grid, blocks = self.patch_grid(images.shape[-2:]), list(self.blocks)
        first, second, main = self.config.num_layers
        merge1, merge2 = 2 * first, 2 * first + 1 + 2 * second
        features, levels = [masking.keep(self.patch_embed(images))], []
        for stage in (blocks[:merge1], blocks[merge1:merge2], blocks[merge2:-main]):
            features += collect(stage, features[-1], checkpointing=self.checkpointing, keep=keep)
            levels.append(rearrange(features[-1], "b v r s d -> b v (r s d)"))
        positions = self.positions(self.absolute_pos_embed, grid).expand(images.shape[0], -1, -1)
        tokens = levels[2] + masking.keep(positions)
        last = cast("list[EncoderBlock]", blocks[-main:])
        placed = [partial(block, index=None, grid=grid) for block in last]
        late = collect(placed, tokens, checkpointing=self.checkpointing, keep=keep)
        latent = self.norm(torch.cat([levels[0], levels[1], late[-1]], dim=-1))
        attentions = None
        if output_attentions:
            attentions = [b.attention_maps(x, index=None, grid=grid) for b, x in zip(last, [tokens, *late[:-1]])]
        return Encoded(latent, late[-1].mean(dim=1), [*features[1:], *late], attentions)

    def to_classifier(self, num_classes: int, **changes: Any) -> HiViT:
        fresh = {"num_classes": num_classes, "relative_bias": True} | changes
        model = HiViT(self.config.encoder.replace(**fresh))
        self.hand_over(model, changes)
        return model


VARIANTS = {"mae_hivit_base": HiViTMAEConfig()}
