"""Promptable segmentation: masks for points, boxes and masks, or of everything in an image."""

from nexus.tasks.promptable.everything import Everything
from nexus.tasks.promptable.segments import Segment, Segments
from nexus.tasks.promptable.task import PromptableTask

TASK = PromptableTask

__all__ = ["TASK", "Everything", "PromptableTask", "Segment", "Segments"]
