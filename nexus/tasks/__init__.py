"""What a kind of model needs around it: how data fits it, batches, losses, sessions, metrics, results, pictures.

A kind is a folder here and a line in `nexus.tasks.table`; all that depends on the kind stands in its folder, which is
imported when the kind is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "ClassificationTask": "nexus.tasks.classification",
    "Prediction": "nexus.tasks.classification",
    "Detection": "nexus.tasks.detection",
    "DetectionTask": "nexus.tasks.detection",
    "Detections": "nexus.tasks.detection",
    "ImageTextTask": "nexus.tasks.image_text",
    "MaskedImageTask": "nexus.tasks.masked_images",
    "Reconstruction": "nexus.tasks.masked_images",
    "Metrics": "nexus.tasks.protocol",
    "Result": "nexus.tasks.protocol",
    "Task": "nexus.tasks.protocol",
    "Report": "nexus.tasks.report",
    "Session": "nexus.tasks.session",
    "TASKS": "nexus.tasks.table",
    "find_task": "nexus.tasks.table",
    "get_task": "nexus.tasks.table",
    "task_name": "nexus.tasks.table",
    "task_of": "nexus.tasks.table",
    "Tiling": "nexus.tasks.tiles",
    "ImageInfo": "nexus.tasks.views",
    "View": "nexus.tasks.views",
}

__all__ = list(_HOMES)

if TYPE_CHECKING:
    from nexus.tasks.classification import ClassificationTask, Prediction
    from nexus.tasks.detection import Detection, Detections, DetectionTask
    from nexus.tasks.image_text import ImageTextTask
    from nexus.tasks.masked_images import MaskedImageTask, Reconstruction
    from nexus.tasks.protocol import Metrics, Result, Task
    from nexus.tasks.report import Report
    from nexus.tasks.session import Session
    from nexus.tasks.table import TASKS, find_task, get_task, task_name, task_of
    from nexus.tasks.tiles import Tiling
    from nexus.tasks.views import ImageInfo, View


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nexus.tasks' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
