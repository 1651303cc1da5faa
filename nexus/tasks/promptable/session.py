"""A promptable segmenter that is shown images: each is encoded once, and asked all that is asked of it.

Dims: b images, h w pixels.
"""

from typing import Any

import torch
from torch import Tensor

from nexus.data import eval_transform, load_image
from nexus.data.detection.rle import encode
from nexus.data.geometry import crop as cut
from nexus.models.cv.sam.segmenter import Segmenter
from nexus.tasks.promptable.asking import Asked
from nexus.tasks.promptable.encoded import answers, check_question, frame_of, masks_of, prompts_in
from nexus.tasks.promptable.everything import Crop, Everything, Picture, segment_everything
from nexus.tasks.promptable.picture import padded
from nexus.tasks.promptable.segments import Segment, Segments
from nexus.tasks.session import OneByOne
from nexus.tasks.source import preprocessing_of
from nexus.tasks.views import ImageInfo, View

Questions = list[Asked | Everything] | Asked | Everything | None


class PromptSession(OneByOne):
    """Each image is asked what is asked of all, or of it. Without questions it measures, and answers nothing."""

    sam: Segmenter

    def __init__(self, task: Any, model: Segmenter, questions: Questions) -> None:
        super().__init__(task, model)
        self.sam, self.questions = model, questions

    def push(self, view: View) -> Segments:
        """Returns the masks of one image."""
        question, info = self._question(view.number), view.info
        check_question(self.sam, question)
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
        if self.questions is None:
            raise ValueError(
                f"A model for {self.sam.task} answers prompts: give a point (--point 500,375), a box"
                " (--box 425,600,700,875), or 'everything'; in Python prompts={'points': [[500, 375]]}."
            )
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
        frame = frame_of(picture, (info.height, info.width))
        prompts = prompts_in(frame, self.sam, asked)
        low, scores = answers(self.sam, self.sam.encode(picture.images), prompts, asked.multimask)
        return [
            Segment(encode(mask), score, number)
            for number, (logits, own) in enumerate(zip(low, scores))
            for mask, score in zip(masks_of(self.sam, frame, logits), own.tolist())
        ]
