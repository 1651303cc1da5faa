"""EfficientNet and EfficientNetV2.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019.
https://arxiv.org/abs/1905.11946
EfficientNet-Lite, its form for mobile processors, is in the authors' code alone: no squeeze-excitation, and ReLU6.
Tan and Le, "EfficientNetV2: Smaller Models and Faster Training", 2021. https://arxiv.org/abs/2104.00298

A small network of inverted bottlenecks, whose depth, width and image size grow together.

Dims: b batch, c channels, h w pixels, d width, k classes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch.nn.functional as F
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.core.foreign import ForeignSettings
from nexus.core.initialization import WeightInitMixin
from nexus.layers import DropPath, check_images, collect
from nexus.models.cv.classifier import Classifier, make_head
from nexus.models.cv.efficient_net_names import FORMATS
from nexus.models.features import FeatureInfo


@dataclass(frozen=True, kw_only=True)
class Stage(Config):
    """Blocks of one width, of which the first has the stride.

    Attributes:
        block: "mbconv" expands, filters each channel and projects; "fused" does the first two in one convolution.
        expand_ratio: Width inside the blocks, in units of their input's; 1 leaves the expansion out.
    """

    block: Literal["mbconv", "fused"] = "mbconv"
    expand_ratio: int = 6
    kernel_size: int = 3
    stride: int = 1
    out_dim: int
    num_layers: int


def _stages(*rows: tuple[str, int, int, int, int, int]) -> tuple[Stage, ...]:
    names = ("block", "expand_ratio", "kernel_size", "stride", "out_dim", "num_layers")
    return tuple(Stage.from_mapping(dict(zip(names, row))) for row in rows)


_B0 = _stages(  # Table 1
    ("mbconv", 1, 3, 1, 16, 1),
    ("mbconv", 6, 3, 2, 24, 2),
    ("mbconv", 6, 5, 2, 40, 2),
    ("mbconv", 6, 3, 2, 80, 3),
    ("mbconv", 6, 5, 1, 112, 3),
    ("mbconv", 6, 5, 2, 192, 4),
    ("mbconv", 6, 3, 1, 320, 1),
)


@dataclass(frozen=True, kw_only=True)
class EfficientNetConfig(Config):
    """Defaults are EfficientNet-B0 (Table 1) as PyTorch's libraries build it.

    Attributes:
        num_classes: Outputs of the head; 0 leaves the head out, and `logits` are the embeddings.
        stem_dim: Channels of the stem.
        stages: The rows of Table 1 between stem and head.
        embed_dim: Channels of the last convolution.
        activation: SiLU, or the ReLU6 of EfficientNet-Lite, whose range suits 8 bits.
        squeeze_excite: Scale channels inside MBConv by their means; EfficientNet-Lite does not.
        padding: Of convolutions with a stride. "symmetric" adds the same on both sides; "same" is TensorFlow's: as much
            as the size needs, and the odd pixel below and to the right.
        norm_eps: TensorFlow's weights have 1e-3.
        norm_momentum: Weight of a batch in the running statistics.
        dropout: Before the head.
        drop_path_rate: Rises linearly from 0 at the first block; the papers train with 0.2.
    """

    in_channels: int = 3
    num_classes: int = 1000
    stem_dim: int = 32
    stages: tuple[Stage, ...] = _B0
    embed_dim: int = 1280
    activation: Literal["silu", "relu6"] = "silu"
    squeeze_excite: bool = True
    padding: Literal["symmetric", "same"] = "symmetric"
    norm_eps: float = 1e-5
    norm_momentum: float = 0.1
    dropout: float = 0.2
    drop_path_rate: float = 0.0


_ACTIVATIONS: dict[str, type[nn.SiLU | nn.ReLU6]] = {"silu": nn.SiLU, "relu6": nn.ReLU6}


class ConvNorm(nn.Module):
    """Convolution without bias, batch normalization and, except after projections, the activation."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel_size: int,
        config: EfficientNetConfig,
        *,
        stride: int = 1,
        groups: int = 1,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.pads_itself = config.padding == "same" and stride > 1
        padding = 0 if self.pads_itself else kernel_size // 2
        self.conv = nn.Conv2d(in_dim, out_dim, kernel_size, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_dim, eps=config.norm_eps, momentum=config.norm_momentum)
        self.act = _ACTIVATIONS[config.activation](inplace=True) if activate else nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        if self.pads_itself:
            x = pad_same(x, self.conv.kernel_size[0], self.conv.stride[0])
        return self.act(self.norm(self.conv(x)))


