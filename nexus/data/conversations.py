"""Batches of conversations about images, as they are: what a model reads is made of them where its tokenizer is."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from nexus.data.dataset import Image, open_sample
from nexus.data.facets import Conversations, Turn


class Talk(NamedTuple):
    """A conversation.

    Attributes:
        path: Of its first image.
        images: In the order of their places in it.
        turns: A user begins, and the assistant has the last word.
    """

    path: str
    images: list[Image]
    turns: Sequence[Turn]


class ConversationTransform:
    """Makes batches with `index` (b,) and `talks`, a `Talk` for each."""

    def check_dataset(self, dataset: Any) -> None:
        """Raises ValueError unless it has conversations."""
        if not isinstance(dataset, Conversations):
            raise ValueError(f"The data set {dataset.name!r} has no conversations; take conversations:FILE.jsonl.")

    def make_batch(self, dataset: Any, indices: Sequence[int], rngs: Sequence[np.random.Generator]) -> dict[str, Any]:
        """Returns the batch of the conversations at `indices`; nothing in it is left to chance."""
        talks = [_talk(dataset, index) for index in indices]
        return {"index": torch.tensor(list(indices)), "talks": talks}


def _talk(dataset: Any, index: int) -> Talk:
    item = open_sample(dataset, index)
    images = getattr(item, "images", None) or [item.image]
    return Talk(item.path, list(images), dataset.conversations[index])
