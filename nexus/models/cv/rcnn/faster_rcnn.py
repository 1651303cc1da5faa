"""Faster R-CNN with a feature pyramid.

Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks", 2015.
https://arxiv.org/abs/1506.01497
Lin et al., "Feature Pyramid Networks for Object Detection", 2017. https://arxiv.org/abs/1612.03144
Li et al., "Benchmarking Detection Transfer Learning with Vision Transformers", 2021 (the "v2" heads).
https://arxiv.org/abs/2111.11429

Dims: b images, n boxes, k classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nexus.core.formats import Format
from nexus.models.cv.rcnn.rcnn import RCNN, RCNNConfig
from nexus.models.cv.rcnn.roi_heads import BoxHeadConfig, BoxStage
from nexus.models.cv.rcnn.rpn import RPNConfig


@dataclass(frozen=True, kw_only=True)
class FasterRCNNConfig(RCNNConfig):
    """Fields of `RCNNConfig`; the defaults are ResNet-50 with a feature pyramid and two linear layers as the head."""


class FasterRCNN(RCNN):
    """Object detector of two stages. `config` is a `FasterRCNNConfig` or a mapping of its fields."""

    config: FasterRCNNConfig

    def __init__(self, config: FasterRCNNConfig | Mapping[str, Any]) -> None:
        config = config if isinstance(config, FasterRCNNConfig) else FasterRCNNConfig.from_mapping(config)
        super().__init__(config, box_stage(config))


def box_stage(config: RCNNConfig) -> BoxStage:
    """The second stage that a configuration describes."""
    return BoxStage(config.box_head, config.sampler, config.detect, config.pyramid_dim, config.num_classes)


TORCHVISION_NAMES = {
    r"^backbone\.fpn\.inner_blocks\.(\d)\.(weight|bias)$": r"backbone.fpn.lateral.\1.0.\2",  # files before 2022
    r"^backbone\.fpn\.layer_blocks\.(\d)\.(weight|bias)$": r"backbone.fpn.output.\1.0.\2",
    r"^backbone\.fpn\.inner_blocks\.": "backbone.fpn.lateral.",
    r"^backbone\.fpn\.layer_blocks\.": "backbone.fpn.output.",
    r"^rpn\.head\.conv\.(weight|bias)$": r"rpn.head.convs.0.0.\1",
    r"^rpn\.head\.conv\.": "rpn.head.convs.",
    r"^rpn\.head\.cls_logits\.": "rpn.head.objectness.",
    r"^rpn\.head\.bbox_pred\.": "rpn.head.deltas.",
    r"^roi_heads\.box_head\.fc6\.": "second_stage.head.layers.0.",
    r"^roi_heads\.box_head\.fc7\.": "second_stage.head.layers.2.",
    r"^roi_heads\.box_head\.5\.": "second_stage.head.layers.0.",
    r"^roi_heads\.box_head\.": "second_stage.head.convs.",
    r"^roi_heads\.box_predictor\.cls_score\.": "second_stage.head.scores.",
    r"^roi_heads\.box_predictor\.bbox_pred\.": "second_stage.head.deltas.",
    r"^roi_heads\.mask_head\.mask_fcn1\.": "branches.masks.convs.0.0.",
    r"^roi_heads\.mask_head\.mask_fcn2\.": "branches.masks.convs.1.0.",
    r"^roi_heads\.mask_head\.mask_fcn3\.": "branches.masks.convs.2.0.",
    r"^roi_heads\.mask_head\.mask_fcn4\.": "branches.masks.convs.3.0.",
    r"^roi_heads\.mask_head\.": "branches.masks.convs.",
    r"^roi_heads\.mask_predictor\.conv5_mask\.": "branches.masks.upsample.",
    r"^roi_heads\.mask_predictor\.mask_fcn_logits\.": "branches.masks.logits.",
    r"^roi_heads\.keypoint_head\.": "branches.keypoints.convs.",
    r"^roi_heads\.keypoint_predictor\.kps_score_lowres\.": "branches.keypoints.heatmaps.",
}

RCNN.head_prefixes = ("second_stage.head.scores.", "second_stage.head.deltas.", "branches.masks.logits.")
RCNN.formats = (Format("torchvision", detect=r"^roi_heads\.", rename=TORCHVISION_NAMES),)

V2 = {  # Li et al. 2021, Appendix A.2: normalization everywhere, a deeper first stage, four convolutions in the head
    "pyramid_norm": True,
    "rpn": RPNConfig(num_convs=2),
    "box_head": BoxHeadConfig(num_convs=4, num_layers=1),
}

VARIANTS = {
    "fasterrcnn_resnet50_fpn": FasterRCNNConfig(num_classes=90),
    "fasterrcnn_resnet50_fpn_v2": FasterRCNNConfig(num_classes=90).replace(**V2),
}
