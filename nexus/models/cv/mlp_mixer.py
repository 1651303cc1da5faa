"""MLP-Mixer.

Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for Vision", 2021. https://arxiv.org/abs/2105.01601

Patches become tokens; each block mixes first across tokens, then across channels.

Dims: b batch, c channels, h w pixels, n tokens, d width, k classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.core.formats import Format, State
from nexus.core.initialization import WeightInitMixin
from nexus.core.module import TokenLayout
from nexus.layers import (
    DropPath,
    Mlp,
    PatchEmbed,
    check_image_size,
    check_images,
    collect,
    drop_path_rates,
    image_sides,
)
from nexus.models.cv.classifier import Classifier, make_head
from nexus.models.features import FeatureInfo

_ACTIVATIONS = {"gelu": nn.GELU, "gelu_tanh": partial(nn.GELU, approximate="tanh")}


@dataclass(frozen=True, kw_only=True)
class MixerConfig(Config):
    """Defaults are Mixer-B/16 (Table 1).

    Attributes:
        image_size: Pixels of the sides that the model is for, (height, width) or one number: token mixing has a weight
            for each pair of patches, so other sizes need another model.
        num_classes: Outputs of the head; 0 leaves the head out, and `logits` are the embeddings.
        mlp_ratio: Hidden widths of token mixing and of channel mixing, in units of `embed_dim`.
        activation: "gelu" is exact, as in timm's weights; "gelu_tanh" is what the authors' code computes.
        dropout: In both MLPs.
        drop_path_rate: Of the last block; rises linearly from 0 at the first.
    """

    image_size: int | tuple[int, int] = 224
    patch_size: int = 16
    in_channels: int = 3
    num_classes: int = 1000
    embed_dim: int = 768
    num_layers: int = 12
    mlp_ratio: tuple[float, float] = (0.5, 4.0)
    activation: Literal["gelu", "gelu_tanh"] = "gelu"
    norm_eps: float = 1e-6
    dropout: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_size(self.image_size, self.patch_size)


class MixerBlock(nn.Module):
    """Token mixing, then channel mixing (Eq. 1)."""

    def __init__(self, config: MixerConfig, num_tokens: int, drop_path: float) -> None:
        super().__init__()
        width, activation = config.embed_dim, _ACTIVATIONS[config.activation]
        tokens_dim, channels_dim = (int(width * ratio) for ratio in config.mlp_ratio)
        self.norm1 = nn.LayerNorm(width, eps=config.norm_eps)
        self.mlp_tokens = Mlp(num_tokens, tokens_dim, activation=activation, dropout=config.dropout)
        self.norm2 = nn.LayerNorm(width, eps=config.norm_eps)
        self.mlp_channels = Mlp(width, channels_dim, activation=activation, dropout=config.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        x = x + self.drop_path(self.mlp_tokens(self.norm1(x).mT).mT)
        return x + self.drop_path(self.mlp_channels(self.norm2(x)))


class MLPMixer(WeightInitMixin, Classifier):
    """Image classifier. `config` is a `MixerConfig` or a mapping of its fields. Images must have its `image_size`."""

    config: MixerConfig

    def __init__(self, config: MixerConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        config = self.config
        self.patch_embed = PatchEmbed(config.patch_size, config.in_channels, config.embed_dim)
        height, width = self.patch_embed.grid(image_sides(config.image_size))
        rates = drop_path_rates(config.drop_path_rate, config.num_layers)
        self.blocks = nn.ModuleList([MixerBlock(config, height * width, rate) for rate in rates])
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.head = make_head(config.embed_dim, config.num_classes)
        self.init_weights_vision()

    def forward(
        self, images: Float[Tensor, "b c h w"], *, output_attentions: bool = False, output_features: bool = True
    ) -> dict[str, Any]:
        """Classifies normalized images.

        Args:
            images: Of the model's `image_size`.
            output_attentions: Must be False: there are none.
            output_features: Return `features`; without them inference needs less memory.

        Returns:
            `logits` (b, k), `embeddings` (b, d) the mean over normalized tokens, and `features` the tokens (b, n, d)
            after each block. `token_layout` says which token is where.

        Raises:
            ValueError: The images have another size than the model, or attention maps are asked for.
        """
        if output_attentions:
            raise ValueError("MLPMixer has no attention maps; nexus.visualization.GradCAM shows where it looks.")
        self._check_size(images)
        tokens = self.patch_embed(images)
        features = collect(self.blocks, tokens, checkpointing=self.checkpointing, keep=output_features)
        embeddings = reduce(self.norm(features[-1]), "b n d -> b d", "mean")
        outputs: dict[str, Any] = {"logits": self.head(embeddings), "embeddings": embeddings}
        if output_features:
            outputs["features"] = features
        return outputs

    def _check_size(self, images: Tensor) -> None:
        check_images(images, self.config.in_channels)
        given, wanted = tuple(images.shape[-2:]), image_sides(self.config.image_size)
        if given != wanted:
            raise ValueError(
                f"images are {given[0]}x{given[1]} pixels; this MLPMixer mixes the patches of {wanted[0]}x{wanted[1]}. "
                f"Resize them, or build the model with image_size=({given[0]}, {given[1]})."
            )

    @property
    def num_features(self) -> int:
        return self.config.embed_dim

    @property
    def feature_info(self) -> FeatureInfo:
        width, stride = self.config.embed_dim, self.config.patch_size
        return FeatureInfo((f"blocks.{index}", width, stride) for index in range(len(self.blocks)))

    def forward_stages(self, images: Float[Tensor, "b c h w"], count: int | None = None) -> list[Tensor]:
        self._check_size(images)
        return collect(self.blocks[:count], self.patch_embed(images), checkpointing=self.checkpointing)

    def forward_features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        return self.norm(self.forward_stages(images)[-1])

    def pool_features(self, features: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        return reduce(features, "b n d -> b d", "mean")

    def token_layout(self, image_size: Sequence[int]) -> TokenLayout:
        return TokenLayout(0, *self.patch_embed.grid(image_size))


def _transpose_kernels(state: State) -> State:
    """Turns flax kernels, which have the input first, into torch's weights."""
    converted: State = {}
    for key, value in state.items():
        if key.endswith(".kernel"):
            key = key.removesuffix("kernel") + "weight"
            value = rearrange(value, "h w c d -> d c h w") if value.ndim == 4 else value.T
        converted[key] = value.contiguous()
    return converted


MLPMixer.formats = (
    Format(
        "jax",
        detect=r"^MixerBlock_0/",
        rename={
            r"^stem/": "patch_embed/proj/",
            r"^MixerBlock_(\d+)/": r"blocks/\1/",
            r"/LayerNorm_0/": "/norm1/",
            r"/LayerNorm_1/": "/norm2/",
            r"/(token|channel)_mixing/": r"/mlp_\1s/",
            r"/Dense_0/": "/fc1/",
            r"/Dense_1/": "/fc2/",
            r"^pre_head_layer_norm/": "norm/",
            r"/scale$": "/weight",
            r"/": ".",
        },
        convert=_transpose_kernels,
    ),
    Format("timm", detect=r"^stem\.proj\.", rename={r"^stem\.": "patch_embed."}),
)

_SIZES: dict[str, dict[str, Any]] = {  # Table 1
    "s": {"embed_dim": 512, "num_layers": 8},
    "b": {"embed_dim": 768, "num_layers": 12},
    "l": {"embed_dim": 1024, "num_layers": 24},
}
VARIANTS = {
    f"mixer_{size}{patch}_224": MixerConfig(patch_size=patch, **_SIZES[size])
    for size in ("s", "b", "l")
    for patch in (32, 16)
}
