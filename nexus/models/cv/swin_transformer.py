"""Swin Transformer.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", 2021.
https://arxiv.org/abs/2103.14030

Tokens attend to those in their own window; every second block shifts the windows by half of one. Between stages,
two by two tokens become one.

Dims: b batch, c channels, h w pixels or tokens, d width, k classes, m windows of a map, n tokens of a window,
e one head's width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.core.foreign import ForeignSettings
from nexus.core.formats import State
from nexus.core.initialization import WeightInitMixin
from nexus.layers import DropPath, Mlp, check_image_size, check_images, collect, drop_path_rates, image_sides
from nexus.layers.relative_position import relative_positions
from nexus.models.cv.classifier import Classifier, make_head
from nexus.models.cv.swin_names import FORMATS, TABLE
from nexus.models.features import FeatureInfo

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class SwinConfig(Config):
    """Defaults are Swin-T (Sec. 3.3).

    Attributes:
        image_size: Pixels of the sides that masks are prepared for; others are computed when they come.
        num_classes: Outputs of the head; 0 leaves the head out, and `logits` are the embeddings.
        embed_dim: Width of the first stage; doubles at each stage.
        num_layers: Blocks in each stage.
        num_heads: Heads in each stage.
        window_size: Tokens along the side of a window. A smaller map is one window.
        pad_windows: A smaller map is padded to a window instead, and shifted like others: the authors' detectors.
        dropout: After attention and in the MLP.
        attention_dropout: On attention weights.
        drop_path_rate: Of the last block; rises linearly from 0 at the first. The paper trains with 0.2 (T), 0.3 (S)
            and 0.5 (B).
    """

    image_size: int | Size = 224
    patch_size: int = 4
    in_channels: int = 3
    num_classes: int = 1000
    embed_dim: int = 96
    num_layers: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    pad_windows: bool = False
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    norm_eps: float = 1e-5
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        stages, other = len(self.num_layers), len(self.num_heads)
        if stages != other:
            raise ValueError(f"num_layers has {stages} stages and num_heads has {other}; they must agree.")
        for stage, heads in enumerate(self.num_heads):
            if self.embed_dim * 2**stage % heads:
                raise ValueError(
                    f"Stage {stage} is {self.embed_dim * 2**stage} wide, which is not a multiple of its {heads} heads."
                )
        check_image_size(self.image_size, self.patch_size)


class Partition(NamedTuple):
    """How a map is cut into windows, as (height, width) in tokens."""

    window: Size
    padded: Size
    shift: Size

    @classmethod
    def of(cls, size: Size, window_size: int, shifted: bool, pad: bool = False) -> "Partition":
        """A map at most as large as the window is one window, unshifted, unless it is to be padded, too; others are
        padded to whole windows.
        """
        least = 0 if pad else window_size
        window = (window_size, window_size) if pad else (min(size[0], window_size), min(size[1], window_size))
        padded = (-(-size[0] // window[0]) * window[0], -(-size[1] // window[1]) * window[1])
        half = window_size // 2 if shifted else 0
        return cls(window, padded, (half if size[0] > least else 0, half if size[1] > least else 0))


def cut(x: Float[Tensor, "b h w d"], window: Size) -> Float[Tensor, "bm n d"]:
    """Returns the tokens of each window, image by image and row by row."""
    return rearrange(x, "b (h p) (w q) d -> (b h w) (p q) d", p=window[0], q=window[1])


def shift_mask(part: Partition) -> Float[Tensor, "m n n"]:
    """Returns what is added inside shifted windows: -100 between tokens that are no neighbours (Fig. 4)."""
    rows, columns = (
        (torch.arange(side) >= side - window).int() + (torch.arange(side) >= side - shift).int()
        for side, window, shift in zip(part.padded, part.window, part.shift)
    )
    regions = cut((3 * rows[:, None] + columns)[None, :, :, None], part.window)
    return (regions != regions.mT) * -100.0


class WindowAttention(nn.Module):
    """Self-attention inside windows, with a learned bias for each offset between two tokens (Eq. 4)."""

    relative_position_index: Tensor

    def __init__(self, embed_dim: int, num_heads: int, window: Size, config: SwinConfig) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window, self.window_size = window, config.window_size
        self.dropout = config.attention_dropout
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=config.qkv_bias)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * self.window_size - 1) ** 2, num_heads))
        self.register_buffer(
            "relative_position_index", relative_positions(window, (self.window_size,) * 2), persistent=False
        )
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.proj_drop = nn.Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "bm n d"], window: Size, mask: Float[Tensor, "m n n"] | None
    ) -> Float[Tensor, "bm n d"]:
        q, k, v = self._project(x)
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, self._bias(x.shape[0], window, mask), dropout)
        return self.proj_drop(self.proj(rearrange(x, "m heads n e -> m n (heads e)")))

    def maps(
        self, x: Float[Tensor, "bm n d"], window: Size, mask: Float[Tensor, "m n n"] | None
    ) -> Float[Tensor, "bm heads n n"]:
        """Returns the attention weights that `forward` uses; each row sums to 1. Dropout is left out."""
        q, k, _ = self._project(x)
        return (q * q.shape[-1] ** -0.5 @ k.mT + self._bias(x.shape[0], window, mask)).softmax(dim=-1)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = rearrange(self.qkv(x), "m n (three heads e) -> three m heads n e", three=3, heads=self.num_heads)
        return q, k, v

    def _bias(self, num_windows: int, window: Size, mask: Tensor | None) -> Float[Tensor, "bm heads n n"]:
        index = self.relative_position_index
        if window != self.window:
            index = relative_positions(window, (self.window_size,) * 2).to(index.device)
        bias = self.relative_position_bias_table[index.flatten()]
        bias = rearrange(bias, "(n m) heads -> 1 heads n m", n=len(index))
        if mask is None:
            return bias
        return (bias + mask[:, None]).repeat(num_windows // len(mask), 1, 1, 1)


class SwinBlock(nn.Module):
    """Window attention, then an MLP, each on normalized tokens and beside a shortcut (Eq. 3, Fig. 3b)."""

    mask: Tensor | None

    def __init__(
        self, embed_dim: int, num_heads: int, size: Size, shifted: bool, drop_path: float, config: SwinConfig
    ) -> None:
        super().__init__()
        self.window_size, self.shifted, self.pad_windows = config.window_size, shifted, config.pad_windows
        self.part = Partition.of(size, config.window_size, shifted, config.pad_windows)
        self.register_buffer("mask", shift_mask(self.part) if any(self.part.shift) else None, persistent=False)
        self.norm1 = nn.LayerNorm(embed_dim, eps=config.norm_eps)
        self.attn = WindowAttention(embed_dim, num_heads, self.part.window, config)
        self.norm2 = nn.LayerNorm(embed_dim, eps=config.norm_eps)
        self.mlp = Mlp(embed_dim, int(embed_dim * config.mlp_ratio), dropout=config.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        x = x + self.drop_path(self._attend(x))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        """Returns what the tokens of each window tell each other, in their places in the map."""
        windows, part, mask = self._windows(x)
        windows = self.attn(windows, part.window, mask)
        (height, width), (p, q) = x.shape[1:3], part.window
        rows = part.padded[0] // p
        branch = rearrange(windows, "(b h w) (p q) d -> b (h p) (w q) d", b=x.shape[0], h=rows, p=p, q=q)
        if any(part.shift):
            branch = branch.roll(part.shift, dims=(1, 2))
        return branch[:, :height, :width]

    def attention_maps(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b m heads n n"]:
        """Returns the attention weights inside each window of this block for its input `x`."""
        windows, part, mask = self._windows(x)
        maps = self.attn.maps(windows, part.window, mask)
        return rearrange(maps, "(b m) heads n k -> b m heads n k", b=x.shape[0])

    def _windows(self, x: Float[Tensor, "b h w d"]) -> tuple[Tensor, Partition, Tensor | None]:
        """Returns the normalized tokens by window: padded with zeros below and to the right, then shifted."""
        height, width = x.shape[1:3]
        part = Partition.of((height, width), self.window_size, self.shifted, self.pad_windows)
        x = self.norm1(x)
        if part.padded != (height, width):
            x = F.pad(x, (0, 0, 0, part.padded[1] - width, 0, part.padded[0] - height))
        mask = self.mask
        if any(part.shift):
            x = x.roll((-part.shift[0], -part.shift[1]), dims=(1, 2))
            if part != self.part:
                mask = shift_mask(part).to(x)
        else:
            mask = None
        return cut(x, part.window), part, mask


class PatchEmbed(nn.Module):
    """Cuts an image into square patches, maps each to a token and normalizes it."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.in_channels, self.patch_size = config.in_channels, config.patch_size
        self.proj = nn.Conv2d(config.in_channels, config.embed_dim, config.patch_size, stride=config.patch_size)
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h2 w2 d"]:
        check_images(images, self.in_channels, multiple_of=self.patch_size)
        return self.norm(rearrange(self.proj(images), "b d h w -> b h w d"))


