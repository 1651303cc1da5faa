"""What masked autoencoders share: the mask, the decoder that paints, what it should say, and its pictures.

He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022. https://arxiv.org/abs/2111.06377

An encoder sees some of the patches; a small decoder paints the others from what the encoder says. The encoder is then
a backbone to fine-tune.

Dims: b batch, c channels, h w pixels, n patches, v visible patches, d width, p values of a patch.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.core.formats import State
from nexus.core.initialization import WeightInitMixin
from nexus.core.module import NexusModule
from nexus.core.parts import PartSpec
from nexus.layers import check_image_size, collect, fit_positions, resample_position_embedding
from nexus.models.cv.vit import ViTConfig, vit_block

_log = logging.getLogger("nexus")
_DECODER = ("decoder_", "mask_token")


@dataclass(frozen=True, kw_only=True)
class MaskedAutoencoderConfig(Config):
    """Fields of every masked autoencoder. Defaults are the paper's decoder of ViT-B (Sec. 4.1 and A.1).

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
    def decoder(self) -> ViTConfig:
        """The Vision Transformer whose blocks the decoder has."""
        return ViTConfig(
            image_size=self.image_size,
            patch_size=self.patch_size,
            in_channels=self.in_channels,
            num_classes=0,
            embed_dim=self.decoder_dim,
            num_layers=self.decoder_num_layers,
            num_heads=self.decoder_num_heads,
            mlp_ratio=self.mlp_ratio,
            norm_eps=self.norm_eps,
        )


class Masking(NamedTuple):
    """Which patches the encoder sees.

    Attributes:
        visible: Their numbers, in the order in which the encoder gets them.
        mask: 1 where a patch is hidden.
        restore: Each patch's place in the order of visible, then hidden ones.
    """

    visible: Int[Tensor, "b v"]
    mask: Float[Tensor, "b n"]
    restore: Int[Tensor, "b n"]

    def keep(self, tokens: Float[Tensor, "b n *d"]) -> Float[Tensor, "b v *d"]:
        """Returns the visible ones of tokens."""
        index = self.visible.reshape(*self.visible.shape, *[1] * (tokens.ndim - 2))
        return tokens.gather(1, index.expand(-1, -1, *tokens.shape[2:]))


class Encoded(NamedTuple):
    """What an encoder says.

    Attributes:
        latent: What the decoder reads, normalized: its tokens before the patches (`num_prefix`), then visible patches.
        embeddings: One vector for each image.
        features: Tokens after each block, or those of the last alone.
        attentions: Attention maps of the blocks; None where they were not asked for.
    """

    latent: Float[Tensor, "b _ _"]
    embeddings: Float[Tensor, "b d"]
    features: list[Tensor]
    attentions: list[Tensor] | None


