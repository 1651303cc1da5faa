"""Keypoint R-CNN: Faster R-CNN for people that also finds their joints.

He et al., "Mask R-CNN", 2017, Sec. 5. https://arxiv.org/abs/1703.06870

Dims: b images, n boxes, j keypoints, s side of a heatmap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.layers.detector_input import Size, Target
from nexus.models.cv.rcnn.faster_rcnn import box_stage
from nexus.models.cv.rcnn.parts import Branch, Detections, Samples
from nexus.models.cv.rcnn.rcnn import RCNN, RCNNConfig
from nexus.models.cv.rcnn.roi_heads import PoolConfig, pool_regions
from nexus.ops.boxes import full_precision


@dataclass(frozen=True, kw_only=True)
class KeypointHeadConfig(Config):
    """The network on each detected box.

    Attributes:
        num_keypoints: Joints of a person; COCO has 17.
        pool: How a box is read.
        num_convs: 3x3 convolutions.
        hidden_dim: Their width.
    """

    num_keypoints: int = 17
    pool: PoolConfig = PoolConfig(size=14)
    num_convs: int = 8
    hidden_dim: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_keypoints < 1:
            raise ValueError(f"num_keypoints is {self.num_keypoints}; it must be at least 1.")


@dataclass(frozen=True, kw_only=True)
class KeypointRCNNConfig(RCNNConfig):
    """Defaults are ResNet-50 with a feature pyramid, for people.

    Attributes:
        keypoint_head: Network on each detected box.
    """

    num_classes: int = 1
    keypoint_head: KeypointHeadConfig = KeypointHeadConfig()


class KeypointHead(Branch):
    """A heatmap of each keypoint in each box, four times as fine as the pooled box (Sec. 5)."""

    target_key = "keypoints"

    def __init__(self, config: KeypointHeadConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        for index in range(config.num_convs):
            layers.append(nn.Conv2d(config.hidden_dim if index else dim, config.hidden_dim, 3, padding=1))
            layers.append(nn.ReLU(inplace=True))
        self.convs = nn.Sequential(*layers)
        self.heatmaps = nn.ConvTranspose2d(config.hidden_dim, config.num_keypoints, 4, stride=2, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, levels: Sequence[Tensor], boxes: Sequence[Float[Tensor, "_ 4"]]) -> Float[Tensor, "n j s s"]:
        x = full_precision(self.heatmaps(self.convs(pool_regions(levels, boxes, self.config.pool))))
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)

    def losses(
        self, levels: Sequence[Tensor], samples: Sequence[Sequence[Samples]], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Returns the loss `keypoint`: a softmax over the places of a heatmap, for each visible keypoint (Sec. 5)."""
        positive = [sample.positive() for sample in samples[-1]]
        logits = self(levels, [sample.boxes for sample in positive])
        places, counted = [], []
        for target, part in zip(targets, positive):
            self._check(target)
            place, inside = keypoint_places(
                target["keypoints"].to(part.boxes)[part.objects], part.boxes, logits.shape[-1]
            )
            places.append(place)
            counted.append(inside)
        use = torch.cat(counted)
        if not use.any():
            return {"keypoint": logits.sum() * 0}
        return {"keypoint": F.cross_entropy(logits.flatten(2)[use], torch.cat(places)[use])}

    def _check(self, target: Target) -> None:
        shape = tuple(target["keypoints"].shape)
        if len(shape) != 3 or shape[1:] != (self.config.num_keypoints, 3):
            raise ValueError(
                f"keypoints of a target have the shape {shape}; they must be (n, {self.config.num_keypoints}, 3): "
                "x and y in pixels, and 0 where the keypoint is not labelled."
            )

    def predict(
        self, levels: Sequence[Tensor], detections: Sequence[Detections], image_sizes: Sequence[Size]
    ) -> dict[str, list[Tensor]]:
        """Returns `keypoints` (n, j, 2), x and y in pixels, and `keypoint_scores` (n, j), logits."""
        boxes = [found.boxes for found in detections]
        heatmaps = self(levels, boxes).split([len(part) for part in boxes])
        found = [find_keypoints(maps, image_boxes) for maps, image_boxes in zip(heatmaps, boxes)]
        return {"keypoints": [points for points, _ in found], "keypoint_scores": [scores for _, scores in found]}


def keypoint_places(
    keypoints: Float[Tensor, "n j 3"], boxes: Float[Tensor, "n 4"], side: int
) -> tuple[Int[Tensor, "n j"], Bool[Tensor, "n j"]]:
    """Returns in which of the side * side places of its box each keypoint lies, and whether it counts.

    It counts if it is labelled and inside. A keypoint on the right or lower border belongs to the last place.
    """
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    cell = ((keypoints[..., :2] - low) * (side / (high - low))).floor().long()
    cell = torch.where(keypoints[..., :2] == high, side - 1, cell)
    counts = ((cell >= 0) & (cell < side)).all(-1) & (keypoints[..., 2] > 0)
    return (cell[..., 1] * side + cell[..., 0]) * counts, counts


def find_keypoints(
    heatmaps: Float[Tensor, "n j s s"], boxes: Float[Tensor, "n 4"]
) -> tuple[Float[Tensor, "n j 2"], Float[Tensor, "n j"]]:
    """Returns the highest place of each heatmap stretched to the pixels of its box (bicubic), and its value."""
    sizes = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    points, scores = [heatmaps.new_zeros(0, heatmaps.shape[1], 2)], [heatmaps.new_zeros(0, heatmaps.shape[1])]
    for maps, box, size in zip(heatmaps, boxes, sizes):
        width, height = (int(side) for side in size.ceil())
        fine = F.interpolate(maps[None], size=(height, width), mode="bicubic", align_corners=False)[0]
        score, place = fine.flatten(1).max(dim=1)
        pixel = torch.stack([place % width, place // width], dim=-1)
        points.append((box[:2] + (pixel + 0.5) * size / size.ceil())[None])
        scores.append(score[None])
    return torch.cat(points), torch.cat(scores)


class KeypointRCNN(RCNN):
    """Detector of people and their joints. `config` is a `KeypointRCNNConfig` or a mapping of its fields.

    Targets also need `keypoints` (n, j, 3): x and y in pixels, and 0 where a keypoint is not labelled.
    """

    config: KeypointRCNNConfig

    def __init__(self, config: KeypointRCNNConfig | Mapping[str, Any]) -> None:
        config = config if isinstance(config, KeypointRCNNConfig) else KeypointRCNNConfig.from_mapping(config)
        super().__init__(
            config, box_stage(config), {"keypoints": KeypointHead(config.keypoint_head, config.pyramid_dim)}
        )


VARIANTS = {"keypointrcnn_resnet50_fpn": KeypointRCNNConfig()}
