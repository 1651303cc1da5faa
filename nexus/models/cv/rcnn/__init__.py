"""The R-CNN family: a file for each stage of the figure, and one for each paper."""

from nexus.models.cv.rcnn.cascade_rcnn import CascadeRCNN, CascadeRCNNConfig
from nexus.models.cv.rcnn.faster_rcnn import FasterRCNN, FasterRCNNConfig
from nexus.models.cv.rcnn.keypoint_rcnn import KeypointRCNN, KeypointRCNNConfig
from nexus.models.cv.rcnn.mask_rcnn import MaskRCNN, MaskRCNNConfig

__all__ = [
    "CascadeRCNN",
    "CascadeRCNNConfig",
    "FasterRCNN",
    "FasterRCNNConfig",
    "KeypointRCNN",
    "KeypointRCNNConfig",
    "MaskRCNN",
    "MaskRCNNConfig",
]
