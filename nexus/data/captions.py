"""Batches of images with texts, for models that compare them.

Dims: b images, t texts, n tokens, c channels, h w pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from nexus.data.dataset import Dataset
from nexus.data.facets import Captioned, Labelled
from nexus.data.loader import load_images
from nexus.data.transforms import Compose

Tokenize = Callable[[Sequence[str]], Int[Tensor, "t n"]]
"""From texts to the ids that a model reads."""


def sentences(dataset: Dataset, index: int, templates: Sequence[str]) -> tuple[str, ...]:
    """Returns the captions of an image; of data with classes instead, each template with the name of its class."""
    if isinstance(dataset, Captioned):
        return tuple(dataset.captions[index])
    assert isinstance(dataset, Labelled), "the task has checked that"
    name = dataset.class_names[int(dataset.labels[index])]
    return tuple(template.replace("{}", name) for template in templates)


@dataclass(frozen=True)
class CaptionTransform:
    """Makes whole batches: the loader hands it positions and generators.

    A batch has `images` (b, c, h, w), `labels` (b,) and `index` (b,). For training `tokens` (b, n) are of one sentence
    about each image, drawn at random; for evaluation, of data with captions, `tokens` (t, n) of all of them, and
    `owners` (t,), the index of the image that each is about.

    Attributes:
        transform: From an image to its pixels.
        tokenize: From texts to ids.
        templates: Sentences with a `{}` for the class, of data without captions.
        training: Whether one sentence is drawn.
    """

    transform: Compose
    tokenize: Tokenize
    templates: tuple[str, ...]
    training: bool

    def make_batch(self, dataset: Dataset, indices: list[int], rngs: list[np.random.Generator]) -> dict[str, Any]:
        """Returns the batch of the samples at `indices`, each with its own source of chance."""
        images, labels = load_images(dataset, self.transform, indices, rngs)
        batch: dict[str, Any] = {"images": images, "labels": labels, "index": torch.tensor(indices)}
        texts = [sentences(dataset, index, self.templates) for index in indices]
        if self.training:
            chosen = [own[int(rng.integers(len(own)))] for own, rng in zip(texts, rngs)]
            return {**batch, "tokens": self.tokenize(chosen)}
        if not isinstance(dataset, Captioned):
            return batch
        owners = [index for index, own in zip(indices, texts) for _ in own]
        tokens = self.tokenize([text for own in texts for text in own])
        return {**batch, "tokens": tokens, "owners": torch.tensor(owners)}
