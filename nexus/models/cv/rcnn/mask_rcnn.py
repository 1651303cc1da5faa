"""Mask R-CNN: Faster R-CNN that also outlines each object.

He et al., "Mask R-CNN", 2017. https://arxiv.org/abs/1703.06870

Dims: b images, d width of a level, n boxes, k classes, s side of a small mask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.layers.detector_input import Size, Target
from nexus.layers.fpn import conv_norm
from nexus.models.cv.rcnn.faster_rcnn import V2, box_stage
from nexus.models.cv.rcnn.parts import Branch, Detections, Samples
from nexus.models.cv.rcnn.rcnn import RCNN, RCNNConfig
from nexus.models.cv.rcnn.roi_heads import PoolConfig, pool_regions
from nexus.ops.boxes import full_precision
from nexus.ops.masks import paste_masks
from nexus.ops.roi import roi_align


@dataclass(frozen=True, kw_only=True)
class MaskHeadConfig(Config):
    """The network on each detected box (Fig. 4, right).

    Attributes:
        pool: How a box is read.
        num_convs: 3x3 convolutions.
        hidden_dim: Their width.
        norm: Batch normalization after each.
        background: A map for the background too, which nothing reads; torchvision's files have it.
        binary_targets: Pooled masks of objects are rounded to 0 and 1 before the loss (mmdetection), not kept soft.
    """

    pool: PoolConfig = PoolConfig(size=14)
    num_convs: int = 4
    hidden_dim: int = 256
    norm: bool = False
    background: bool = True
    binary_targets: bool = False


@dataclass(frozen=True, kw_only=True)
class MaskRCNNConfig(RCNNConfig):
    """Defaults are ResNet-50 with a feature pyramid.

    Attributes:
        mask_head: Network on each detected box.
    """

    mask_head: MaskHeadConfig = MaskHeadConfig()


class MaskHead(Branch):
    """A small mask for each class in each box; the class of the box says which one counts (Sec. 3)."""

    target_key = "masks"

    def __init__(self, config: MaskHeadConfig, dim: int, num_classes: int) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_dim
        self.convs = nn.Sequential(
            *[
                conv_norm(width if index else dim, width, 3, norm=config.norm, act=True)
                for index in range(config.num_convs)
            ]
        )
        self.upsample = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.logits = nn.Conv2d(width, num_classes + config.background, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self, levels: Sequence[Tensor], boxes: Sequence[Float[Tensor, "_ 4"]], labels: Int[Tensor, " n"]
    ) -> Float[Tensor, "n s s"]:
        """Returns logits of the masks of boxes; `labels` count classes of objects from 0."""
        x = self.convs(pool_regions(levels, boxes, self.config.pool))
        maps = full_precision(self.logits(F.relu(self.upsample(x))))
        return maps[torch.arange(len(labels), device=labels.device), labels + self.config.background]

    def losses(
        self, levels: Sequence[Tensor], samples: Sequence[Sequence[Samples]], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Returns the loss `mask`, cross-entropy of every pixel (Sec. 3)."""
        return {"mask": self.stage_loss(levels, samples[-1], targets)}

    def stage_loss(self, levels: Sequence[Tensor], samples: Sequence[Samples], targets: Sequence[Target]) -> Tensor:
        """Returns the loss on the positive samples of one stage."""
        positive = [sample.positive() for sample in samples]
        boxes = [sample.boxes for sample in positive]
        logits = self(levels, boxes, torch.cat([sample.labels for sample in positive]) - 1)
        wanted = torch.cat([self._crop(target, part, logits) for target, part in zip(targets, positive)])
        if not len(logits):
            return logits.sum()
        return F.binary_cross_entropy_with_logits(logits, wanted)

    def _crop(self, target: Target, samples: Samples, like: Tensor) -> Float[Tensor, "n s s"]:
        """Reads the masks of objects inside the sampled boxes."""
        masks = target["masks"]
        if masks.ndim != 3:
            raise ValueError(f"masks of a target have the shape {tuple(masks.shape)}; they must be (n, h, w).")
        if not len(masks):
            return like.new_zeros(0, *like.shape[-2:])
        size, aligned = (like.shape[-2], like.shape[-1]), self.config.pool.aligned
        crops = roi_align(masks[:, None].to(like), samples.boxes, samples.objects, size, aligned=aligned)[:, 0]
        return (crops >= 0.5).to(like) if self.config.binary_targets else crops

    def predict(
        self, levels: Sequence[Tensor], detections: Sequence[Detections], image_sizes: Sequence[Size]
    ) -> dict[str, list[Tensor]]:
        """Returns `mask_crops` (n, s, s), probabilities inside each box, and `masks` (n, h, w), in the image."""
        boxes = [found.boxes for found in detections]
        logits = self(levels, boxes, torch.cat([found.labels for found in detections]))
        return pasted(logits.sigmoid(), boxes, image_sizes)


def pasted(crops: Tensor, boxes: Sequence[Tensor], image_sizes: Sequence[Size]) -> dict[str, list[Tensor]]:
    """Returns the small masks of a batch image by image, and in their images."""
    parts = list(crops.split([len(part) for part in boxes]))
    masks = [paste_masks(part, image_boxes, size) for part, image_boxes, size in zip(parts, boxes, image_sizes)]
    return {"mask_crops": parts, "masks": masks}


class MaskRCNN(RCNN):
    """Detector that outlines objects. `config` is a `MaskRCNNConfig` or a mapping of its fields.

    Targets also need `masks` (n, h, w), 0 or 1, of the size of their image.
    """

    config: MaskRCNNConfig

    def __init__(self, config: MaskRCNNConfig | Mapping[str, Any]) -> None:
        config = config if isinstance(config, MaskRCNNConfig) else MaskRCNNConfig.from_mapping(config)
        masks = MaskHead(config.mask_head, config.pyramid_dim, config.num_classes)
        super().__init__(config, box_stage(config), {"masks": masks})


VARIANTS = {
    "maskrcnn_resnet50_fpn": MaskRCNNConfig(num_classes=90),
    "maskrcnn_resnet50_fpn_v2": MaskRCNNConfig(num_classes=90, mask_head=MaskHeadConfig(norm=True)).replace(**V2),
}