class MaskedAutoencoder(WeightInitMixin, NexusModule):
    """Pre-training by painting masked patches; abstract. A member's configuration extends `MaskedAutoencoderConfig`;
    `encode` and the parts that it runs are its own.

    Images may have any size whose sides are multiples of `patch_size`: position embeddings are interpolated.
    """

    grid: tuple[int, int]
    task = "masked-image-modeling"
    num_prefix: ClassVar[int]
    """Tokens before the patches."""

    def add_decoder(self, width: int) -> None:
        """Adds the decoder's parts, after the encoder's, whose tokens have `width`."""
        decoder = self.config.decoder
        self.decoder_embed = nn.Linear(width, decoder.embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder.embed_dim))
        positions = sincos_positions(self.grid, decoder.embed_dim, self.num_prefix)
        self.decoder_pos_embed = nn.Parameter(positions, requires_grad=False)
        self.decoder_blocks = nn.ModuleList([vit_block(decoder, 0.0) for _ in range(decoder.num_layers)])
        self.decoder_norm = nn.LayerNorm(decoder.embed_dim, eps=decoder.norm_eps)
        self.decoder_pred = nn.Linear(decoder.embed_dim, decoder.patch_size**2 * decoder.in_channels)

    def draw_weights(self) -> None:
        """As MAE's authors' code: Xavier for linear layers, normal for the mask token."""
        self.init_weights_vision()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        nn.init.normal_(self.mask_token, std=0.02)

    def encode(
        self, images: Float[Tensor, "b c h w"], masking: Masking, *, keep: bool, output_attentions: bool
    ) -> Encoded:
        """Returns what the encoder says of the visible patches; `keep`: its features after every block."""
        raise NotImplementedError

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
            decoder (see `paint`), `mask` (b, n) with 1 where a patch was masked, `embeddings` (b, d) of the images,
            `features` the encoder's after each block, of the tokens that it sees, and on request `attentions` of each
            block with attention.
        """
        grid = self.patch_grid(images.shape[-2:])
        masking = self._mask(images, grid[0] * grid[1], noise)
        keep = output_features or output_attentions
        encoded = self.encode(images, masking, keep=keep, output_attentions=output_attentions)
        predictions = self._decode(encoded.latent, masking.restore, grid)
        error = (predictions - self.target(images)).square().mean(dim=-1)
        outputs: dict[str, Any] = {
            "losses": {"reconstruction": (error * masking.mask).sum() / masking.mask.sum().clamp(min=1)},
            "predictions": predictions,
            "mask": masking.mask,
            "embeddings": encoded.embeddings,
        }
        if output_features:
            outputs["features"] = encoded.features
        if output_attentions:
            outputs["attentions"] = encoded.attentions
        return outputs

    def part_specs(self) -> dict[str, PartSpec]:
        names = [name for name, _ in (*self.named_children(), *self.named_parameters(recurse=False))]
        encoder = tuple(name for name in names if not name.startswith(_DECODER))
        decoder = tuple(name for name in names if name.startswith(_DECODER))
        return {
            "encoder": PartSpec(_encoder, ("images", "noise"), encoder),
            "decoder": PartSpec(_decoder, ("latent", "restore"), decoder),
        }

    def example_inputs(self, image_size: tuple[int, int] | None = None) -> dict[str, Tensor]:
        images = super().example_inputs(image_size)["images"]
        rows, columns = self.patch_grid(images.shape[-2:])
        noise = torch.rand(len(images), rows * columns, generator=torch.Generator().manual_seed(0))
        return {"images": images, "noise": noise.to(images)}

    def free_dims(self) -> dict[str, dict[int, str]]:
        return {**super().free_dims(), "noise": {0: "batch", 1: "patches"}}

    def _mask(self, images: Tensor, num_patches: int, noise: Tensor | None) -> Masking:
        wanted = (images.shape[0], num_patches)
        if noise is None:
            noise = torch.rand(wanted, device=images.device)
        if noise.shape != wanted:
            raise ValueError(
                f"noise has shape {tuple(noise.shape)}; it needs a number for each of {wanted[0]} x {wanted[1]}"
                " patches."
            )
        order = noise.argsort(dim=1)
        restore = order.argsort(dim=1)
        num_visible = int(num_patches * (1 - self.config.mask_ratio))
        return Masking(order[:, :num_visible], (restore >= num_visible).to(images.dtype), restore)

    def _decode(self, latent: Tensor, restore: Tensor, grid: tuple[int, int]) -> Float[Tensor, "b n p"]:
        tokens = self._with_masked(self.decoder_embed(latent), restore) + self.positions(self.decoder_pos_embed, grid)
        tokens = collect(self.decoder_blocks, tokens, checkpointing=self.checkpointing, keep=False)[-1]
        return self.decoder_pred(self.decoder_norm(tokens))[:, self.num_prefix :]

    def _with_masked(self, x: Float[Tensor, "b _ d"], restore: Int[Tensor, "b n"]) -> Float[Tensor, "b _ d"]:
        """Returns visible tokens, and mask tokens for all others, in the order of the patches."""
        prefix, visible = x[:, : self.num_prefix], x[:, self.num_prefix :]
        masked = self.mask_token.expand(x.shape[0], restore.shape[1] - visible.shape[1], -1)
        tokens = torch.cat([visible, masked], dim=1).gather(1, repeat(restore, "b n -> b n d", d=x.shape[-1]))
        return torch.cat([prefix, tokens], dim=1)

    def positions(self, embedding: Float[Tensor, "1 _ d"], grid: tuple[int, int]) -> Float[Tensor, "1 _ d"]:
        """Returns a position embedding of this model for a grid of patches."""
        return self._resample(embedding, self.grid, grid)

    def _resample(self, positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        return resample_position_embedding(positions, old, new, num_prefix=self.num_prefix, antialias=False)

    def patch_grid(self, image_size: Sequence[int]) -> tuple[int, int]:
        """Returns the rows and columns of patches of an image of `(height, width)` pixels."""
        height, width = image_size
        return height // self.config.patch_size, width // self.config.patch_size

    def target(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n p"]:
        """Returns what the decoder should say: the values of each patch, normalized with `norm_pix_loss`."""
        patches = self.patchify(images)
        if not self.config.norm_pix_loss:
            return patches
        mean, variance = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
        return (patches - mean) / (variance + 1e-6).sqrt()

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
        size, (rows, _) = self.config.patch_size, self.patch_grid(images.shape[-2:])
        return rearrange(mixed, "b (h w) (p q c) -> b c (h p) (w q)", h=rows, p=size, q=size)

    def to_classifier(self, num_classes: int, **changes: Any) -> NexusModule:
        """Returns a classifier to fine-tune: this encoder with a fresh head on the mean of its patches (Sec. A.1).

        Args:
            num_classes: Outputs of the head; 0 leaves it out.
            **changes: Fields of the classifier's configuration, such as `drop_path_rate=0.1` or `image_size=384`.
        """
        raise NotImplementedError

    def hand_over(self, model: NexusModule, changes: Mapping[str, Any]) -> None:
        """Gives the encoder's weights, and what its images need, to a classifier that was built with `changes`."""
        encoder = {key: value for key, value in self.state_dict().items() if not key.startswith(_DECODER)}
        own = model.state_dict()  # the norm before the decoder need not be the classifier's
        model.load_state_dict(own | {key: value for key, value in model.fit_state(encoder).items() if key in own})
        model.preprocessing = self.preprocessing and self.preprocessing.fitted(changes)

    def fit_state(self, state: State) -> State:
        """Resamples position embeddings to this image size; weights of an encoder alone get a fresh decoder."""
        own = self.state_dict()
        fitted = dict(state)
        for key in (key for key in own if key.endswith("pos_embed")):
            fitted = fit_positions(fitted, key, self.grid, self._resample, num_prefix=self.num_prefix)
        if state and not any(key.startswith(_DECODER) for key in state):
            _log.warning("The decoder was freshly initialised: the weights are of an encoder alone.")
            fitted |= {key: value for key, value in own.items() if key.startswith(_DECODER)}
        return fitted


