"""Masked autoencoder.

He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022. https://arxiv.org/abs/2111.06377

An encoder sees a quarter of the patches; a small decoder paints the others from what the encoder says. The encoder is
then a Vision Transformer to fine-tune.

Dims: b batch, c channels, h w pixels, n patches, v visible patches and the class token, d width, p values of a patch.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.core.formats import Format, State
from nexus.core.initialization import WeightInitMixin
from nexus.core.module import NexusModule
from nexus.layers import PatchEmbed, check_image_size, collect, image_sides, resample_position_embedding
from nexus.models.cv.vit import VisionTransformer, ViTBlock, ViTConfig

_log = logging.getLogger("nexus")
_DECODER = ("decoder_", "mask_token")


@dataclass(frozen=True, kw_only=True)
class MAEConfig(Config):
    """Defaults are ViT-B/16 with the paper's decoder (Sec. 4.1 and A.1).

    Attributes:
        image_size: Pixels of the sides that the position embeddings are made for: one number, or (height, width).
        decoder_dim: Width of the decoder; `decoder_num_layers` and `decoder_num_heads` are its blocks and heads.
        mask_ratio: Share of the patches that the encoder does not see.
        norm_pix_loss: The decoder's target is each patch normalized by its own mean and deviation (Sec. 3).
    """

    image_size: int | tuple[int, int] = 224
    patch_size: int = 16
    in_channels: int = 3
    embed_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-6
    decoder_dim: int = 512
    decoder_num_layers: int = 8
    decoder_num_heads: int = 16
    mask_ratio: float = 0.75
    norm_pix_loss: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_size(self.image_size, self.patch_size)
        if not 0 <= self.mask_ratio < 1:
            raise ValueError(f"mask_ratio is {self.mask_ratio}; it must be at least 0 and below 1.")
        for name, width in (("embed_dim", self.embed_dim), ("decoder_dim", self.decoder_dim)):
            if width % 4:
                raise ValueError(f"{name} {width} is not a multiple of 4, which sine-cosine positions need.")

    @property
    def encoder(self) -> ViTConfig:
        """The Vision Transformer that the encoder is, without a head."""
        return ViTConfig(
            image_size=self.image_size,
            patch_size=self.patch_size,
            in_channels=self.in_channels,
            num_classes=0,
            embed_dim=self.embed_dim,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            norm_eps=self.norm_eps,
        )

    @property
    def decoder(self) -> ViTConfig:
        """The Vision Transformer whose blocks the decoder has."""
        return self.encoder.replace(
            embed_dim=self.decoder_dim, num_layers=self.decoder_num_layers, num_heads=self.decoder_num_heads
        )


class MAE(WeightInitMixin, NexusModule):
    """Pre-training by painting masked patches. `config` is an `MAEConfig` or a mapping of its fields.

    Images may have any size whose sides are multiples of `patch_size`: position embeddings are interpolated.
    """

    config: MAEConfig
    default_task = "masked-image-modeling"

    def __init__(self, config: MAEConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        config = self.config
        encoder, decoder = config.encoder, config.decoder
        self.patch_embed = PatchEmbed(config.patch_size, config.in_channels, encoder.embed_dim)
        self.grid = self.patch_embed.grid(image_sides(config.image_size))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, encoder.embed_dim))
        self.pos_embed = nn.Parameter(sincos_positions(self.grid, encoder.embed_dim), requires_grad=False)
        self.blocks = nn.ModuleList([ViTBlock(encoder, 0.0) for _ in range(encoder.num_layers)])
        self.norm = nn.LayerNorm(encoder.embed_dim, eps=config.norm_eps)
        self.decoder_embed = nn.Linear(encoder.embed_dim, decoder.embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder.embed_dim))
        self.decoder_pos_embed = nn.Parameter(sincos_positions(self.grid, decoder.embed_dim), requires_grad=False)
        self.decoder_blocks = nn.ModuleList([ViTBlock(decoder, 0.0) for _ in range(decoder.num_layers)])
        self.decoder_norm = nn.LayerNorm(decoder.embed_dim, eps=config.norm_eps)
        self.decoder_pred = nn.Linear(decoder.embed_dim, config.patch_size**2 * config.in_channels)
        self._init_weights()

    def _init_weights(self) -> None:
        """As the authors' code: Xavier for linear layers, and for patches as if they were one."""
        self.init_weights_vision()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.view(self.config.embed_dim, -1))
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self,
        images: Float[Tensor, "b c h w"],
        *,
        noise: Float[Tensor, "b n"] | None = None,
        output_attentions: bool = False,
        output_features: bool = True,
    ) -> dict[str, Any]:
        """Paints the patches that the encoder does not see.

        Args:
            images: Normalized; sides must be multiples of `patch_size`.
            noise: The encoder sees the patches where it is smallest. None draws it: another mask at each call.
            output_attentions: Also return the encoder's attention maps.
            output_features: Return `features`.

        Returns:
            `losses` with `reconstruction`, the mean squared error on masked patches, `predictions` (b, n, p) of the
            decoder (see `paint`), `mask` (b, n) with 1 where a patch was masked, `embeddings` (b, d) the encoder's
            normalized class token, `features` the encoder's tokens (b, v, d) after each block, and on request
            `attentions` (b, heads, v, v) of each block.
        """
        grid = self.patch_embed.grid(images.shape[-2:])
        tokens = self.patch_embed(images)
        positions = self._positions(self.pos_embed, grid)
        visible, mask, restore = self._drop(tokens + positions[:, 1:], noise)
        cls_token = (self.cls_token + positions[:, :1]).expand(images.shape[0], -1, -1)
        inputs = torch.cat([cls_token, visible], dim=1)
        keep = output_features or output_attentions
        features = collect(self.blocks, inputs, checkpointing=self.checkpointing, keep=keep)
        latent = self.norm(features[-1])
        predictions = self._decode(latent, restore, grid)
        error = (predictions - self.target(images)).square().mean(dim=-1)
        outputs: dict[str, Any] = {
            "losses": {"reconstruction": (error * mask).sum() / mask.sum().clamp(min=1)},
            "predictions": predictions,
            "mask": mask,
            "embeddings": latent[:, 0],
        }
        if output_features:
            outputs["features"] = features
        if output_attentions:
            blocks = cast("list[ViTBlock]", self.blocks)
            outputs["attentions"] = [block.attention_maps(x) for block, x in zip(blocks, [inputs, *features[:-1]])]
        return outputs

    def _positions(self, embedding: Tensor, grid: tuple[int, int]) -> Float[Tensor, "1 n d"]:
        return resample_position_embedding(embedding, self.grid, grid, num_prefix=1, antialias=False)

    def _drop(self, tokens: Float[Tensor, "b n d"], noise: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the visible tokens in the order of their noise, the mask, and each patch's place in that order."""
        batch, num_patches, width = tokens.shape
        if noise is None:
            noise = torch.rand(batch, num_patches, device=tokens.device)
        if noise.shape != (batch, num_patches):
            raise ValueError(
                f"noise has shape {tuple(noise.shape)}; it needs a number for each of {batch} x {num_patches} patches."
            )
        order = noise.argsort(dim=1)
        restore = order.argsort(dim=1)
        num_visible = int(num_patches * (1 - self.config.mask_ratio))
        visible = tokens.gather(1, repeat(order[:, :num_visible], "b v -> b v d", d=width))
        return visible, (restore >= num_visible).to(tokens.dtype), restore

    def _decode(self, latent: Tensor, restore: Tensor, grid: tuple[int, int]) -> Float[Tensor, "b n p"]:
        x = self.decoder_embed(latent)
        num_masked = restore.shape[1] + 1 - x.shape[1]
        tokens = torch.cat([x[:, 1:], self.mask_token.expand(x.shape[0], num_masked, -1)], dim=1)
        tokens = tokens.gather(1, repeat(restore, "b n -> b n d", d=tokens.shape[-1]))
        x = torch.cat([x[:, :1], tokens], dim=1) + self._positions(self.decoder_pos_embed, grid)
        x = collect(self.decoder_blocks, x, checkpointing=self.checkpointing, keep=False)[-1]
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]

    def target(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n p"]:
        """Returns what the decoder should say: the values of each patch, normalized with `norm_pix_loss`."""
        patches = self.patchify(images)
        if not self.config.norm_pix_loss:
            return patches
        mean, variance = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
        return (patches - mean) / (variance + 1e-6).sqrt()

    def patch_grid(self, image_size: Sequence[int]) -> tuple[int, int]:
        """Returns the rows and columns of patches of an image of `(height, width)` pixels."""
        return self.patch_embed.grid(image_size)

    def patchify(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n p"]:
        """Returns the values of each patch: pixel by pixel, its channels together."""
        size = self.config.patch_size
        return rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=size, q=size)

    def paint(self, images: Float[Tensor, "b c h w"], outputs: Mapping[str, Any]) -> Float[Tensor, "b c h w"]:
        """Returns the images with masked patches painted by the decoder, the others as they were.

        Args:
            images: Those that `outputs` are for. With `norm_pix_loss` the mean and deviation of masked patches, which
                the decoder does not predict, are taken from here, as the authors' demonstration does.
            outputs: What the model returned.
        """
        patches, painted = self.patchify(images), outputs["predictions"]
        if self.config.norm_pix_loss:
            variance = patches.var(dim=-1, keepdim=True)
            painted = painted * (variance + 1e-6).sqrt() + patches.mean(dim=-1, keepdim=True)
        mixed = torch.where(outputs["mask"][..., None] > 0, painted, patches)
        size, (rows, _) = self.config.patch_size, self.patch_embed.grid(images.shape[-2:])
        return rearrange(mixed, "b (h w) (p q c) -> b c (h p) (w q)", h=rows, p=size, q=size)

    def to_classifier(self, num_classes: int, **changes: Any) -> VisionTransformer:
        """Returns a classifier to fine-tune: this encoder with a fresh head on the mean of its patches (Sec. A.1).

        Args:
            num_classes: Outputs of the head; 0 leaves it out.
            **changes: Fields of `ViTConfig`, such as `drop_path_rate=0.1`, `image_size=384` or `pool="token"`.
        """
        config = self.config.encoder.replace(**{"num_classes": num_classes, "pool": "mean"} | changes)
        model = VisionTransformer(config)
        encoder = {key: value for key, value in self.state_dict().items() if not key.startswith(_DECODER)}
        model.load_state_dict({**model.state_dict(), **model.fit_state(encoder)})
        model.preprocessing = self.preprocessing and self.preprocessing.fitted(changes)
        return model

    def fit_state(self, state: State) -> State:
        """Resamples position embeddings to this image size; weights of an encoder alone get a fresh decoder."""
        own = self.state_dict()
        fitted = dict(state)
        for key in ("pos_embed", "decoder_pos_embed"):
            positions = state.get(key)
            if positions is not None and positions.shape[1] != own[key].shape[1]:
                side = math.isqrt(positions.shape[1] - 1)
                fitted[key] = resample_position_embedding(
                    positions, (side, side), self.grid, num_prefix=1, antialias=False
                )
        if state and not any(key.startswith(_DECODER) for key in state):
            _log.warning("The decoder was freshly initialised: the weights are of an encoder alone.")
            fitted |= {key: value for key, value in own.items() if key.startswith(_DECODER)}
        return fitted

    @classmethod
    def config_from_hub(cls, mapping: Mapping[str, Any]) -> MAEConfig:
        if mapping.get("hidden_act", "gelu") != "gelu":
            raise ValueError(f"hidden_act is {mapping['hidden_act']!r}; MAE is built with 'gelu'.")
        ratio = mapping.get("intermediate_size", 3072) / mapping.get("hidden_size", 768)
        other = mapping.get("decoder_intermediate_size", 2048) / mapping.get("decoder_hidden_size", 512)
        if ratio != other:
            raise ValueError(f"The MLPs are {ratio:g} and {other:g} times as wide; MAE has one ratio for both.")
        size = mapping.get("image_size", 224)
        return MAEConfig(
            image_size=size if isinstance(size, int) else tuple(size),
            patch_size=mapping.get("patch_size", 16),
            in_channels=mapping.get("num_channels", 3),
            embed_dim=mapping.get("hidden_size", 768),
            num_layers=mapping.get("num_hidden_layers", 12),
            num_heads=mapping.get("num_attention_heads", 12),
            mlp_ratio=ratio,
            norm_eps=mapping.get("layer_norm_eps", 1e-12),
            decoder_dim=mapping.get("decoder_hidden_size", 512),
            decoder_num_layers=mapping.get("decoder_num_hidden_layers", 8),
            decoder_num_heads=mapping.get("decoder_num_attention_heads", 16),
            mask_ratio=mapping.get("mask_ratio", 0.75),
            norm_pix_loss=mapping.get("norm_pix_loss", False),
        )


def sincos_positions(grid: tuple[int, int], embed_dim: int) -> Float[Tensor, "1 n d"]:
    """Returns fixed positions: zeros for the class token, then sine and cosine of the column, and of the row."""
    frequencies = 10_000 ** -(torch.arange(embed_dim // 4, dtype=torch.float64) / (embed_dim // 4))
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    angles = [axis.flatten()[:, None] * frequencies for axis in (columns, rows)]
    patches = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
    return torch.cat([patches.new_zeros(1, embed_dim), patches])[None].float()


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
