"""A video that goes by frame by frame, with objects that are followed.

Dims: n objects, h w pixels of the frames as given.
"""

import re
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nexus.data.detection.rle import encode
from nexus.models.cv.sam2 import SAM2, Tracked, VideoSession
from nexus.tasks.session import OneByOne
from nexus.tasks.video_segmentation.asking import EXAMPLE, Asked
from nexus.tasks.video_segmentation.tracks import TrackedFrame, TrackedObject
from nexus.tasks.views import View


class FollowingSession(OneByOne):
    """Follows what is asked about from the frame on in which it is pointed at. Without questions it measures alone."""

    def __init__(self, task: Any, model: nn.Module, asked: Sequence[Asked] | None) -> None:
        super().__init__(task, model)
        self.asked, self.waiting = asked, list(asked or ())
        self.video: VideoSession | None = None
        self.size, self.count, self.last = (0, 0), 0, -1

    def push(self, view: View) -> TrackedFrame:
        """Returns the objects of the next frame.

        Raises:
            ValueError: Nothing is asked about, a prompt does not fit, or the frame has another size.
        """
        if self.asked is None:
            raise ValueError(f"A video is followed from prompts, and there are none; write {EXAMPLE}.")
        size, number = (view.info.height, view.info.width), _number_in(view.info.path, self.count)
        if self.video is None:
            self.size, self.video = size, VideoSession(cast("SAM2", self.model), size)
        if size != self.size:
            raise ValueError(
                f"{view.info.path} has {size[1]} x {size[0]} pixels, and the frames before it had {self.size[1]} x"
                f" {self.size[0]}; a video has one size."
            )
        assert isinstance(view.pixels, Tensor)
        tracked = self.video.push(view.pixels)
        while self.waiting and self.waiting[0].frame == number:
            one = self.waiting.pop(0)
            try:
                tracked = self.video.prompt(one.object_id, **one.places)
            except ValueError as error:
                raise ValueError(f"Object {one.object_id} in frame {number}: {error}") from error
        self.count, self.last = self.count + 1, number
        return TrackedFrame(view.info.path, number, *size, found_objects(tracked, size), view.info.image)

    def end(self) -> None:
        """Raises ValueError where an object is pointed at in a frame that did not come."""
        if self.waiting:
            one = self.waiting[0]
            raise ValueError(
                f"Object {one.object_id} is pointed at in frame {one.frame}, which never came: the video showed"
                f" {self.count} frames, the last of them number {self.last}."
            )


def _number_in(path: str, count: int) -> int:
    """The number that a frame has in its video, or among the pictures that were shown."""
    match = re.search(r"#(\d+)$", path)
    return int(match[1]) if match else count


def found_objects(tracked: Tracked, size: tuple[int, int]) -> tuple[TrackedObject, ...]:
    """Returns the objects of a frame of `size`, by their numbers."""
    masks = at_size(tracked.logits, size) > 0
    scores, presence = tracked.iou.tolist(), tracked.scores.sigmoid().tolist()
    rows = zip(tracked.object_ids, map(encode, masks.cpu().numpy()), scores, presence, strict=True)
    return tuple(sorted((TrackedObject(*row) for row in rows), key=lambda one: one.object_id))


def at_size(logits: Float[Tensor, "n low_h low_w"], size: tuple[int, int]) -> Float[Tensor, "n h w"]:
    """Returns logits of masks in pixels of the frame as given."""
    if not len(logits):
        return logits.new_zeros(0, *size)
    return F.interpolate(logits[None].float(), size=size, mode="bilinear", align_corners=False)[0]


def apart(logits: Float[Tensor, "n h w"]) -> Bool[np.ndarray, "n h w"]:
    """Returns masks none of which overlap: a pixel belongs to the object that is surest of it, if any is."""
    if not len(logits):
        return np.zeros(tuple(logits.shape), dtype=bool)
    best = logits.argmax(dim=0)
    own = torch.arange(len(logits), device=logits.device)[:, None, None] == best
    return ((logits > 0) & own).cpu().numpy()