def _encoder(model: MaskedAutoencoder, images: Tensor, noise: Tensor) -> Mapping[str, Tensor]:
    grid = model.patch_grid(images.shape[-2:])
    masking = model._mask(images, grid[0] * grid[1], noise)
    encoded = model.encode(images, masking, keep=False, output_attentions=False)
    return {
        "latent": encoded.latent,
        "embeddings": encoded.embeddings,
        "mask": masking.mask,
        "restore": masking.restore.unflatten(1, grid),  # its shape tells the decoder the grid
    }


def _decoder(model: MaskedAutoencoder, latent: Tensor, restore: Tensor) -> Mapping[str, Tensor]:
    _, rows, columns = restore.shape
    return {"predictions": model._decode(latent, restore.flatten(1), (rows, columns))}


def sincos_positions(grid: tuple[int, int], embed_dim: int, num_prefix: int) -> Float[Tensor, "1 _ d"]:
    """Returns fixed positions: sine and cosine of the column, and of the row; zeros for tokens before the patches."""
    frequencies = 10_000 ** -(torch.arange(embed_dim // 4, dtype=torch.float64) / (embed_dim // 4))
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    angles = [axis.flatten()[:, None] * frequencies for axis in (columns, rows)]
    patches = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
    return torch.cat([patches.new_zeros(num_prefix, embed_dim), patches])[None].float()
