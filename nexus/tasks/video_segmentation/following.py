"""A segmenter that follows annotated objects through clips, each from one prompt, and how well its masks fit.

Pont-Tuset et al., "The 2017 DAVIS Challenge on Video Object Segmentation", 2017 (J and F, and which frames count);
Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, Sec. 6.1 (from a click, a box or a mask).

Dims: n objects, h w pixels.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Bool
from torch import nn

from nexus.data.clips.clip import Clip, first_seen
from nexus.data.detection.rle import RLE, encode
from nexus.data.images import Image, image_size
from nexus.data.transforms import eval_transform
from nexus.models.cv.sam2 import SAM2, Tracked, VideoSession
from nexus.ops.clicks import central_click
from nexus.ops.contours import contour_accuracy, region_similarity
from nexus.tasks.source import preprocessing_of
from nexus.tasks.video_segmentation.session import apart, at_size

PROMPTS = ("click", "box", "mask")


class Followed(NamedTuple):
    """What became of one object of a clip.

    Attributes:
        object_id: Its number.
        label: Its class; None without classes.
        start: The frame in which it was pointed at, the first that shows it.
        prompt: What it was pointed at by, as `VideoSession.prompt` takes it.
        frames: The frames that count: annotated, after the first and before the last of them.
        regions: J in each of them.
        contours: F likewise.
        masks: What was found in each of them.
    """

    object_id: int
    label: int | None
    start: int
    prompt: Mapping[str, Any]
    frames: tuple[int, ...]
    regions: tuple[float, ...]
    contours: tuple[float, ...]
    masks: tuple[RLE, ...]

    @property
    def j(self) -> float:
        """The mean of J."""
        return float(np.mean(self.regions))

    @property
    def f(self) -> float:
        """The mean of F."""
        return float(np.mean(self.contours))


def follow(model: nn.Module, clip: Clip, *, prompt: str = "click", memory: bool = True) -> list[Followed]:
    """Returns what becomes of the objects of a clip; those that no frame is left for to count are left out.

    Where masks overlap, a pixel belongs to the object that is surest of it. Frames are looked at one by one.
    """
    starts = first_seen(clip)
    last = max(clip.annotated, default=0)
    counted = {one: [at for at in clip.annotated if start < at < last] for one, start in starts.items()}
    prompts = {one: pointing_at(clip.ids(start) == one, prompt) for one, start in starts.items()}
    seen: dict[int, list[tuple[float, float, RLE]]] = {one: [] for one in starts}
    watching = _Watching(model, clip.size, len(clip)) if memory else _Looking(model, clip.size)
    for at in range(min(starts.values(), default=0), last):
        tracked = watching.push(clip.frame(at), {one: prompts[one] for one, start in starts.items() if start == at})
        wanted = [one for one in tracked.object_ids if at in counted[one]]
        if not wanted:
            continue
        ids, found = clip.ids(at), apart(at_size(tracked.logits, clip.size))
        for one in wanted:
            mask, truth = found[tracked.object_ids.index(one)], ids == one
            seen[one].append((region_similarity(truth, mask), contour_accuracy(truth, mask), encode(mask)))
    return [
        Followed(one, clip.labels.get(one), starts[one], prompts[one], tuple(counted[one]), *zip(*rows))
        for one, rows in seen.items()
        if rows
    ]


def carried(
    model: nn.Module, frames: Iterable[Image], mask: Bool[np.ndarray, "h w"]
) -> Iterator[Bool[np.ndarray, "h w"]]:
    """Yields an object's mask in each frame after the first, where it is `mask`. Frames are looked at one by one.

    Raises:
        ValueError: A frame has another size than the first.
    """
    transform, video = eval_transform(preprocessing_of(model)), VideoSession(cast("SAM2", model), mask.shape)
    for number, frame in enumerate(frames):
        if image_size(frame) != mask.shape:
            told = " x ".join(map(str, image_size(frame)[::-1]))
            raise ValueError(f"Frame {number} has {told} pixels, and the first one {mask.shape[1]} x {mask.shape[0]}.")
        tracked = video.push(transform(frame))
        if number == 0:
            video.prompt(1, masks=mask)
        else:
            yield (at_size(tracked.logits, mask.shape)[0] > 0).cpu().numpy()


def pointing_at(mask: np.ndarray, prompt: str) -> dict[str, Any]:
    """Returns what points at an object."""
    if prompt == "mask":
        return {"masks": mask}
    if prompt == "box":
        return {"boxes": encode(mask).box}
    click = central_click(mask, np.zeros_like(mask))
    assert click is not None
    return {"points": [click[:2]]}


class _Watching:
    """Follows objects by memory."""

    def __init__(self, model: nn.Module, size: tuple[int, int], length: int) -> None:
        self.video = VideoSession(cast("SAM2", model), size, num_frames=length)
        self.transform = eval_transform(preprocessing_of(model))

    def push(self, frame: Any, prompts: Mapping[int, Mapping[str, Any]]) -> Tracked:
        tracked = self.video.push(self.transform(frame))
        for one, prompt in prompts.items():
            tracked = self.video.prompt(one, **prompt)
        return tracked


class _Looking:
    """Asks about each frame anew."""

    def __init__(self, model: nn.Module, size: tuple[int, int]) -> None:
        self.model, self.size = cast("SAM2", model), size
        self.transform = eval_transform(preprocessing_of(model))
        self.prompts: dict[int, Mapping[str, Any]] = {}

    def push(self, frame: Any, prompts: Mapping[int, Mapping[str, Any]]) -> Tracked:
        self.prompts |= prompts
        video = VideoSession(self.model, self.size)
        tracked = video.push(self.transform(frame))
        for one, prompt in self.prompts.items():
            tracked = video.prompt(one, **prompt)
        return tracked


def mean_scores(objects: Sequence[Followed]) -> dict[str, float]:
    """Returns the means over objects by name; none where there is no object."""
    if not objects:
        return {}
    j, f = (float(np.mean([getattr(one, name) for one in objects])) for name in ("j", "f"))
    return {"J&F": (j + f) / 2, "J": j, "F": f}
