"""Detection: objects with boxes, and masks or keypoints where the model has them."""

from nexus.tasks.detection.coco_figures import CocoFigures, Found, coco_figures
from nexus.tasks.detection.coco_results import evaluate_coco
from nexus.tasks.detection.detections import Detection, Detections
from nexus.tasks.detection.report import DetectionEvaluation
from nexus.tasks.detection.task import DetectionTask

TASK = DetectionTask
OFFERS = {"DetectionEvaluation": DetectionEvaluation, "evaluate_coco": evaluate_coco}
"""What evaluation has of this kind alone."""

__all__ = [
    "TASK",
    "CocoFigures",
    "Detection",
    "DetectionEvaluation",
    "DetectionTask",
    "Detections",
    "Found",
    "coco_figures",
    "evaluate_coco",
]
