"""VGG.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2015.
https://arxiv.org/abs/1409.1556
The variants with batch normalization are torchvision's.

Stacks of 3x3 convolutions, halved five times, then three fully connected layers.

Dims: b batch, c channels, h w pixels, d width, k classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.core.formats import Format, State
from nexus.core.initialization import WeightInitMixin, init_vision_layer
from nexus.layers import check_images, collect
from nexus.models.cv.classifier import Classifier, make_head
from nexus.models.features import FeatureInfo

GRID = 7  # sides of the last map at 224 pixels, which the first fully connected layer reads


@dataclass(frozen=True, kw_only=True)
class VGGConfig(Config):
    """Defaults are VGG-16 (Table 1, column D).

    Attributes:
        num_layers: Convolutions in each of the five stages.
        num_classes: Outputs of the head; 0 leaves the head out, and `logits` are the embeddings.
        hidden_dim: Channels of the first stage; doubles at each stage, up to eight times as many.
        embed_dim: Width of the two hidden fully connected layers.
        batch_norm: Normalize after each convolution.
        dense: On maps larger than 7x7, slide the fully connected layers over the map and average the scores, as the
            paper evaluates (Sec. 3.2) and timm does. Otherwise the map is pooled to 7x7 first, as in torchvision.
        dropout: After each hidden fully connected layer.
    """

    num_layers: tuple[int, int, int, int, int] = (2, 2, 3, 3, 3)
    in_channels: int = 3
    num_classes: int = 1000
    hidden_dim: int = 64
    embed_dim: int = 4096
    batch_norm: bool = False
    dense: bool = False
    dropout: float = 0.5


class VGG(WeightInitMixin, Classifier):
    """Image classifier. `config` is a `VGGConfig` or a mapping of its fields. Both sides must be at least 32 pixels."""

    config: VGGConfig

    def __init__(self, config: VGGConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        config = self.config
        layers: list[nn.Module] = []
        self.stage_ends: list[int] = []
        width = config.in_channels
        for stage, num_convolutions in enumerate(config.num_layers):
            out_dim = config.hidden_dim * min(2**stage, 8)
            for _ in range(num_convolutions):
                layers.append(nn.Conv2d(width, out_dim, 3, padding=1))
                if config.batch_norm:
                    layers.append(nn.BatchNorm2d(out_dim))
                layers.append(nn.ReLU(inplace=True))
                width = out_dim
            layers.append(nn.MaxPool2d(2))
            self.stage_ends.append(len(layers))
        self.features = nn.Sequential(*layers)
        self.fc1 = nn.Linear(width * GRID * GRID, config.embed_dim)
        self.fc2 = nn.Linear(config.embed_dim, config.embed_dim)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(config.dropout)
        self.head = make_head(config.embed_dim, config.num_classes)
        self.init_weights_vision(std=0.01)  # Sec. 3.1

    def forward(
        self, images: Float[Tensor, "b c h w"], *, output_attentions: bool = False, output_features: bool = True
    ) -> dict[str, Any]:
        """Classifies normalized images.

        Args:
            images: Both sides at least 32 pixels.
            output_attentions: Must be False: there are none.
            output_features: Return `features`; without them inference needs less memory.

        Returns:
            `logits` (b, k), `embeddings` (b, d) the second hidden fully connected layer, and `features`: five maps
            (b, d, h, w), one after each stage and its pooling (strides 2, 4, 8, 16, 32).

        Raises:
            ValueError: The images do not fit, or attention maps are asked for.
        """
        if output_attentions:
            raise ValueError("VGG has no attention maps; nexus.visualization.GradCAM shows where it looks.")
        features = self._stages(images, keep=output_features)
        embeddings = self.pool_features(features[-1])
        outputs: dict[str, Any] = {"logits": self.head(embeddings), "embeddings": embeddings}
        if output_features:
            outputs["features"] = features
        return outputs

    @property
    def num_features(self) -> int:
        return self.config.hidden_dim * 8

    @property
    def head_hidden_size(self) -> int:
        return self.config.embed_dim

    @property
    def feature_info(self) -> FeatureInfo:
        """Each stage before its pooling, as timm has them, and the last after it."""
        width, ends = self.config.hidden_dim, self.stage_ends
        stages = [(f"features.{end - 2}", width * min(2**stage, 8), 2**stage) for stage, end in enumerate(ends)]
        return FeatureInfo([*stages, (f"features.{ends[-1] - 1}", self.num_features, 32)])

    def forward_stages(self, images: Float[Tensor, "b c h w"], count: int | None = None) -> list[Tensor]:
        return self._stages(images, count)

    def forward_features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return self._stages(images, keep=False)[-1]

    def forward_maps(self, images: Float[Tensor, "b c h w"], count: int | None = None) -> list[Tensor]:
        steps = [part for start, end in self._bounds() for part in ((start, end - 1), (end - 1, end))]
        runs = [partial(self._run, *step) for step in steps[: None if count is None else 2 * count - 1]]
        done = collect(runs, self._checked(images), checkpointing=self.checkpointing)
        return [*done[::2], *done[9:]]

    def init_head(self, head: nn.Module) -> None:
        init_vision_layer(head, std=0.01)

    def _stages(self, images: Tensor, count: int | None = None, *, keep: bool = True) -> list[Tensor]:
        """Returns the maps after each pooling: the first `count`, or only the last of them unless `keep`."""
        stages = [partial(self._run, start, end) for start, end in self._bounds()[:count]]
        return collect(stages, self._checked(images), checkpointing=self.checkpointing, keep=keep)

    def _bounds(self) -> list[tuple[int, int]]:
        return list(zip([0, *self.stage_ends[:-1]], self.stage_ends))

    def _checked(self, images: Tensor) -> Tensor:
        check_images(images, self.config.in_channels)
        if min(images.shape[-2:]) < 32:
            height, width = images.shape[-2:]
            raise ValueError(
                f"images are {height}x{width} pixels; VGG halves them five times, so both sides must be at least 32."
            )
        return images

    def _run(self, start: int, end: int, x: Tensor) -> Tensor:
        for index in range(start, end):
            x = self.features[index](x)
        return x

    def pool_features(self, features: Float[Tensor, "b d h w"]) -> Float[Tensor, "b e"]:
        """Runs the two hidden fully connected layers."""
        x = features
        if self.config.dense and min(x.shape[-2:]) > GRID:
            weight = rearrange(self.fc1.weight, "e (d h w) -> e d h w", h=GRID, w=GRID)
            x = rearrange(F.conv2d(x, weight, self.fc1.bias), "b e h w -> b h w e")
            x = self.drop(self.act(self.fc2(self.drop(self.act(x)))))
            return reduce(x, "b h w e -> b e", "mean")
        x = F.adaptive_avg_pool2d(x, GRID).flatten(1)
        x = self.drop(self.act(self.fc1(x)))
        return self.drop(self.act(self.fc2(x)))


def _flatten_convolutions(state: State) -> State:
    """timm holds the fully connected layers as convolutions of 7x7 and 1x1."""
    return {key: value.flatten(1) if key.startswith(("fc1.w", "fc2.w")) else value for key, value in state.items()}


VGG.formats = (
    Format(
        "torchvision",
        detect=r"^classifier\.0\.",
        rename={r"^classifier\.0\.": "fc1.", r"^classifier\.3\.": "fc2.", r"^classifier\.6\.": "head."},
    ),
    Format(
        "timm",
        detect=r"^pre_logits\.fc1\.",
        rename={r"^pre_logits\.": "", r"^head\.fc\.": "head."},
        convert=_flatten_convolutions,
    ),
)

_DEPTHS = {  # Table 1, columns A, B, D and E
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
VARIANTS = {
    f"{name}{suffix}": VGGConfig(num_layers=depths, batch_norm=bool(suffix))
    for name, depths in _DEPTHS.items()
    for suffix in ("", "_bn")
}
