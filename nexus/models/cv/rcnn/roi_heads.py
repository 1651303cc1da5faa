"""The second stage: proposals are pooled from the pyramid, classified, and their boxes refined.

Girshick, "Fast R-CNN", 2015. https://arxiv.org/abs/1504.08083
Lin et al., "Feature Pyramid Networks", 2017, Sec. 4.2 (which level a box is read from).

Inside, class 0 is the background, as in the paper; labels that come in or go out count objects from 0.

Dims: b images, d width of a level, n regions of all images, k object classes, s pooled side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.layers.detector_input import Size, Target
from nexus.layers.fpn import conv_norm
from nexus.models.cv.rcnn.parts import Detections, Samples, SecondStage
from nexus.models.cv.rcnn.pyramid import STRIDES
from nexus.ops.box_coder import BoxCoder
from nexus.ops.boxes import box_area, clip_boxes, full_precision, iou, is_large, pairwise
from nexus.ops.matching import BACKGROUND, match_by_iou, sample_balanced
from nexus.ops.nms import batched_nms
from nexus.ops.roi import roi_align

MIN_SIDE = 1e-2
"""Detections with a side below this many pixels are dropped."""


@dataclass(frozen=True, kw_only=True)
class PoolConfig(Config):
    """How regions are read from the pyramid.

    Attributes:
        size: Side of the pooled maps.
        sampling_ratio: Samples per bin and axis; 0 for as many as pixels.
        aligned: Without the half-pixel shift of the first code; see `nexus.ops.roi.roi_align`.
    """

    size: int = 7
    sampling_ratio: int = 2
    aligned: bool = False


@dataclass(frozen=True, kw_only=True)
class SamplerConfig(Config):
    """Which proposals of an image enter the loss.

    Attributes:
        positive_iou: From this overlap with an object on a proposal is positive.
        negative_iou: Below this overlap it is background.
        num_samples: Proposals of an image in the loss.
        positive_fraction: Largest share of positives among them.
    """

    positive_iou: float = 0.5
    negative_iou: float = 0.5
    num_samples: int = 512
    positive_fraction: float = 0.25


@dataclass(frozen=True, kw_only=True)
class DetectConfig(Config):
    """Which boxes of an image are detections.

    Attributes:
        min_score: Least score.
        nms_iou: Overlap above which the worse of two boxes of one class goes.
        max_detections: Most detections of an image.
    """

    min_score: float = 0.05
    nms_iou: float = 0.5
    max_detections: int = 100


@dataclass(frozen=True, kw_only=True)
class BoxHeadConfig(Config):
    """The network on each region. Defaults are torchvision's, which follow the FPN paper (Sec. 4.2).

    Attributes:
        pool: How a region is read.
        num_convs: 3x3 convolutions with batch normalization before the linear layers.
        num_layers: Linear layers before the two outputs.
        hidden_dim: Their width.
        box_weights: Factors of the regressed (dx, dy, dw, dh).
        box_loss_beta: Where the box loss turns from square to straight.
        bounded_shrinking: See `BoxCoder.bounded_below`.
        class_agnostic: One box for all classes rather than one for each.
    """

    pool: PoolConfig = PoolConfig()
    num_convs: int = 0
    num_layers: int = 2
    hidden_dim: int = 1024
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    box_loss_beta: float = 1 / 9
    bounded_shrinking: bool = False
    class_agnostic: bool = False

    @property
    def coder(self) -> BoxCoder:
        """The parametrization that boxes are regressed in."""
        return BoxCoder(self.box_weights, bounded_below=self.bounded_shrinking)


def pool_regions(
    levels: Sequence[Float[Tensor, "b d _ _"]], boxes: Sequence[Float[Tensor, "_ 4"]], config: PoolConfig
) -> Float[Tensor, "n d s s"]:
    """Reads every box from the level that fits its size, P2 to P5 (FPN, Eq. 1).

    Args:
        levels: The pyramid from P2 on.
        boxes: Of each image, in pixels.
        config: How.
    """
    flat = torch.cat(list(boxes))
    image = torch.cat([torch.full_like(part[:, 0], place, dtype=torch.long) for place, part in enumerate(boxes)])
    level = (4 + torch.log2(box_area(flat).sqrt() / 224) + 1e-6).floor().clamp(2, 5) - 2
    size = (config.size, config.size)
    options = {"sampling_ratio": config.sampling_ratio, "aligned": config.aligned}

    def read(place: int, members: Tensor) -> Tensor:
        return roi_align(
            levels[place], flat[members], image[members], size, spatial_scale=1 / STRIDES[place], **options
        )

    everything = torch.arange(len(flat), device=flat.device)
    if torch.compiler.is_exporting():  # sizes must not depend on values: all boxes from all levels, then a choice
        return torch.stack([read(place, everything) for place in range(len(STRIDES))])[level.long(), everything]
    order = level.argsort(stable=True)
    pooled = [levels[0].new_zeros(0, levels[0].shape[1], *size)]
    for place in range(len(STRIDES)):
        members = order[level[order] == place]
        if len(members):
            pooled.append(read(place, members))
    return torch.cat(pooled)[order.argsort()]


@torch.no_grad()
def sample_proposals(proposals: Float[Tensor, "n 4"], target: Target, config: SamplerConfig) -> Samples:
    """Draws from the proposals of an image, and from its objects themselves, those to train on."""
    objects = target["boxes"].to(proposals)
    proposals = torch.cat([proposals, objects])
    matches = match_by_iou(pairwise(iou, objects, proposals), config.positive_iou, config.negative_iou)
    chosen = torch.cat(
        sample_balanced(matches >= 0, matches == BACKGROUND, config.num_samples, config.positive_fraction)
    )
    given = torch.arange(len(proposals), device=proposals.device) >= len(proposals) - len(objects)
    proposals, matches = proposals[chosen], matches[chosen]
    labels = torch.zeros_like(matches)
    labels[matches >= 0] = target["labels"][matches[matches >= 0]].to(labels) + 1
    return Samples(proposals, labels, matches.clamp(min=0), given[chosen])


class BoxHead(nn.Module):
    """Convolutions and linear layers on a pooled region, then a score for each class and a box."""

    def __init__(self, config: BoxHeadConfig, dim: int, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.convs = nn.Sequential(*[conv_norm(dim, dim, 3, norm=True, act=True) for _ in range(config.num_convs)])
        width, layers = dim * config.pool.size**2, []
        for _ in range(config.num_layers):
            layers += [nn.Linear(width, config.hidden_dim), nn.ReLU(inplace=True)]
            width = config.hidden_dim
        self.layers = nn.Sequential(*layers)
        self.scores = nn.Linear(width, num_classes + 1)
        self.deltas = nn.Linear(width, 4 if config.class_agnostic else 4 * (num_classes + 1))
        for module in self.convs.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, regions: Float[Tensor, "n d s s"]) -> tuple[Float[Tensor, "n k1"], Float[Tensor, "n k2 4"]]:
        """Returns class logits, the background first, and deltas for each class (or one for all)."""
        x = self.layers(self.convs(regions).flatten(1))
        return full_precision(self.scores(x)), full_precision(self.deltas(x)).unflatten(1, (-1, 4))

    def losses(
        self, logits: Tensor, deltas: Tensor, samples: Sequence[Samples], targets: Sequence[Target]
    ) -> tuple[Tensor, Tensor]:
        """Returns the losses of classification and of boxes (Fast R-CNN, Eq. 1)."""
        labels = torch.cat([sample.labels for sample in samples])
        wanted = [
            self.config.coder.encode(target["boxes"].to(part.boxes)[part.objects], part.boxes)
            for part, target in zip((sample.positive() for sample in samples), targets)
        ]
        positive = (labels > 0).nonzero()[:, 0]
        found = deltas[positive, 0 if self.config.class_agnostic else labels[positive]]
        box = F.smooth_l1_loss(found, torch.cat(wanted), beta=self.config.box_loss_beta, reduction="sum")
        return F.cross_entropy(logits, labels), box / len(labels)


def select_detections(
    scores: Float[Tensor, "n k1"], boxes: Float[Tensor, "n k2 4"], image_size: Size, config: DetectConfig
) -> Detections:
    """Returns the detections of one image.

    Args:
        scores: Probability of each class, the background first.
        boxes: For each class, the background first, or one for all.
        image_size: (height, width); boxes are cut at its border.
        config: Limits.

    Raises:
        ValueError: A score is NaN.
    """
    if scores.isnan().any():
        raise ValueError("Class scores are NaN; the weights or the image hold values that are not finite.")
    region, label = (scores[:, 1:] > config.min_score).nonzero(as_tuple=True)
    boxes = clip_boxes(boxes[region, 0 if boxes.shape[1] == 1 else label + 1], image_size)
    found = scores[region, label + 1]
    large = is_large(boxes, MIN_SIDE)
    boxes, found, label = boxes[large], found[large], label[large]
    kept = batched_nms(boxes, found, label, config.nms_iou, max_boxes=config.max_detections)
    return Detections(boxes[kept], found[kept], label[kept])


class BoxStage(SecondStage):
    """One head on all proposals: the second stage of Faster R-CNN."""

    def __init__(
        self, head: BoxHeadConfig, sampler: SamplerConfig, detect: DetectConfig, dim: int, num_classes: int
    ) -> None:
        super().__init__()
        self.sampler, self.limits = sampler, detect
        self.head = BoxHead(head, dim, num_classes)

    def losses(
        self,
        levels: Sequence[Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[Target],
        image_sizes: Sequence[Size],
    ) -> tuple[dict[str, Tensor], list[list[Samples]]]:
        """Returns the losses `classification` and `box`, and the samples that they were taken on."""
        del image_sizes
        samples = [sample_proposals(boxes, target, self.sampler) for boxes, target in zip(proposals, targets)]
        logits, deltas = self.head(pool_regions(levels, [sample.boxes for sample in samples], self.head.config.pool))
        classification, box = self.head.losses(logits, deltas, samples, targets)
        return {"classification": classification, "box": box}, [samples]

    def detect(
        self, levels: Sequence[Tensor], proposals: Sequence[Tensor], image_sizes: Sequence[Size]
    ) -> list[Detections]:
        """Returns the detections of each image."""
        logits, deltas = self.head(pool_regions(levels, proposals, self.head.config.pool))
        boxes = self.head.config.coder.decode(deltas, torch.cat(list(proposals))[:, None])
        counts = [len(part) for part in proposals]
        return [
            select_detections(scores, image_boxes, size, self.limits)
            for scores, image_boxes, size in zip(logits.softmax(1).split(counts), boxes.split(counts), image_sizes)
        ]
