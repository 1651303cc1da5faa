"""From a user's prompts, in pixels of an image as given, to what a model is asked.

Dims: p prompts of an image, n points of a prompt.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nexus.core.config import nearest
from nexus.models.cv.sam import Prompts
from nexus.models.cv.sam.prompts import KINDS
from nexus.tasks.promptable.everything import Everything

MULTIMASK = "multimask"
"""Key of a prompt beside its points, boxes and masks: return all masks of an ambiguous one, or one of each."""


class Asked(NamedTuple):
    """The prompts of one image.

    Attributes:
        places: Points, labels, boxes and masks, as they were given.
        multimask: Whether all masks of a prompt are returned; None is the best one of them.
    """

    places: Mapping[str, Any]
    multimask: bool | None


def prompts_of(prompts: Any) -> list[Asked | Everything] | Asked | Everything:
    """Returns what was asked of all images, or a list of what was asked of each.

    Args:
        prompts: A mapping of `points`, `labels`, `boxes`, `masks` and `multimask`; "everything", or `Everything`; or a
            list with one of these for each image.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(prompts, list | tuple) and not isinstance(prompts, Prompts):
        if not prompts:
            raise ValueError("There is no prompt: the list of prompts is empty.")
        return [_prompt_of(one) for one in prompts]
    return _prompt_of(prompts)


def _prompt_of(prompt: Any) -> Asked | Everything:
    if isinstance(prompt, Everything):
        return prompt
    if isinstance(prompt, str) and prompt == "everything":
        return Everything()
    if isinstance(prompt, Prompts):
        prompt = {key: value for key, value in prompt._asdict().items() if value is not None}
    if not isinstance(prompt, Mapping):
        raise ValueError(
            f"A prompt is {str(prompt)[:80]!r}; it is a mapping such as {{'points': [[x, y]]}}, or 'everything'."
        )
    for key in prompt:
        if key not in (*KINDS, MULTIMASK):
            raise ValueError(f"There is no prompt {key!r}. {nearest(str(key), [*KINDS, MULTIMASK])}")
    multimask = prompt.get(MULTIMASK)
    if multimask not in (None, True, False):
        raise ValueError(f"{MULTIMASK} is {multimask!r}; it is true, false or left out.")
    return Asked({key: value for key, value in prompt.items() if key != MULTIMASK}, multimask)


def read_texts(texts: Sequence[str]) -> dict[str, Any] | Everything:
    """Returns the one prompt that a command line writes: "500,375" is a point of the object, "not:20,30" one that is
    not, "425,600,700,875" a box, "everything" the whole image.

    Raises:
        ValueError: A text is none of these, or they do not go together.
    """
    if "everything" in texts:
        if len(texts) > 1:
            raise ValueError("everything is asked about the whole image; leave the other prompts out.")
        return Everything()
    points, labels, boxes = [], [], []
    for text in texts:
        negative, numbers = text.startswith("not:"), _numbers(text)
        if len(numbers) == 4 and not negative:
            boxes.append(numbers)
        elif len(numbers) == 2:
            points.append(numbers)
            labels.append(0 if negative else 1)
        else:
            raise ValueError(
                f"The prompt {text[:80]!r} is no point (500,375), no point beside the object (not:500,375), no box"
                " (425,600,700,875: x1,y1,x2,y2) and not 'everything'."
            )
    if len(boxes) > 1:
        raise ValueError(f"There are {len(boxes)} boxes, and a prompt is about one object; give one.")
    found: dict[str, Any] = {"boxes": boxes[0]} if boxes else {}
    return found | ({"points": points, "labels": labels} if points else {})


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.removeprefix("not:").split(",")]
    except ValueError:
        return []


def scaled(prompts: Prompts, scale: tuple[float, float]) -> Prompts:
    """Returns prompts whose places are multiplied by `scale` (across, down)."""
    factors = torch.tensor(scale, dtype=torch.float64)

    def stretch(places: Tensor | None) -> Tensor | None:
        if places is None:
            return None
        by = factors.repeat(places.shape[-1] // 2).to(places.device)
        return (places.double() * by).to(places.dtype)

    return prompts._replace(points=stretch(prompts.points), boxes=stretch(prompts.boxes))


def is_ambiguous(prompts: Prompts) -> bool:
    """Returns whether a prompt may mean several things: it is a single point, without a box or a mask."""
    points = prompts.points
    return points is not None and points.shape[2] == 1 and prompts.boxes is None and prompts.masks is None
