"""Cascade R-CNN: heads in a row, each trained on the better boxes of the one before it.

Cai and Vasconcelos, "Cascade R-CNN: Delving into High Quality Object Detection", 2018.
https://arxiv.org/abs/1712.00726
Masks: Cai and Vasconcelos, "Cascade R-CNN: High Quality Object Detection and Instance Segmentation", 2019, Fig. 8d.
https://arxiv.org/abs/1906.09756

Dims: b images, n regions of all images, k classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nexus.core.formats import Format, State
from nexus.layers.detector_input import Size, Target
from nexus.models.cv.rcnn.mask_rcnn import MaskHead, MaskHeadConfig, pasted
from nexus.models.cv.rcnn.parts import Branch, Detections, Samples, SecondStage
from nexus.models.cv.rcnn.rcnn import RCNN, RCNNConfig
from nexus.models.cv.rcnn.roi_heads import (
    BoxHead,
    BoxHeadConfig,
    PoolConfig,
    pool_regions,
    sample_proposals,
    select_detections,
)
from nexus.models.cv.rcnn.rpn import RPNConfig
from nexus.ops.boxes import clip_boxes

Weights4 = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class CascadeRCNNConfig(RCNNConfig):
    """Defaults are mmdetection's Cascade R-CNN with ResNet-50 and a feature pyramid.

    Attributes:
        stage_ious: From this overlap with an object on a box is positive, for each head (Sec. 4.2).
        stage_box_weights: Factors of the regressed (dx, dy, dw, dh), for each head; boxes get better, deltas smaller.
        stage_loss_weights: Of each head's losses.
        mask_head: A mask head for each stage; None detects boxes only.
    """

    rpn: RPNConfig = RPNConfig(rounded_anchors=False, strides=(4, 8, 16, 32, 64), bounded_shrinking=True, min_size=0.0)
    box_head: BoxHeadConfig = BoxHeadConfig(
        pool=PoolConfig(sampling_ratio=0, aligned=True),
        class_agnostic=True,
        bounded_shrinking=True,
        box_loss_beta=1.0,
    )
    stage_ious: tuple[float, ...] = (0.5, 0.6, 0.7)
    stage_box_weights: tuple[Weights4, ...] = (
        (1 / 0.1, 1 / 0.1, 1 / 0.2, 1 / 0.2),
        (1 / 0.05, 1 / 0.05, 1 / 0.1, 1 / 0.1),
        (1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067),
    )
    stage_loss_weights: tuple[float, ...] = (1.0, 0.5, 0.25)
    mask_head: MaskHeadConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        lengths = {len(self.stage_ious), len(self.stage_box_weights), len(self.stage_loss_weights)}
        if len(lengths) != 1 or not self.stage_ious:
            raise ValueError(
                f"stage_ious, stage_box_weights and stage_loss_weights have the lengths {len(self.stage_ious)}, "
                f"{len(self.stage_box_weights)} and {len(self.stage_loss_weights)}; each needs one value per stage."
            )
        if not self.box_head.class_agnostic:
            raise ValueError("box_head.class_agnostic is False; a cascade refines one box for all classes.")


class Cascade(SecondStage):
    """Box heads in a row (Fig. 3d)."""

    def __init__(self, config: CascadeRCNNConfig) -> None:
        super().__init__()
        self.limits, self.loss_weights = config.detect, config.stage_loss_weights
        self.samplers = [config.sampler.replace(positive_iou=iou, negative_iou=iou) for iou in config.stage_ious]
        self.heads = nn.ModuleList(
            [
                BoxHead(config.box_head.replace(box_weights=weights), config.pyramid_dim, config.num_classes)
                for weights in config.stage_box_weights
            ]
        )

    def losses(
        self,
        levels: Sequence[Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[Target],
        image_sizes: Sequence[Size],
    ) -> tuple[dict[str, Tensor], list[list[Samples]]]:
        """Returns the losses `classification_i` and `box_i` of each head, and the samples of each (Eq. 8)."""
        losses, stages = {}, []
        for number, (head, sampler, weight) in enumerate(zip(self._heads(), self.samplers, self.loss_weights), 1):
            samples = [sample_proposals(boxes, target, sampler) for boxes, target in zip(proposals, targets)]
            boxes = [sample.boxes for sample in samples]
            logits, deltas = head(pool_regions(levels, boxes, head.config.pool))
            classification, box = head.losses(logits, deltas, samples, targets)
            losses |= {f"classification_{number}": weight * classification, f"box_{number}": weight * box}
            stages.append(samples)
            refined = refine(head, deltas.detach(), boxes, image_sizes)
            # Objects come back at the next head by themselves; refined ones would be there twice.
            proposals = [part[~sample.given] for part, sample in zip(refined, samples)]
        return losses, stages

    def detect(
        self, levels: Sequence[Tensor], proposals: Sequence[Tensor], image_sizes: Sequence[Size]
    ) -> list[Detections]:
        """Returns the last head's boxes with the mean of all heads' logits as their scores."""
        boxes, votes = list(proposals), []
        for head in self._heads():
            logits, deltas = head(pool_regions(levels, boxes, head.config.pool))
            votes.append(logits)
            boxes = refine(head, deltas, boxes, image_sizes)
        scores = torch.stack(votes).mean(0).softmax(1).split([len(part) for part in boxes])
        return [
            select_detections(image_scores, image_boxes[:, None], size, self.limits)
            for image_scores, image_boxes, size in zip(scores, boxes, image_sizes)
        ]

    def _heads(self) -> list[BoxHead]:
        return [head for head in self.heads if isinstance(head, BoxHead)]


def refine(head: BoxHead, deltas: Tensor, boxes: Sequence[Tensor], image_sizes: Sequence[Size]) -> list[Tensor]:
    """Returns the boxes of each image, moved by a head's deltas and cut at the image's border."""
    moved = head.config.coder.decode(deltas[:, 0], torch.cat(list(boxes)))
    return [clip_boxes(part, size) for part, size in zip(moved.split([len(part) for part in boxes]), image_sizes)]


class CascadeMasks(Branch):
    """A mask head for each box head, trained on that head's boxes; detections get the mean of their masks."""

    target_key = "masks"

    def __init__(self, config: CascadeRCNNConfig) -> None:
        super().__init__()
        assert config.mask_head is not None
        self.loss_weights = config.stage_loss_weights
        self.heads = nn.ModuleList(
            [MaskHead(config.mask_head, config.pyramid_dim, config.num_classes) for _ in config.stage_ious]
        )

    def losses(
        self, levels: Sequence[Tensor], samples: Sequence[Sequence[Samples]], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Returns the losses `mask_i` of each head."""
        return {
            f"mask_{number}": weight * head.stage_loss(levels, stage, targets)
            for number, (head, weight, stage) in enumerate(zip(self._heads(), self.loss_weights, samples), 1)
        }

    def predict(
        self, levels: Sequence[Tensor], detections: Sequence[Detections], image_sizes: Sequence[Size]
    ) -> dict[str, list[Tensor]]:
        """Returns `mask_crops` (n, s, s), probabilities inside each box, and `masks` (n, h, w), in the image."""
        boxes = [found.boxes for found in detections]
        labels = torch.cat([found.labels for found in detections])
        crops = torch.stack([head(levels, boxes, labels).sigmoid() for head in self._heads()]).mean(0)
        return pasted(crops, boxes, image_sizes)

    def _heads(self) -> list[MaskHead]:
        return [head for head in self.heads if isinstance(head, MaskHead)]


class CascadeRCNN(RCNN):
    """Detector with a cascade of heads. `config` is a `CascadeRCNNConfig` or a mapping of its fields.

    With a `mask_head` it outlines objects too, and targets also need `masks` (n, h, w), 0 or 1.
    """

    config: CascadeRCNNConfig

    def __init__(self, config: CascadeRCNNConfig | Mapping[str, Any]) -> None:
        config = config if isinstance(config, CascadeRCNNConfig) else CascadeRCNNConfig.from_mapping(config)
        super().__init__(config, Cascade(config), {"masks": CascadeMasks(config)} if config.mask_head else {})


def background_first(state: State) -> State:
    """mmdetection's background is the last class; ours is the first."""
    return {
        key: value.roll(1, dims=0) if key.startswith("second_stage.heads.") and ".scores." in key else value
        for key, value in state.items()
    }


CascadeRCNN.head_prefixes = tuple(
    f"{part}.{stage}.{name}."
    for stage in range(3)
    for part, name in (("second_stage.heads", "scores"), ("branches.masks.heads", "logits"))
)
CascadeRCNN.formats = (
    Format(
        "mmdetection",
        detect=r"^roi_head\.bbox_head\.0\.",
        rename={
            r"^backbone\.": "backbone.body.",
            r"^neck\.lateral_convs\.(\d)\.conv\.": r"backbone.fpn.lateral.\1.0.",
            r"^neck\.fpn_convs\.(\d)\.conv\.": r"backbone.fpn.output.\1.0.",
            r"^rpn_head\.rpn_conv\.": "rpn.head.convs.0.0.",
            r"^rpn_head\.rpn_cls\.": "rpn.head.objectness.",
            r"^rpn_head\.rpn_reg\.": "rpn.head.deltas.",
            r"^roi_head\.bbox_head\.(\d)\.shared_fcs\.0\.": r"second_stage.heads.\1.layers.0.",
            r"^roi_head\.bbox_head\.(\d)\.shared_fcs\.1\.": r"second_stage.heads.\1.layers.2.",
            r"^roi_head\.bbox_head\.(\d)\.fc_cls\.": r"second_stage.heads.\1.scores.",
            r"^roi_head\.bbox_head\.(\d)\.fc_reg\.": r"second_stage.heads.\1.deltas.",
            r"^roi_head\.mask_head\.(\d)\.convs\.(\d)\.conv\.": r"branches.masks.heads.\1.convs.\2.0.",
            r"^roi_head\.mask_head\.(\d)\.upsample\.": r"branches.masks.heads.\1.upsample.",
            r"^roi_head\.mask_head\.(\d)\.conv_logits\.": r"branches.masks.heads.\1.logits.",
        },
        convert=background_first,
    ),
)

MASKS = MaskHeadConfig(pool=PoolConfig(size=14, sampling_ratio=0, aligned=True), background=False, binary_targets=True)
VARIANTS = {
    "cascadercnn_resnet50_fpn": CascadeRCNNConfig(num_frozen_stages=2),
    "cascadercnn_resnet101_fpn": CascadeRCNNConfig(num_frozen_stages=2, backbone="resnet101"),
    "cascademaskrcnn_resnet50_fpn": CascadeRCNNConfig(num_frozen_stages=2, mask_head=MASKS),
}
