"""How often the right text is found for an image, and the right image for a text.

Dims: b images, n texts, t texts, e width of the shared space.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nexus.tasks.distributed import gather_over_processes
from nexus.tasks.image_text.report import RetrievalEvaluation

if TYPE_CHECKING:
    from nexus.data import Dataset


def retrieval_recall(
    similarities: Float[Tensor, "b n"], owners: Int[Tensor, "n"], *, at: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Returns in percent how often a right one is among the nearest: of texts for an image, and of images for a text.

    Args:
        similarities: Of each image (rows) with each text (columns).
        owners: The image that each text describes; an image may have several texts.
        at: How many of the nearest are looked at; more than there are means all.

    Raises:
        ValueError: There is not an owner for each text, or an image without text.
    """
    images, texts = similarities.shape
    if len(owners) != texts:
        raise ValueError(f"There are {texts} texts and {len(owners)} owners; each text needs the image it describes.")
    if set(owners.tolist()) != set(range(images)):
        raise ValueError(f"owners must name every one of the {images} images, from 0 to {images - 1}.")
    by_image = owners[similarities.argsort(dim=1, descending=True)] == torch.arange(images)[:, None]
    by_text = similarities.T.argsort(dim=1, descending=True) == owners[:, None]
    figures = {}
    for name, right in (("image_to_text", by_image), ("text_to_image", by_text)):
        for count in at:
            figures[f"{name}_recall@{count}"] = 100 * right[:, :count].any(dim=1).float().mean().item()
    return figures


class RetrievalMetrics:
    """How often a right text is among the first 1, 5 and 10 that are found for an image, and the other way round.

    All embeddings are kept until `compute`, on the CPU.

    Args:
        name: Of the task.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._parts: list[tuple[Tensor, ...]] = []

    def update(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """Adds a batch: `embeddings` (b, e) with `index` (b,), `text_embeddings` (t, e) with `owners` (t,)."""
        tensors = (outputs["embeddings"], batch["index"], outputs["text_embeddings"], batch["owners"])
        self._parts.append(tuple(tensor.detach().float().cpu().clone() for tensor in tensors))

    def synchronize(self) -> None:
        """Merges what all processes saw."""
        self._parts = gather_over_processes(self._parts)

    def compute(self) -> dict[str, float]:
        """Returns `image_to_text_recall@1` and the like, from 0 to 1.

        Raises:
            ValueError: No image was seen.
        """
        if not self._parts:
            raise ValueError("There is nothing to measure: not one image was seen. Is the data set empty?")
        images, index, texts, owners = (torch.cat(column) for column in zip(*self._parts))
        places = {int(number): place for place, number in enumerate(index.tolist())}
        rows = torch.tensor([places[int(owner)] for owner in owners.tolist()])
        return {name: percent / 100 for name, percent in retrieval_recall(images @ texts.T, rows).items()}

    def report(self, dataset: "Dataset") -> RetrievalEvaluation:
        """Returns the figures, and of how many images and texts they are."""
        metrics = self.compute()
        images, texts = (sum(len(part[place]) for part in self._parts) for place in (1, 3))
        return RetrievalEvaluation(
            data=dataset.name, task=self.name, num_images=images, num_texts=texts, metrics=metrics
        )
