"""Batches of conversations about images, as they are: what a model reads is made of them where its tokenizer is."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from nexus.data.dataset import Image
from nexus.data.facets import Conversations, Turn
from nexus.data.workers import note


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
        talks = []
        for index in indices:
            note(index)
            images = dataset.pictures(index) if hasattr(dataset, "pictures") else [dataset[index].image]
            talks.append(Talk(dataset.path(index), images, dataset.conversations[index]))
        return {"index": torch.tensor(list(indices)), "talks": talks}
