"""A promptable segmenter that is shown images: each is encoded once, and asked all that is asked of it.

Dims: b images, p prompts of an image, k masks of a prompt, h w pixels.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nexus.data import eval_transform, load_image
from nexus.data.detection.rle import encode
from nexus.data.geometry import crop as cut
from nexus.layers import image_sides
from nexus.models.cv.sam import SAM
from nexus.models.cv.sam.mask_decoder import SCALE
from nexus.models.cv.sam.prompts import read_prompts
from nexus.tasks.promptable.asking import Asked, is_ambiguous, scaled
from nexus.tasks.promptable.everything import Crop, Everything, Picture, at_size, segment_everything
from nexus.tasks.promptable.segments import Segment, Segments
from nexus.tasks.session import OneByOne
from nexus.tasks.source import as_input, preprocessing_of
from nexus.tasks.views import ImageInfo, View

Questions = list[Asked | Everything] | Asked | Everything


class PromptSession(OneByOne):
    """Each image is asked what is asked of all, or of it."""

    sam: SAM

    def __init__(self, task: Any, model: SAM, questions: Questions) -> None:
        super().__init__(task, model)
        self.sam, self.questions = model, questions

    def push(self, view: View) -> Segments:
        """Returns the masks of one image."""
        question, info = self._question(view.number), view.info
        assert isinstance(view.pixels, Tensor)
        picture = padded(self.sam, view.pixels)
        with torch.inference_mode():
            if isinstance(question, Everything):
                segments = segment_everything(
                    self.sam, lambda crop: self._part(crop, info, picture), (info.height, info.width), question
                )
            else:
                segments = self._answer(question, picture, info)
        return Segments(info.path, info.height, info.width, tuple(segments), info.image)

    def _question(self, number: int) -> Asked | Everything:
        if not isinstance(self.questions, list):
            return self.questions
        if number >= len(self.questions):
            raise ValueError(f"There are prompts for {len(self.questions)} images, and this is image {number + 1}.")
        return self.questions[number]

    def _part(self, crop: Crop, info: ImageInfo, whole: Picture) -> Picture:
        """A part of the image as given, as the model sees it."""
        if crop.layer == 0:
            return whole
        image = load_image(info.path if info.image is None else info.image, name=info.path)
        part = cut(image, crop.top, crop.left, (crop.bottom - crop.top, crop.right - crop.left))
        return padded(self.sam, eval_transform(preprocessing_of(self.sam))(part))

    def _answer(self, asked: Asked, picture: Picture, info: ImageInfo) -> list[Segment]:
        size, inside = (info.height, info.width), picture.size
        rows, columns = (side // self.sam.config.patch_size for side in picture.images.shape[-2:])
        prompts = read_prompts(asked.places, picture.images, size, (SCALE * rows, SCALE * columns))
        if next(value for value in prompts if value is not None).shape[0] != 1:
            raise ValueError("The prompts of an image are those of several; give a list with a mapping for each image.")
        prompts = scaled(prompts, (inside[1] / size[1], inside[0] / size[0]))
        embedding = self.sam.image_encoder(picture.images)
        several = is_ambiguous(prompts) if asked.multimask is None else asked.multimask
        answer = self.sam.decode(embedding, prompts, multimask=several)
        low, scores = answer["low_res_masks"][0], answer["iou_scores"][0]
        if asked.multimask is None:
            low, scores = best_of(low, scores)
        return [
            Segment(encode(mask), score, number)
            for number, (logits, own) in enumerate(zip(low, scores))
            for mask, score in zip(
                (at_size(logits, picture.images.shape[-2:], inside, size) > 0).cpu().numpy(), own.tolist()
            )
        ]


def best_of(low: Float[Tensor, "p k h w"], scores: Float[Tensor, "p k"]) -> tuple[Tensor, Tensor]:
    """Returns, of each prompt, the mask that is said to be best: (p, 1, h, w) and (p, 1)."""
    best = scores.argmax(dim=1)
    places = torch.arange(len(best), device=best.device)
    return low[places, best][:, None], scores[places, best][:, None]


def padded(model: SAM, pixels: Float[Tensor, "c h w"]) -> Picture:
    """Returns a picture filled up with zeros right and below to the size that the model is made for.

    Raises:
        ValueError: It is larger than that.
    """
    height, width = pixels.shape[-2:]
    rows, columns = image_sides(model.config.image_size)
    if height > rows or width > columns:
        raise ValueError(
            f"The preprocessing makes images of {height} x {width} pixels, and the model is made for at most"
            f" {rows} x {columns}; change image_size of one of them."
        )
    images = torch.nn.functional.pad(pixels, (0, columns - width, 0, rows - height))
    return Picture(as_input(model, images[None]), (height, width))
