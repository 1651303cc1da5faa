"""How well a model finds the text of an image, and the image of a text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from nexus.core.preprocessing import Preprocessing
from nexus.data import Loader, eval_transform, load_dataset
from nexus.data.captions import CaptionTransform
from nexus.data.datasets.captions import Captions
from nexus.models.cv import CLIP, SigLIP
from nexus.tasks import ImageTextTask
from nexus.tasks.image_text.tokenizers import load_tokenizer
from nexus.tasks.source import device_of, evaluating, open_model, preprocessing_of


@dataclass(frozen=True)
class RetrievalEvaluation:
    """An image-text model's figures on images with captions.

    Attributes:
        data: Name of the data set.
        num_images: How many were measured; `num_texts` their captions.
        metrics: `image_to_text_recall@1` and the like, from 0 to 1.
    """

    data: str
    num_images: int
    num_texts: int
    metrics: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values that JSON can hold."""
        return dict(vars(self))


def evaluate_retrieval(
    model: nn.Module | str | Path,
    data: Captions | str,
    *,
    tokenizer: str | Path | None = None,
    split: str = "val",
    root: str | Path | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
    device: torch.device | str | None = None,
    preprocessing: Preprocessing | None = None,
) -> RetrievalEvaluation:
    """Returns the recall of retrieval of a CLIP or SigLIP. Arguments are as for `evaluate`.

    Under `torchrun` each process takes its share of every batch, and each returns the figures of all.

    Args:
        tokenizer: See `nexus.tasks.image_text.tokenizers.load_tokenizer`.

    Raises:
        ValueError: The model compares no images with texts, its tokenizer cannot be had, or the data has no captions.
    """
    module = open_model(model, device)
    if not isinstance(module, CLIP | SigLIP):
        raise ValueError(f"Captions are found by a CLIP or SigLIP, not by a {type(module).__name__}.")
    dataset: Captions = load_dataset(data, split, root=root) if isinstance(data, str) else data
    task = ImageTextTask(tokenize=load_tokenizer(module, tokenizer))
    task.check_data(dataset)
    assert task.tokenize is not None
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    loader = Loader(
        dataset,
        CaptionTransform(eval_transform(preprocessing_of(module, preprocessing)), task.tokenize, (), training=False),
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        num_workers=num_workers,
    )
    metrics = task.metrics()
    with evaluating(module):
        for batch in loader:
            if len(batch["images"]):
                placed = {key: value.to(device_of(module)) for key, value in batch.items()}
                metrics.update(task.predict(module, placed), placed)
    metrics.synchronize()
    return RetrievalEvaluation(dataset.name, len(dataset), sum(map(len, dataset.captions)), metrics.compute())
