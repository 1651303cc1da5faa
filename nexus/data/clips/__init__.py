"""Clips: videos whose objects have a mask in each frame, made on the spot or read from files."""

from nexus.data.clips.clip import Clip
from nexus.data.clips.digit_videos import DigitVideos
from nexus.data.clips.folders import ClipFolder

__all__ = ["Clip", "ClipFolder", "DigitVideos"]
