"""Images are shown to a detector that was asked for words, which are encoded once, before the first."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nexus.models.cv.grounding_dino import GroundingDINO, Text
from nexus.ops.set_prediction import pixel_boxes
from nexus.tasks.open_vocabulary.phrases import CaptionPrompt, Place, answering, phrase_at, places_of, read_caption
from nexus.tasks.open_vocabulary.vocabulary import Caption, Words
from nexus.tasks.session import Stateless
from nexus.tasks.source import evaluating
from nexus.tasks.views import Batch, Outputs

if TYPE_CHECKING:
    from nexus.tasks.open_vocabulary.task import OpenVocabularyTask


def encode_captions(model: GroundingDINO, captions: Sequence[Caption]) -> list[tuple[Caption, Text]]:
    """Returns captions with what the model makes of them."""
    device = model.level_embed.device
    return [(one, model.encode_text(one.tokens.to(device))) for one in captions]


def find_words(
    model: GroundingDINO, encoded: Sequence[tuple[Caption, Text]], images: Tensor, sizes: Any
) -> dict[str, Any]:
    """Returns `boxes`, `scores` and `labels` of each image, the best of all captions, and `image_sizes`."""
    levels = model.encode_image(images, sizes)
    parts = []
    for caption, text in encoded:
        found = model.find(levels, text, caption.spans.to(images.device))
        numbers = caption.labels.to(images.device)
        parts.append({**found, "labels": [numbers[labels] for labels in found["labels"]]})
    return {**_best(parts, model.config.num_detections), "image_sizes": sizes}


def _best(parts: Sequence[Mapping[str, Any]], count: int) -> dict[str, list[Tensor]]:
    """Returns the surest of what was found in each image."""
    keys = ("boxes", "scores", "labels")
    merged: dict[str, list[Tensor]] = {key: [] for key in keys}
    for place in range(len(parts[0]["scores"])):
        joined = {key: torch.cat([part[key][place] for part in parts]) for key in keys}
        order = joined["scores"].argsort(descending=True, stable=True)[:count]
        for key in keys:
            merged[key].append(joined[key][order])
    return merged


def sizes_in(batch: Batch) -> Any:
    """Returns (height, width) of each image in a batch."""
    images = batch["images"]
    return batch.get("image_sizes") or [(images.shape[2], images.shape[3])] * len(images)


class WordsSession(Stateless):
    """Looks for classes. However many they are, each image is encoded once.

    Args:
        task: With the classes.
        model: In evaluation mode.
        words: Its tokenizer.
    """

    def __init__(self, task: "OpenVocabularyTask", model: GroundingDINO, words: Words) -> None:
        super().__init__(task, model)
        self.detector = model
        with evaluating(model):
            self.encoded = encode_captions(model, words.captions(task.class_names))

    def outputs(self, batch: Batch) -> Outputs:
        """Returns `boxes`, `scores` and `labels` of each image, and their `image_sizes`."""
        return find_words(self.detector, self.encoded, batch["images"], sizes_in(batch))


class CaptionSession(Stateless):
    """Looks for what a caption names. Phrases are numbered as they are first found, for all images alike.

    Args:
        task: Whose classes become those phrases.
        model: In evaluation mode.
        words: Its tokenizer.
        prompt: The caption.

    Raises:
        ValueError: The caption names nothing, or is too long.
    """

    def __init__(self, task: "OpenVocabularyTask", model: GroundingDINO, words: Words, prompt: CaptionPrompt) -> None:
        super().__init__(task, model)
        self.asking, self.detector, self.prompt = task, model, prompt
        self.asked = read_caption(prompt.caption, words)
        self.labels: dict[tuple[Place, ...], int] = {}
        with evaluating(model):
            self.text = model.encode_text(self.asked.tokens.to(model.level_embed.device))

    def outputs(self, batch: Batch) -> Outputs:
        """Returns `boxes`, `scores` and `labels` of each image, and their `image_sizes`."""
        sizes = sizes_in(batch)
        levels = self.detector.encode_image(batch["images"], sizes)
        found = self.detector.find(levels, self.text)
        canvas = torch.tensor([levels.canvas] * len(sizes), device=batch["images"].device)
        boxes = pixel_boxes(found["pred_boxes"], canvas)
        rows = [self._of_image(logits.sigmoid(), places) for logits, places in zip(found["pred_logits"], boxes)]
        outputs = {key: list(values) for key, values in zip(("boxes", "scores", "labels"), zip(*rows))}
        places = tuple(self.labels)
        names = tuple(phrase_at(one, self.asked.text) for one in places)
        self.task = replace(self.asking, class_names=names, class_places=places, caption=self.asked.text)
        return {**outputs, "image_sizes": sizes}

    def _of_image(self, chances: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns boxes, scores and labels of an image, best first."""
        scores, order = chances.amax(dim=1).sort(descending=True, stable=True)
        order = order[scores > self.prompt.box_threshold][: self.detector.config.num_detections]
        answers = answering(chances[order], self.asked, self.prompt.text_threshold, combined=self.prompt.combined)
        labels = [self._label(row.nonzero().flatten().tolist()) for row in answers]
        return boxes[order], scores[: len(order)], torch.tensor(labels, dtype=torch.long, device=boxes.device)

    def _label(self, tokens: list[int]) -> int:
        return self.labels.setdefault(places_of(tokens, self.asked), len(self.labels))
