"""A segmenter asked about annotated objects as a person would: click after click, each where the last mask was wrong.

Kirillov et al., "Segment Anything", 2023, Sec. 7.1 and Appendix D.1: the first click lies in the middle of the object,
each further one in the middle of the error, and the last answer is handed in again as a mask.

Dims: p objects of an image, h w pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from nexus.data.detection.rle import RLE, encode
from nexus.data.detection.scene import Object, Scene
from nexus.models.cv.medsam import MedSAM
from nexus.models.cv.sam import Prompts
from nexus.models.cv.sam.segmenter import Segmenter, weights_like
from nexus.ops.clicks import central_click
from nexus.tasks.promptable.asking import scaled
from nexus.tasks.promptable.encoded import Encoded, answers, masks_of

SHOWN = (1, 3, 5)
"""Numbers of clicks after which masks are measured and kept."""
AT_ONCE = 64
"""Objects that the decoder is asked about at once."""

Click = tuple[int, int, int]
"""x and y in pixels of the image as annotated, and 1 on the object or 0 beside it."""


class Clicked(NamedTuple):
    """What became of one object.

    Attributes:
        truth: What is annotated.
        clicks: In their order; fewer than asked for where a mask had no error left.
        ious: Of the mask after each round, as many as there were rounds; none of a model that answers boxes alone.
        masks: After the numbers of clicks in `SHOWN`, likewise.
        score: The IoU that the model expects of the last mask; of a model that answers boxes alone, of the box's.
        box_iou: Of the mask that answers the object's box.
        box_mask: That mask.
    """

    truth: Object
    clicks: tuple[Click, ...]
    ious: tuple[float, ...]
    masks: tuple[RLE, ...]
    score: float
    box_iou: float
    box_mask: RLE

    @property
    def last(self) -> RLE:
        """The mask after the last click, or of the box where no click was asked about."""
        return self.masks[-1] if self.masks else self.box_mask


def measured_objects(scene: Scene) -> list[tuple[Object, Bool[np.ndarray, "h w"]]]:
    """Returns the objects that are asked about with their masks: no crowds, no difficult ones, none that is empty."""
    found = []
    for one in scene.objects:
        rle = None if one.crowd or one.difficult else scene.rle(one)
        if rle is not None and rle.area:
            found.append((one, rle.decode()))
    return found


def mean_ious(objects: Sequence[Clicked]) -> dict[str, float]:
    """Returns the means over objects by name: `mIoU_1`, ..., `mIoU_box`; none where there is no object."""
    if not objects:
        return {}
    counts = [count for count in SHOWN if count <= len(objects[0].ious)]
    means = {f"mIoU_{count}": sum(one.ious[count - 1] for one in objects) / len(objects) for count in counts}
    return means | {"mIoU_box": sum(one.box_iou for one in objects) / len(objects)}


def click_through(model: Segmenter, encoded: Encoded, scene: Scene, rounds: int = SHOWN[-1]) -> list[Clicked]:
    """Returns what becomes of each object of an image in so many rounds; MedSAM is asked about boxes alone.

    Args:
        model: In evaluation mode.
        encoded: The image.
        scene: What is annotated in it.
        rounds: Clicks.
    """
    objects = measured_objects(scene)
    rounds = 0 if isinstance(model, MedSAM) else rounds
    parts = [objects[start : start + AT_ONCE] for start in range(0, len(objects), AT_ONCE)]
    return [one for part in parts for one in _Dialogue(model, encoded, part).run(rounds)]


class _Dialogue:
    """Some objects of an image, what was said about them so far, and what the model answered.

    Attributes:
        found: (p, h, w), the masks of the last round.
        clicks: Of each object.
        low: (1, p, low_h, low_w), logits of the last round; None before the first.
    """

    def __init__(self, model: Segmenter, encoded: Encoded, objects: Sequence[tuple[Object, np.ndarray]]) -> None:
        self.model, self.embedding, self.frame = model, encoded.embedding, encoded.frame
        self.like = weights_like(model)
        self.truths = [one for one, _ in objects]
        self.wanted = np.stack([mask for _, mask in objects])
        self.found = np.zeros_like(self.wanted)
        self.clicks: list[list[Click]] = [[] for _ in objects]
        self.low: Tensor | None = None
        self.scores: list[float] = [0.0] * len(objects)

    def run(self, rounds: int) -> list[Clicked]:
        """Returns what becomes of the objects."""
        boxes = torch.tensor([one.box for one in self.truths], dtype=self.like.dtype)
        _, box_scores, box_masks = self._ask(Prompts(boxes=boxes[None]))
        ious: list[tuple[float, ...]] = [() for _ in self.truths]
        masks: list[tuple[RLE, ...]] = [() for _ in self.truths]
        for number in range(1, rounds + 1):
            self._click()
            ious = [(*before, now) for before, now in zip(ious, self._ious(self.found))]
            if number in SHOWN:
                masks = [(*before, encode(mask)) for before, mask in zip(masks, self.found)]
        scores = self.scores if rounds else box_scores
        clicks, last = map(tuple, self.clicks), map(encode, box_masks)
        rows = zip(self.truths, clicks, ious, masks, scores, self._ious(box_masks), last, strict=True)
        return [Clicked(*row) for row in rows]

    def _click(self) -> None:
        """One round: a click for each object, and the answers to all its clicks. What has no error stays as it is."""
        clicked = [central_click(wanted, found) for wanted, found in zip(self.wanted, self.found)]
        open_ = [place for place, click in enumerate(clicked) if click is not None]
        if not open_:
            return
        for place in open_:
            self.clicks[place].append(clicked[place])  # pyrefly: ignore[bad-argument-type]
        asked = torch.tensor([self.clicks[place] for place in open_], device=self.like.device)[None]
        points, labels = asked[..., :2].to(self.like.dtype), asked[..., 2]
        low, scores, masks = self._ask(Prompts(points, labels, masks=None if self.low is None else self.low[:, open_]))
        self.low = low if self.low is None else self.low.index_copy(1, torch.tensor(open_, device=low.device), low)
        self.found[open_] = masks
        for place, score in zip(open_, scores, strict=True):
            self.scores[place] = score

    def _ask(self, prompts: Prompts) -> tuple[Tensor, list[float], np.ndarray]:
        """Returns the logits, the scores and the masks, in pixels of the image as annotated, that answer prompts."""
        frame = self.frame
        seen = scaled(prompts, (frame.inside[1] / frame.size[1], frame.inside[0] / frame.size[0]))
        seen = Prompts(*(None if value is None else value.to(self.like.device) for value in seen))
        low, scores = answers(self.model, self.embedding, seen, None)
        return low[:, 0][None], scores[:, 0].tolist(), masks_of(self.model, frame, low[:, 0])

    def _ious(self, masks: np.ndarray) -> list[float]:
        common = (masks & self.wanted).sum(axis=(1, 2))
        either = (masks | self.wanted).sum(axis=(1, 2))
        return (common / either).tolist()
