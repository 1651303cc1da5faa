"""Detection data: annotated images, their file formats, and transforms that carry boxes, masks and keypoints."""

from nexus.data.detection.check import check_annotations, read_annotations
from nexus.data.detection.coco import read_coco, write_coco
from nexus.data.detection.convert import convert
from nexus.data.detection.digit_scenes import DigitScenes
from nexus.data.detection.rle import RLE
from nexus.data.detection.scene import (
    AnnotatedFiles,
    Annotations,
    DetectionDataset,
    DetectionSample,
    Fault,
    Object,
    Polygons,
    Scene,
)
from nexus.data.detection.voc import read_voc, write_voc
from nexus.data.detection.yolo import read_yolo, write_yolo

__all__ = [
    "RLE",
    "AnnotatedFiles",
    "Annotations",
    "DetectionDataset",
    "DetectionSample",
    "DigitScenes",
    "Fault",
    "Object",
    "Polygons",
    "Scene",
    "check_annotations",
    "convert",
    "read_annotations",
    "read_coco",
    "read_voc",
    "read_yolo",
    "write_coco",
    "write_voc",
    "write_yolo",
]