class PatchMerging(nn.Module):
    """Joins two by two tokens and halves their width (Sec. 3.1). A map with odd sides is padded with zeros."""

    def __init__(self, embed_dim: int, norm_eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * embed_dim, eps=norm_eps)
        self.reduction = nn.Linear(4 * embed_dim, 2 * embed_dim, bias=False)

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h2 w2 d2"]:
        height, width = x.shape[1:3]
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        return self.reduction(self.norm(rearrange(x, "b (h p) (w q) d -> b h w (q p d)", p=2, q=2)))


class SwinStage(nn.Module):
    """Patch merging, except in the first stage, then blocks of which every second one is shifted."""

    def __init__(self, stage: int, size: Size, drop_paths: list[float], config: SwinConfig) -> None:
        super().__init__()
        width = config.embed_dim * 2**stage
        self.downsample = PatchMerging(width // 2, config.norm_eps) if stage else nn.Identity()
        self.blocks = nn.ModuleList(
            [
                SwinBlock(width, config.num_heads[stage], size, bool(index % 2), rate, config)
                for index, rate in enumerate(drop_paths)
            ]
        )

    def forward(self, x: Float[Tensor, "b d h w"], *, checkpointing: bool = False) -> Float[Tensor, "b d2 h2 w2"]:
        x = self.downsample(rearrange(x, "b d h w -> b h w d"))
        x = collect(self.blocks, x, checkpointing=checkpointing, keep=False)[-1]
        return rearrange(x, "b h w d -> b d h w")

    def attention_maps(self, x: Float[Tensor, "b d h w"]) -> list[Tensor]:
        """Returns the attention weights (b, m, heads, n, n) of each block for the input `x` of the stage."""
        x = self.downsample(rearrange(x, "b d h w -> b h w d"))
        blocks = cast("list[SwinBlock]", self.blocks)
        return [block.attention_maps(y) for block, y in zip(blocks, [x, *collect(self.blocks, x)[:-1]])]


class SwinTransformer(WeightInitMixin, Classifier):
    """Image classifier. `config` is a `SwinConfig` or a mapping of its fields.

    Images may have any size whose sides are multiples of `patch_size`; maps that windows do not fill are padded as
    in the authors' detection code and in torchvision.
    """

    config: SwinConfig

    def __init__(self, config: SwinConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        config = self.config
        self.patch_embed = PatchEmbed(config)
        self.pos_drop = nn.Dropout(config.dropout)
        rates = drop_path_rates(config.drop_path_rate, sum(config.num_layers))
        height, width = (side // config.patch_size for side in image_sides(config.image_size))
        stages = []
        for stage, num_blocks in enumerate(config.num_layers):
            first = sum(config.num_layers[:stage])
            stages.append(SwinStage(stage, (height, width), rates[first : first + num_blocks], config))
            height, width = -(-height // 2), -(-width // 2)
        self.layers = nn.ModuleList(stages)
        out_dim = config.embed_dim * 2 ** (len(stages) - 1)
        self.norm = nn.LayerNorm(out_dim, eps=config.norm_eps)
        self.head = make_head(out_dim, config.num_classes)
        self.init_weights_vision()
        for name, parameter in self.named_parameters():
            if name.endswith(TABLE):
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(
        self, images: Float[Tensor, "b c h w"], *, output_attentions: bool = False, output_features: bool = True
    ) -> dict[str, Any]:
        """Classifies normalized images.

        Args:
            images: Sides must be multiples of `patch_size`.
            output_attentions: Also return the attention maps, which the fused kernel must compute again.
            output_features: Return `features`; without them inference needs less memory.

        Returns:
            `logits` (b, k), `embeddings` (b, d) the mean over normalized tokens, `features` the map (b, d, h, w) after
            each stage (strides 4, 8, 16, 32), and on request `attentions` (b, m, heads, n, n) of each block, for the
            m windows of n tokens.
        """
        x = self.embed(images)
        features: list[Tensor] = []
        attentions: list[Tensor] = []
        for stage in cast("list[SwinStage]", self.layers):
            if output_attentions:
                attentions += stage.attention_maps(x)
            x = stage(x, checkpointing=self.checkpointing)
            if output_features:
                features.append(x)
        embeddings = self.pool_features(self.norm(rearrange(x, "b d h w -> b h w d")))
        outputs: dict[str, Any] = {"logits": self.head(embeddings), "embeddings": embeddings}
        if output_features:
            outputs["features"] = features
        if output_attentions:
            outputs["attentions"] = attentions
        return outputs

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Returns the tokens of the patches as a map."""
        return rearrange(self.pos_drop(self.patch_embed(images)), "b h w d -> b d h w")

    @property
    def num_features(self) -> int:
        return self.config.embed_dim * 2 ** (len(self.layers) - 1)

    @property
    def feature_info(self) -> FeatureInfo:
        width, stride = self.config.embed_dim, self.config.patch_size
        return FeatureInfo((f"layers.{i}", width * 2**i, stride * 2**i) for i in range(len(self.layers)))

    def forward_stages(self, images: Float[Tensor, "b c h w"], count: int | None = None) -> list[Tensor]:
        stages = [partial(stage, checkpointing=self.checkpointing) for stage in self.layers[:count]]
        return collect(stages, self.embed(images))

    def forward_features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w d"]:
        """Returns the normalized map with its channels last, as timm does."""
        return self.norm(rearrange(self.forward_stages(images)[-1], "b d h w -> b h w d"))

    def pool_features(self, features: Float[Tensor, "b h w d"]) -> Float[Tensor, "b d"]:
        return reduce(features, "b h w d -> b d", "mean")

    def fit_state(self, state: State) -> State:
        """Resamples the tables of relative positions to this model's window.

        The authors' code has smaller tables where a map is smaller than the window; they are the middle of a table.
        """
        sides = {key: round(len(value) ** 0.5) for key, value in state.items() if key.endswith(TABLE)}
        wanted = 2 * self.config.window_size - 1
        return {
            key: resample_table(value, max(sides.values()), wanted) if key in sides else value
            for key, value in state.items()
        }

    @classmethod
    def config_from_hub(cls, mapping: Mapping[str, Any]) -> SwinConfig:
        settings = ForeignSettings(mapping, builder="Swin")
        settings.expect(hidden_act="gelu")
        if settings.boolean("use_absolute_embeddings", False):
            raise ValueError("use_absolute_embeddings is true; Swin is built with relative positions only.")
        for key in (
            "drop_path_rate",
            "path_norm",
            "num_layers",
            "hidden_size",
        ):  # of training; of the stages, which say it already
            settings.get(key)
        config = SwinConfig(
            image_size=settings.sides("image_size", 224),
            patch_size=settings.integer("patch_size", 4),
            in_channels=settings.integer("num_channels", 3),
            num_classes=settings.num_head_classes(),
            embed_dim=settings.integer("embed_dim", 96),
            num_layers=settings.integers("depths", (2, 2, 6, 2), 1),
            num_heads=settings.integers("num_heads", (3, 6, 12, 24), 1),
            window_size=settings.integer("window_size", 7),
            mlp_ratio=settings.number("mlp_ratio", 4.0),
            qkv_bias=settings.boolean("qkv_bias", True),
            norm_eps=settings.number("layer_norm_eps", 1e-5),
            dropout=settings.number("hidden_dropout_prob", 0.0),
            attention_dropout=settings.number("attention_probs_dropout_prob", 0.0),
        )
        settings.finish()
        return config


def resample_table(table: Float[Tensor, "old heads"], file_side: int, new_side: int) -> Float[Tensor, "new heads"]:
    """Returns a table of relative positions for another window: bicubic on the grid of offsets, as the authors do.

    Args:
        table: Biases, offsets row by row.
        file_side: Offsets along the side of the largest table in the file; a smaller one is the middle of such.
        new_side: Offsets along the side that is wanted.
    """
    side = round(len(table) ** 0.5)
    if side == new_side == file_side or side * side != len(table):
        return table
    grid = rearrange(table, "(h w) heads -> 1 heads h w", h=side)
    grid = F.pad(grid, ((file_side - side) // 2,) * 4)
    if file_side != new_side:
        grid = F.interpolate(grid, size=(new_side, new_side), mode="bicubic", align_corners=False)
    return rearrange(grid, "1 heads h w -> (h w) heads")


SwinTransformer.hub_types = ("swin",)
SwinTransformer.formats = FORMATS

_SIZES: dict[str, dict[str, Any]] = {  # Sec. 3.3
    "tiny": {},
    "small": {"num_layers": (2, 2, 18, 2)},
    "base": {"embed_dim": 128, "num_layers": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
    "large": {"embed_dim": 192, "num_layers": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)},
}
VARIANTS = {
    f"swin_{size}_patch4_window{window}_{image}": SwinConfig(window_size=window, image_size=image, **_SIZES[size])
    for size, pairs in {
        "tiny": [(7, 224)],
        "small": [(7, 224)],
        "base": [(7, 224), (12, 384)],
        "large": [(7, 224), (12, 384)],
    }.items()
    for window, image in pairs
}
