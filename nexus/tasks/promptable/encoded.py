"""An image as a segmenter remembers it, and what it answers about it.

Dims: d width of the embedding, p prompts of an image, k masks of a prompt, h w pixels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nexus.data import eval_transform
from nexus.data.images import Image, image_size
from nexus.models.cv.medsam import MedSAM, mask_probabilities
from nexus.models.cv.sam import Prompts
from nexus.models.cv.sam.mask_decoder import SCALE
from nexus.models.cv.sam.prompts import read_prompts
from nexus.models.cv.sam.segmenter import Segmenter, bytes_of, weights_like
from nexus.tasks.clicks import Clicks, Guess
from nexus.tasks.promptable.asking import Asked, is_ambiguous, scaled
from nexus.tasks.promptable.everything import Everything, Picture, at_size
from nexus.tasks.promptable.picture import padded
from nexus.tasks.source import preprocessing_of


class Frame(NamedTuple):
    """How an image lies in what the model sees of it, all as (height, width) in pixels.

    Attributes:
        sides: Of what the model sees, filled up with zeros.
        inside: Of the picture in it.
        size: Of the image as given.
    """

    sides: tuple[int, int]
    inside: tuple[int, int]
    size: tuple[int, int]


class Encoded(NamedTuple):
    """An image that was encoded.

    Attributes:
        embedding: What the model keeps of it.
        frame: How the image lies in it.
    """

    embedding: Any
    frame: Frame


def frame_of(picture: Picture, size: tuple[int, int]) -> Frame:
    """Returns how an image of `size` (height, width) lies in the picture of it."""
    height, width = picture.images.shape[-2:]
    return Frame((height, width), picture.size, size)


def prompts_in(frame: Frame, model: Segmenter, asked: Asked) -> Prompts:
    """Returns prompts about one image in pixels of what the model sees of it.

    Raises:
        ValueError: There is none, or one does not fit.
    """
    check_question(model, asked)
    rows, columns = (SCALE * side // model.config.patch_size for side in frame.sides)
    prompts = read_prompts(asked.places, weights_like(model), frame.size, (rows, columns))
    if next(value for value in prompts if value is not None).shape[0] != 1:
        raise ValueError("The prompts of an image are those of several; give a list with a mapping for each image.")
    return scaled(prompts, (frame.inside[1] / frame.size[1], frame.inside[0] / frame.size[0]))


def answers(
    model: Segmenter, embedding: Any, prompts: Prompts, multimask: bool | None
) -> tuple[Float[Tensor, "p k h w"], Float[Tensor, "p k"]]:
    """Returns low-resolution logits and scores for the prompts of an image.

    With `multimask` None each prompt has one mask: of a prompt that may mean several things, the best one.
    """
    several = is_ambiguous(prompts) if multimask is None else multimask
    answer = model.decode(embedding, prompts, multimask=several)
    low, scores = answer["low_res_masks"][0], answer["iou_scores"][0]
    return best_of(low, scores) if multimask is None else (low, scores)


def best_of(low: Float[Tensor, "p k h w"], scores: Float[Tensor, "p k"]) -> tuple[Tensor, Tensor]:
    """Returns, of each prompt, the mask that is said to be best: (p, 1, h, w) and (p, 1)."""
    best = scores.argmax(dim=1)
    places = torch.arange(len(best), device=best.device)
    return low[places, best][:, None], scores[places, best][:, None]


def check_question(model: Segmenter, question: Asked | Everything) -> None:
    """Raises ValueError where a model was not trained for what it is asked: MedSAM answers a box with one mask."""
    if not isinstance(model, MedSAM):
        return
    other = ["everything"] if isinstance(question, Everything) else [key for key in question.places if key != "boxes"]
    if other or (isinstance(question, Asked) and question.multimask):
        told = ", ".join(other) or "all masks of an ambiguous prompt"
        raise ValueError(
            f"MedSAM was trained to answer a box with one mask, and is asked for {told}; give boxes"
            " (--box 425,600,700,875), or take a SAM."
        )


def masks_of(model: Segmenter, frame: Frame, low: Float[Tensor, "k low_h low_w"]) -> Bool[np.ndarray, "k h w"]:
    """Returns low-resolution logits as masks of the image as given.

    MedSAM's authors enlarge probabilities in one step, SAM 2's logits in one, SAM's in two.
    """
    if isinstance(model, MedSAM):
        return (mask_probabilities(low, frame.size) > 0.5).cpu().numpy()
    steps = (frame.sides, frame.inside) if model.fills_up else None
    return (at_size(low, steps, frame.size) > 0).cpu().numpy()


class SamClicker:
    """A segmenter as a `nexus.tasks.clicks.Clicker`: each click is asked with the mask that the one before gave (SAM,
    Appendix A, "Training algorithm")."""

    def __init__(self, model: Segmenter) -> None:
        self.model = model
        self._transform = eval_transform(preprocessing_of(model))

    def encode(self, image: Image) -> Encoded:
        """Returns the image encoded."""
        picture = padded(self.model, self._transform(image))
        with torch.inference_mode():
            return Encoded(self.model.encode(picture.images), frame_of(picture, image_size(image)))

    def size_of(self, encoded: Encoded) -> int:
        """Returns the bytes of the embedding."""
        return bytes_of(encoded.embedding)

    def ask(self, encoded: Encoded, clicks: Clicks, memory: Tensor | None = None) -> Sequence[Guess]:
        """Returns three guesses for a first point, which may mean several things, and one for all else.

        MedSAM, which answers boxes alone, is not shown the mask that it gave before.
        """
        memory = None if isinstance(self.model, MedSAM) else memory
        prompts = prompts_in(encoded.frame, self.model, Asked(_places(clicks, memory), None))
        with torch.inference_mode():
            low, scores = answers(self.model, encoded.embedding, prompts, is_ambiguous(prompts))
        found = [Guess(score, logits) for logits, score in zip(low[0], scores[0].tolist())]
        return sorted(found, key=lambda guess: -guess.score)

    def mask(self, encoded: Encoded, guess: Guess) -> Bool[np.ndarray, "h w"]:
        """Returns the mask of a guess."""
        with torch.inference_mode():
            return masks_of(self.model, encoded.frame, guess.memory[None])[0]


def _places(clicks: Clicks, memory: Tensor | None) -> dict[str, Any]:
    places: dict[str, Any] = {}
    if clicks.points:
        places["points"] = [point[:2] for point in clicks.points]
        places["labels"] = [point[2] for point in clicks.points]
    return places | {key: value for key, value in (("boxes", clicks.box), ("masks", memory)) if value is not None}
