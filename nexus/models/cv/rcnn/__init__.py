"""The R-CNN family: a file for each stage of the figure, and one for each paper."""

from nexus.models.cv.rcnn.faster_rcnn import FasterRCNN, FasterRCNNConfig

__all__ = ["FasterRCNN", "FasterRCNNConfig"]
