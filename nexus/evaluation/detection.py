"""Figures of a detector on a data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from nexus.core.module import NexusModule
from nexus.core.preprocessing import Preprocessing
from nexus.data import Loader, load_dataset
from nexus.data.detection import DetectionDataset
from nexus.data.detection.batches import DetectionTransform
from nexus.tasks.detection import DetectionTask
from nexus.tasks.detection.coco_figures import CocoFigures
from nexus.tasks.source import device_of, evaluating, open_model, preprocessing_of


@dataclass(frozen=True)
class DetectionEvaluation:
    """A detector's figures on a data set.

    Attributes:
        data: Name of the data set.
        class_names: Of its objects.
        num_images: How many were measured.
        figures: COCO's figures of boxes, and of masks and keypoints where the model gives them.
    """

    data: str
    class_names: tuple[str, ...]
    num_images: int
    figures: tuple[CocoFigures, ...]

    @property
    def metrics(self) -> dict[str, float | None]:
        """All figures by name, those of masks as `segm AP`; None means that nothing was there to measure."""
        return {
            name if one.kind == "bbox" else f"{one.kind} {name}": value
            for one in self.figures
            for name, value in one.figures.items()
        }

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """`AP` of each class, of each kind."""
        return [
            {"name": name, **{f"{one.kind} AP": one.per_class[label] for one in self.figures}}
            for label, name in enumerate(self.class_names)
        ]

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain values that JSON can hold."""
        return {
            "data": self.data,
            "num_images": self.num_images,
            "metrics": self.metrics,
            "class_names": list(self.class_names),
            "per_class": self.per_class,
        }


def evaluate_detector(
    model: nn.Module | str | Path,
    data: DetectionDataset | str,
    *,
    split: str = "val",
    root: str | Path | None = None,
    batch_size: int = 8,
    num_workers: int = 0,
    device: torch.device | str | None = None,
    preprocessing: Preprocessing | None = None,
) -> DetectionEvaluation:
    """Returns COCO's figures of a detector on a data set. Arguments are as for `evaluate`.

    Under `torchrun` each process takes its share of every batch, and each returns the figures of all.

    Raises:
        ValueError: Model and data do not fit; their classes must be the same, in the same order.
        ImportError: faster-coco-eval is not installed.
    """
    module = open_model(model, device)
    dataset: DetectionDataset = load_dataset(data, split, root=root) if isinstance(data, str) else data
    names = tuple(module.class_names) if isinstance(module, NexusModule) else ()
    _check_classes(names, dataset.class_names, dataset.name)
    task = DetectionTask(class_names=tuple(dataset.class_names))
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    loader = Loader(
        dataset,  # pyrefly: ignore[bad-argument-type]
        DetectionTransform(preprocessing_of(module, preprocessing)),
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        num_workers=num_workers,
    )
    metrics = task.metrics()
    with evaluating(module):
        for batch in loader:
            if len(batch["images"]):
                batch["images"] = batch["images"].to(device_of(module))
                metrics.update(task.predict(module, batch), batch)
    metrics.synchronize()
    return DetectionEvaluation(dataset.name, task.class_names, len(metrics.seen), tuple(metrics.figures()))


def _check_classes(model_names: Sequence[str], data_names: Sequence[str], data: str) -> None:
    if model_names and tuple(model_names) != tuple(data_names):
        pairs = enumerate(zip(model_names, data_names))
        first = next((f"class {k} is {a!r} and {b!r}" for k, (a, b) in pairs if a != b), "one has more")
        raise ValueError(
            f"The model has {len(model_names)} classes and {data} has {len(data_names)}, and they differ: {first}."
        )
