"""What a clip is: frames, and which object each pixel of them belongs to.

Dims: n objects, h w pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Bool, UInt8

from nexus.data.images import Image

Ids = UInt8[np.ndarray, "h w"]
"""Number of the object that each pixel belongs to; 0 where there is none."""


class Clip(Protocol):
    """A short video with the visible part of each object. Frames and masks are made when they are asked for.

    Attributes:
        path: The folder of its frames, or a place such as "digit-videos/val[3]".
        size: Height and width of the frames, in pixels.
        object_ids: Numbers of the objects that are seen in any frame, from 1 to 255, rising.
        labels: By number of the object its class, a position in `class_names` of the data set; empty without classes.
        annotated: Numbers of the frames that have masks, rising; of the others nobody says what they show.
    """

    @property
    def path(self) -> str: ...

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def object_ids(self) -> tuple[int, ...]: ...

    @property
    def labels(self) -> Mapping[int, int]: ...

    @property
    def annotated(self) -> Sequence[int]: ...

    def __len__(self) -> int:
        """Returns the number of frames."""
        ...

    def frame(self, at: int) -> Image:
        """Returns a frame by its number, from 0."""
        ...

    def ids(self, at: int) -> Ids:
        """Returns the objects of an annotated frame.

        Raises:
            ValueError: The frame is not annotated.
        """
        ...


def masks_of(ids: Ids, objects: Sequence[int]) -> Bool[np.ndarray, "n h w"]:
    """Returns the mask of each of the objects."""
    return ids == np.asarray(objects, dtype=np.uint8)[:, None, None]


def first_seen(clip: Clip) -> dict[int, int]:
    """Returns of each object the first annotated frame that shows it."""
    found: dict[int, int] = {}
    for at in clip.annotated:
        for number in np.unique(clip.ids(at)).tolist():
            if number and number not in found:
                found[number] = at
        if len(found) == len(clip.object_ids):
            break
    return found


def check_frame(clip: Clip, at: int, frames: int) -> None:
    """Raises IndexError unless a clip has a frame of that number."""
    if not 0 <= at < frames:
        raise IndexError(f"{clip.path} has no frame {at}; its {frames} frames are numbered from 0.")
