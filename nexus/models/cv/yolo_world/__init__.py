"""YOLO-World (Cheng et al., 2024): backbone, guided neck, and a head that compares places with texts."""

from nexus.models.cv.yolo_world.config import YOLOWorldConfig
from nexus.models.cv.yolo_world.yolo_world import YOLOWorld

__all__ = ["YOLOWorld", "YOLOWorldConfig"]
