"""Video segmentation: objects that are pointed at in some frames are followed through all of them."""

from nexus.tasks.video_segmentation.task import VideoTask, follow_clips
from nexus.tasks.video_segmentation.tracks import TrackedFrame, TrackedObject

TASK = VideoTask
OFFERS = {"follow_clips": follow_clips}

__all__ = ["OFFERS", "TASK", "TrackedFrame", "TrackedObject", "VideoTask", "follow_clips"]
