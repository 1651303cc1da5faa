"""ResNet.

He et al., "Deep Residual Learning for Image Recognition", 2016. https://arxiv.org/abs/1512.03385
Bottlenecks carry the stride in their 3x3 convolution ("v1.5"), as all published weights do.

Dims: b batch, c channels, h w pixels, d width, k classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.core.foreign import ForeignSettings
from nexus.core.formats import Format
from nexus.core.initialization import WeightInitMixin
from nexus.layers import DropPath, check_images, collect, drop_path_rates
from nexus.models.cv.classifier import Classifier, make_head
from nexus.models.features import FeatureInfo


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(Config):
    """Defaults are ResNet-50 (Table 1).

    Attributes:
        block: "basic" is two 3x3 convolutions, "bottleneck" 1x1, 3x3, 1x1 with four times the width at its end.
        num_layers: Blocks in each of the four stages.
        num_classes: Outputs of the head; 0 leaves the head out, and `logits` are the embeddings.
        hidden_dim: Channels of the stem and of the 3x3 convolutions of the first stage; doubles at each stage.
        stem: "imagenet" is a 7x7 convolution of stride 2 and a 3x3 max pooling of stride 2; "cifar" one 3x3
            convolution of stride 1, for images of 32 pixels or so (Sec. 4.2).
        dropout: Before the head.
        drop_path_rate: Of the last block; rises linearly from 0 at the first.
    """

    block: Literal["basic", "bottleneck"] = "bottleneck"
    num_layers: tuple[int, int, int, int] = (3, 4, 6, 3)
    in_channels: int = 3
    num_classes: int = 1000
    hidden_dim: int = 64
    stem: Literal["imagenet", "cifar"] = "imagenet"
    dropout: float = 0.0
    drop_path_rate: float = 0.0


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (Fig. 5, left)."""

    expansion = 1

    def __init__(self, in_dim: int, hidden_dim: int, stride: int, drop_path: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_dim, hidden_dim, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden_dim)
        self.conv2 = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden_dim)
        self.act = nn.ReLU(inplace=True)
        self.drop_path = DropPath(drop_path)
        self.downsample = shortcut(in_dim, hidden_dim, stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        branch = self.act(self.bn1(self.conv1(x)))
        branch = self.drop_path(self.bn2(self.conv2(branch)))
        return self.act(branch.add_(self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (Fig. 5, right)."""

    expansion = 4

    def __init__(self, in_dim: int, hidden_dim: int, stride: int, drop_path: float) -> None:
        super().__init__()
        out_dim = hidden_dim * self.expansion
        self.conv1 = nn.Conv2d(in_dim, hidden_dim, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden_dim)
        self.conv2 = nn.Conv2d(hidden_dim, hidden_dim, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden_dim)
        self.conv3 = nn.Conv2d(hidden_dim, out_dim, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_dim)
        self.act = nn.ReLU(inplace=True)
        self.drop_path = DropPath(drop_path)
        self.downsample = shortcut(in_dim, out_dim, stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        branch = self.act(self.bn1(self.conv1(x)))
        branch = self.act(self.bn2(self.conv2(branch)))
        branch = self.conv3(branch)  # a line of its own: the map before it is not needed beside the next
        branch = self.drop_path(self.bn3(branch))
        return self.act(branch.add_(self.downsample(x)))


def shortcut(in_dim: int, out_dim: int, stride: int) -> nn.Module:
    """The identity where shapes agree, else a 1x1 convolution (option B of Sec. 3.3)."""
    if stride == 1 and in_dim == out_dim:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_dim, out_dim, 1, stride, bias=False), nn.BatchNorm2d(out_dim))


class ResNet(WeightInitMixin, Classifier):
    """Image classifier. `config` is a `ResNetConfig` or a mapping of its fields. Images may have any size."""

    config: ResNetConfig
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, config: ResNetConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        config = self.config
        width, small = config.hidden_dim, config.stem == "cifar"
        self.conv1 = nn.Conv2d(
            config.in_channels, width, 3 if small else 7, 1 if small else 2, padding=1 if small else 3, bias=False
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        block = BasicBlock if config.block == "basic" else Bottleneck
        rates = iter(drop_path_rates(config.drop_path_rate, sum(config.num_layers)))
        stages, in_dim = [], width
        for stage, num_blocks in enumerate(config.num_layers):
            blocks: list[nn.Module] = []
            for index in range(num_blocks):
                stride = 2 if stage and not index else 1
                blocks.append(block(in_dim, width * 2**stage, stride, next(rates)))
                in_dim = width * 2**stage * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.head_drop = nn.Dropout(config.dropout)
        self.head = make_head(in_dim, config.num_classes)
        self.init_weights_vision()

    def forward(
        self, images: Float[Tensor, "b c h w"], *, output_attentions: bool = False, output_features: bool = True
    ) -> dict[str, Any]:
        """Classifies normalized images.

        Args:
            images: Any size.
            output_attentions: Must be False: there are none.
            output_features: Return `features`; without them inference needs less memory.

        Returns:
            `logits` (b, k), `embeddings` (b, d) the mean over all places, and `features`: five maps (b, d, h, w), the
            stem's before pooling (c1, stride 2) and those of the four stages (c2 to c5, strides 4, 8, 16, 32).

        Raises:
            ValueError: The images do not fit, or attention maps are asked for.
        """
        if output_attentions:
            raise ValueError("ResNet has no attention maps; nexus.visualization.GradCAM shows where it looks.")
        features = self._run(images, keep=output_features)
        embeddings = self.pool_features(features[-1])
        outputs: dict[str, Any] = {"logits": self.classify(embeddings), "embeddings": embeddings}
        if output_features:
            outputs["features"] = features
        return outputs

    def _run(self, images: Tensor, count: int | None = None, *, keep: bool = True) -> list[Tensor]:
        """Returns the maps c1, c2, ...: the first `count`, or only the last of them unless `keep`."""
        check_images(images, self.config.in_channels)
        x = self.act(self.bn1(self.conv1(images)))
        features = [x] if keep else []
        x = x if count == 1 else self.maxpool(x)
        for stage in self.stages[: None if count is None else count - 1]:
            x = collect(stage, x, checkpointing=self.checkpointing, keep=False)[-1]
            if keep:
                features.append(x)
        return features or [x]

    @property
    def num_features(self) -> int:
        return self.config.hidden_dim * 8 * (4 if self.config.block == "bottleneck" else 1)

    @property
    def feature_info(self) -> FeatureInfo:
        width, first, stem = self.config.hidden_dim, self.num_features // 8, 1 if self.config.stem == "cifar" else 2
        stride = stem if self.config.stem == "cifar" else 2 * stem
        stages = ((f"layer{stage + 1}", first * 2**stage, stride * 2**stage) for stage in range(4))
        return FeatureInfo([("act", width, stem), *stages])

    def forward_stages(self, images: Float[Tensor, "b c h w"], count: int | None = None) -> list[Tensor]:
        return self._run(images, count)

    def forward_features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return self._run(images, keep=False)[-1]

    def pool_features(self, features: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d"]:
        return reduce(features, "b d h w -> b d", "mean")

    def classify(self, embeddings: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        return self.head(self.head_drop(embeddings))

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        """The four stages, each a sequence of blocks."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    @classmethod
    def config_from_hub(cls, mapping: Mapping[str, Any]) -> ResNetConfig:
        settings = ForeignSettings(mapping, builder="ResNet")
        settings.expect(hidden_act="relu", downsample_in_bottleneck=False, downsample_in_first_stage=False)
        settings.expect(layer_type=("bottleneck", "basic"))
        block = "basic" if settings.text("layer_type", "bottleneck") == "basic" else "bottleneck"
        stem = settings.integer("embedding_size", 64, 1)
        first = stem * (4 if block == "bottleneck" else 1)
        widths = settings.integers("hidden_sizes", (256, 512, 1024, 2048))
        if widths != tuple(first * 2**stage for stage in range(4)):
            raise settings.refuse("hidden_sizes", f"ResNet doubles its width {first} at each of four stages")
        config = ResNetConfig(
            block=block,
            num_layers=settings.integers("depths", (3, 4, 6, 3), 1),  # pyrefly: ignore[bad-argument-type]
            in_channels=settings.integer("num_channels", 3),
            num_classes=settings.num_head_classes(),
            hidden_dim=stem,
        )
        settings.finish()
        return config


ResNet.hub_types = ("resnet",)
ResNet.formats = (
    Format("torchvision", detect=r"^fc\.", rename={r"^fc\.": "head."}),  # timm's names are the same
    Format(
        "hub",
        detect=r"^(resnet\.)?embedder\.embedder\.",
        rename={
            r"^resnet\.": "",
            r"^embedder\.embedder\.convolution\.": "conv1.",
            r"^embedder\.embedder\.normalization\.": "bn1.",
            **{rf"^encoder\.stages\.{stage}\.layers\.": f"layer{stage + 1}." for stage in range(4)},
            r"\.shortcut\.convolution\.": ".downsample.0.",
            r"\.shortcut\.normalization\.": ".downsample.1.",
            **dict(
                chain.from_iterable(
                    (
                        (rf"\.layer\.{n}\.convolution\.", f".conv{n + 1}."),
                        (rf"\.layer\.{n}\.normalization\.", f".bn{n + 1}."),
                    )
                    for n in range(3)
                )
            ),
            r"^classifier\.1\.": "head.",
        },
    ),
)

VARIANTS = {  # Table 1
    "resnet18": ResNetConfig(block="basic", num_layers=(2, 2, 2, 2)),
    "resnet34": ResNetConfig(block="basic", num_layers=(3, 4, 6, 3)),
    "resnet50": ResNetConfig(),
    "resnet101": ResNetConfig(num_layers=(3, 4, 23, 3)),
    "resnet152": ResNetConfig(num_layers=(3, 8, 36, 3)),
}