def pad_same(x: Float[Tensor, "b c h w"], kernel_size: int, stride: int) -> Float[Tensor, "b c h2 w2"]:
    """Pads as TensorFlow does: the output has ceil(size / stride) places, and the odd pixel goes below and right."""
    pads = []
    for size in (x.shape[-1], x.shape[-2]):
        total = max((math.ceil(size / stride) - 1) * stride + kernel_size - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


class SqueezeExcite(nn.Module):
    """Scales each channel by what the means of all channels say (Hu et al., 2018)."""

    def __init__(self, channels: int, hidden_dim: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden_dim, 1)
        self.act = nn.SiLU(inplace=True)
        self.expand = nn.Conv2d(hidden_dim, channels, 1)

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        means = x.mean((2, 3), keepdim=True)
        return x * self.expand(self.act(self.reduce(means))).sigmoid()


class Block(nn.Module):
    """MBConv, or Fused-MBConv (EfficientNetV2, Fig. 2), beside a shortcut where shapes agree."""

    def __init__(self, in_dim: int, stride: int, drop_path: float, stage: Stage, config: EfficientNetConfig) -> None:
        super().__init__()
        hidden, out_dim, size = in_dim * stage.expand_ratio, stage.out_dim, stage.kernel_size
        self.expand: nn.Module = nn.Identity()
        self.depthwise: nn.Module = nn.Identity()
        self.se: nn.Module = nn.Identity()
        self.project: nn.Module = nn.Identity()
        if stage.block == "fused":
            width = out_dim if stage.expand_ratio == 1 else hidden
            self.expand = ConvNorm(in_dim, width, size, config, stride=stride)
        else:
            if stage.expand_ratio > 1:
                self.expand = ConvNorm(in_dim, hidden, 1, config)
            self.depthwise = ConvNorm(hidden, hidden, size, config, stride=stride, groups=hidden)
            if config.squeeze_excite:
                self.se = SqueezeExcite(hidden, max(1, in_dim // 4))
        if stage.block == "mbconv" or stage.expand_ratio > 1:
            self.project = ConvNorm(hidden, out_dim, 1, config, activate=False)
        self.shortcut = stride == 1 and in_dim == out_dim
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        branch = self.project(self.se(self.depthwise(self.expand(x))))
        return x + self.drop_path(branch) if self.shortcut else branch


class EfficientNet(WeightInitMixin, Classifier):
    """Image classifier. `config` is an `EfficientNetConfig` or a mapping of its fields. Images may have any size."""

    config: EfficientNetConfig

    def __init__(self, config: EfficientNetConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        config = self.config
        self.stem = ConvNorm(config.in_channels, config.stem_dim, 3, config, stride=2)
        stages, width, index = [], config.stem_dim, 0
        num_blocks = sum(stage.num_layers for stage in config.stages)
        for stage in config.stages:
            blocks = []
            for place in range(stage.num_layers):
                rate = config.drop_path_rate * index / num_blocks
                blocks.append(Block(width, 1 if place else stage.stride, rate, stage, config))
                width, index = stage.out_dim, index + 1
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.ModuleList(stages)
        self.top = ConvNorm(width, config.embed_dim, 1, config)
        self.head_drop = nn.Dropout(config.dropout)
        self.head = make_head(config.embed_dim, config.num_classes)
        self._init_weights()

    def _init_weights(self) -> None:
        """As the authors' code: a depthwise convolution has one output for each input, and the head is uniform."""
        self.init_weights_vision()
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5)
        self.init_head(self.head)

    def init_head(self, head: nn.Module) -> None:
        if isinstance(head, nn.Linear):
            bound = head.out_features**-0.5
            nn.init.uniform_(head.weight, -bound, bound)
            nn.init.zeros_(head.bias)

    def forward(
        self, images: Float[Tensor, "b c h w"], *, output_attentions: bool = False, output_features: bool = True
    ) -> dict[str, Any]:
        """Classifies normalized images.

        Args:
            images: Any size.
            output_attentions: Must be False: there are none.
            output_features: Return `features`; without them inference needs less memory.

        Returns:
            `logits` (b, k), `embeddings` (b, d) the mean of the last convolution over all places, and `features`: the
            last map (b, d, h, w) of each resolution (strides 2, 4, 8, 16, 32).

        Raises:
            ValueError: The images do not fit, or attention maps are asked for.
        """
        if output_attentions:
            raise ValueError("EfficientNet has no attention maps; nexus.visualization.GradCAM shows where it looks.")
        features = self._run(images, keep=output_features)
        embeddings = self.pool_features(self.top(features[-1]))
        outputs: dict[str, Any] = {"logits": self.classify(embeddings), "embeddings": embeddings}
        if output_features:
            outputs["features"] = features
        return outputs

    def _run(self, images: Tensor, count: int | None = None, *, keep: bool = True) -> list[Tensor]:
        """Returns the last map of each resolution: the first `count`, or only the last of them unless `keep`."""
        check_images(images, self.config.in_channels)
        x = self.stem(images)
        features: list[Tensor] = []
        for stage, blocks in zip(self.config.stages, cast("list[nn.Sequential]", self.blocks)):
            if keep and stage.stride > 1:
                features.append(x)
                if len(features) == count:
                    return features
            x = collect(blocks, x, checkpointing=self.checkpointing, keep=False)[-1]
        return [*features, x]

    @property
    def num_features(self) -> int:
        return self.config.embed_dim

    @property
    def feature_info(self) -> FeatureInfo:
        rows = [("stem", self.config.stem_dim, 2)]
        for index, stage in enumerate(self.config.stages):
            row = (f"blocks.{index}", stage.out_dim, rows[-1][-1] * stage.stride)
            rows = [*rows, row] if stage.stride > 1 else [*rows[:-1], row]
        return FeatureInfo(rows)

    def forward_stages(self, images: Float[Tensor, "b c h w"], count: int | None = None) -> list[Tensor]:
        return self._run(images, count)

    def forward_features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return self.top(self._run(images, keep=False)[-1])

    def pool_features(self, features: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d"]:
        return reduce(features, "b d h w -> b d", "mean")

    def classify(self, embeddings: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        return self.head(self.head_drop(embeddings))

    @classmethod
    def config_from_hub(cls, mapping: Mapping[str, Any]) -> EfficientNetConfig:
        settings = ForeignSettings(mapping, builder="EfficientNet")
        settings.expect(
            hidden_act=("swish", "silu"), pooling_type="mean", depth_divisor=8, squeeze_expansion_ratio=0.25
        )
        # Of training; of the padding, which follows from the size here; of the head, which its shapes say.
        for key in [
            "drop_connect_rate",
            "batch_norm_momentum",
            "depthwise_padding",
            "image_size",
            "hidden_dim",
            "num_hidden_layers",
        ]:
            settings.get(key)
        widths = settings.integers("out_channels", (16, 24, 40, 80, 112, 192, 320), 1)
        settings.expect(in_channels=([32, *widths[:-1]], (32, *widths[:-1])))
        rows = zip(
            settings.integers("expand_ratios", (1, 6, 6, 6, 6, 6, 6), 1),
            settings.integers("kernel_sizes", (3, 3, 5, 3, 5, 5, 3), 1),
            settings.integers("strides", (1, 2, 2, 2, 1, 2, 1), 1),
            widths,
            settings.integers("num_block_repeats", (1, 2, 2, 3, 3, 4, 1), 1),
        )
        base = EfficientNetConfig(
            in_channels=settings.integer("num_channels", 3),
            num_classes=settings.num_head_classes(),
            stages=_stages(*(("mbconv", *row) for row in rows)),
            padding="same",
            norm_eps=settings.number("batch_norm_eps", 1e-3),
            norm_momentum=0.01,
            dropout=settings.number("dropout_rate", 0.5),
        )
        width, depth = settings.number("width_coefficient", 2.0), settings.number("depth_coefficient", 3.1)
        settings.finish()
        return scale(base, width, depth)


def scale(config: EfficientNetConfig, width: float, depth: float, *, round_limit: float = 0.9) -> EfficientNetConfig:
    """Returns the network with its widths and numbers of blocks multiplied (EfficientNet, Eq. 3).

    Args:
        config: The small network.
        width: Factor of channels, which are rounded to multiples of 8.
        depth: Factor of blocks per stage, rounded up.
        round_limit: Rounding takes no channels below this share of the product.
    """

    def channels(base: int) -> int:
        rounded = max(8, int(base * width + 4) // 8 * 8)
        return rounded + 8 if rounded < round_limit * base * width else rounded

    stages = tuple(
        stage.replace(out_dim=channels(stage.out_dim), num_layers=math.ceil(stage.num_layers * depth))
        for stage in config.stages
    )
    return config.replace(stem_dim=channels(config.stem_dim), stages=stages, embed_dim=channels(config.embed_dim))


EfficientNet.hub_types = ("efficientnet",)
EfficientNet.formats = FORMATS

_SCALES = {  # width, depth and dropout (of EfficientNet's code; the paper gives the rule)
    "b0": (1.0, 1.0, 0.2),
    "b1": (1.0, 1.1, 0.2),
    "b2": (1.1, 1.2, 0.3),
    "b3": (1.2, 1.4, 0.3),
    "b4": (1.4, 1.8, 0.4),
    "b5": (1.6, 2.2, 0.4),
    "b6": (1.8, 2.6, 0.5),
    "b7": (2.0, 3.1, 0.5),
    "b8": (2.2, 3.6, 0.5),
    "l2": (4.3, 5.3, 0.5),
}
_V2 = {  # stem, dropout, then expansion, stride, width and blocks of each stage (EfficientNetV2, Table 4, and its code)
    "s": (24, 0.2, "1 1 24 2, 4 2 48 4, 4 2 64 4, 4 2 128 6, 6 1 160 9, 6 2 256 15"),
    "m": (24, 0.3, "1 1 24 3, 4 2 48 5, 4 2 80 5, 4 2 160 7, 6 1 176 14, 6 2 304 18, 6 1 512 5"),
    "l": (32, 0.4, "1 1 32 4, 4 2 64 7, 4 2 96 7, 4 2 192 10, 6 1 224 19, 6 2 384 25, 6 1 640 7"),
    "xl": (32, 0.5, "1 1 32 4, 4 2 64 8, 4 2 96 8, 4 2 192 16, 6 1 256 24, 6 2 512 32, 6 1 640 8"),
    "b0": (32, 0.2, "1 1 16 1, 4 2 32 2, 4 2 48 2, 4 2 96 3, 6 1 112 5, 6 2 192 8"),
}
_LITE = {  # width, depth and dropout
    "lite0": (1.0, 1.0, 0.2),
    "lite1": (1.0, 1.1, 0.2),
    "lite2": (1.1, 1.2, 0.3),
    "lite3": (1.2, 1.4, 0.3),
    "lite4": (1.4, 1.8, 0.3),
}
_TENSORFLOW: dict[str, Any] = {"padding": "same", "norm_eps": 1e-3, "norm_momentum": 0.01}


def _lite(width: float, depth: float, dropout: float) -> EfficientNetConfig:
    """Stem, last convolution and the depth of the first and last stage do not grow with the rest."""
    base = EfficientNetConfig(activation="relu6", squeeze_excite=False, dropout=dropout)
    first, *middle, last = scale(base, width, depth).stages
    ends = (stage.replace(num_layers=start.num_layers) for stage, start in ((first, _B0[0]), (last, _B0[-1])))
    return base.replace(stages=(next(ends), *middle, next(ends)))


def _v2(size: str) -> EfficientNetConfig:
    stem_dim, dropout, table = _V2[size]
    rows = []
    for index, row in enumerate(table.split(", ")):
        expand_ratio, stride, out_dim, num_layers = map(int, row.split())
        rows.append(("fused" if index < 3 else "mbconv", expand_ratio, 3, stride, out_dim, num_layers))
    return EfficientNetConfig(stem_dim=stem_dim, stages=_stages(*rows), dropout=dropout, norm_eps=1e-3)


def _variants() -> dict[str, EfficientNetConfig]:
    """PyTorch's own weights have symmetric padding; those of the authors, named `tf_`, have TensorFlow's."""
    variants = {}
    for size, (width, depth, dropout) in _SCALES.items():
        config = scale(EfficientNetConfig(dropout=dropout), width, depth)
        if size in ("b5", "b6", "b7"):
            variants[f"efficientnet_{size}"] = config.replace(norm_eps=1e-3, norm_momentum=0.01)
        elif size not in ("b8", "l2"):
            variants[f"efficientnet_{size}"] = config
        variants[f"tf_efficientnet_{size}"] = config.replace(**_TENSORFLOW)
    for size, scales in _LITE.items():
        if size == "lite0":
            variants[f"efficientnet_{size}"] = _lite(*scales)
        variants[f"tf_efficientnet_{size}"] = _lite(*scales).replace(**_TENSORFLOW)
    for size in ("s", "m", "l", "xl"):
        if size != "xl":
            variants[f"efficientnet_v2_{size}"] = _v2(size)
        variants[f"tf_efficientnetv2_{size}"] = _v2(size).replace(**_TENSORFLOW)
    base = _v2("b0").replace(**_TENSORFLOW)
    for size in ("b0", "b1", "b2", "b3"):
        variants[f"tf_efficientnetv2_{size}"] = scale(base, *_SCALES[size][:2], round_limit=0)
    return variants


VARIANTS = _variants()
