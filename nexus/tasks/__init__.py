"""What a kind of model needs around it: batches, losses, metrics, results and their pictures."""

from nexus.tasks.classification import ClassificationTask, Prediction
from nexus.tasks.detection import DetectionTask
from nexus.tasks.detection.detections import Detection, Detections
from nexus.tasks.image_text import ImageTextTask
from nexus.tasks.masked_images import MaskedImageTask, Reconstruction
from nexus.tasks.protocol import ImageInfo, Metrics, Result, Task
from nexus.tasks.table import get_task, task_name
from nexus.tasks.tiles import Tiling

__all__ = [
    "ClassificationTask",
    "Detection",
    "DetectionTask",
    "Detections",
    "ImageInfo",
    "ImageTextTask",
    "MaskedImageTask",
    "Metrics",
    "Prediction",
    "Reconstruction",
    "Result",
    "Task",
    "Tiling",
    "get_task",
    "task_name",
]
