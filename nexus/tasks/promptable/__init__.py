"""Promptable segmentation: masks for points, boxes and masks, or of everything in an image."""

from nexus.tasks.promptable.everything import Everything
from nexus.tasks.promptable.scan import scan
from nexus.tasks.promptable.segments import Segment, Segments
from nexus.tasks.promptable.task import PromptableTask
from nexus.tasks.promptable.volumes import Carrying, SliceBox, segment_volume

TASK = PromptableTask
COMMANDS = {"scan": scan}

__all__ = [
    "COMMANDS",
    "TASK",
    "Carrying",
    "Everything",
    "PromptableTask",
    "Segment",
    "Segments",
    "SliceBox",
    "segment_volume",
]
