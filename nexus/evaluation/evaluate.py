"""`evaluate`: a model, a data set, and the figures, whatever the kind of model."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from nexus.core.preprocessing import Preprocessing
from nexus.data import Loader, load_dataset
from nexus.data.adapt import as_dataset
from nexus.data.foreign_loader import ForeignLoader
from nexus.tasks.distributed import process_share
from nexus.tasks.measuring import measure
from nexus.tasks.report import Report
from nexus.tasks.source import evaluating, input_preprocessing, open_model, place_for
from nexus.tasks.table import task_of


def evaluate(
    model: nn.Module | str | Path,
    data: Any,
    *,
    split: str = "val",
    root: str | Path | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
    device: torch.device | str | None = None,
    preprocessing: Preprocessing | None = None,
    tokenizer: str | Path | None = None,
    flip: bool = False,
) -> Any:
    """Returns the figures of a model on a data set: a `Report`, with what its kind adds.

    Classifiers give an `Evaluation`, detectors a `DetectionEvaluation`. A model of images and texts classifies by the
    names of the data's classes; where the data has captions instead, each is to be found by its image and the other
    way round. Under `torchrun` each process takes its share of every batch, and each returns the figures of all.

    Args:
        model: A module, the folder of a run or of a saved model, or the name of a model with published weights.
        data: A data set, what `load_dataset` takes (`"digits"`, `"folder:photos"`), or any of torch's `Dataset`s or
            `DataLoader`s (see `nexus.data.adapt`).
        split: Which part of a data set that is named.
        root: Where the named data set's files are.
        batch_size: Items per batch, over all processes.
        num_workers: Processes that read items; 0 reads them in this one.
        device: None means where the module is, or a GPU if there is one.
        preprocessing: Instead of the model's own.
        tokenizer: Of a model that reads texts, instead of its own: a folder, or a repository of the hub.
        flip: Look at each image mirrored too, and measure the mean of both answers; of classifiers.

    Raises:
        ValueError: The model, the data or their classes do not fit; the message says which and how.
    """
    module = open_model(model, device)
    named = isinstance(data, str)
    rank, world_size = process_share()
    share = {"rank": rank, "world_size": world_size}
    batches = ForeignLoader(data, **share) if isinstance(data, DataLoader) else None
    given = load_dataset(data, split, root=root) if named else data
    dataset = as_dataset(given) if batches is None else batches.dataset
    task = task_of(module, dataset).for_data(module, dataset, tokenizer=tokenizer)
    pixels = input_preprocessing(module, dataset, preprocessing)
    if batches is None:
        transform = task.transforms(pixels, None)[1]
        batches = Loader(dataset, transform, batch_size=batch_size, num_workers=num_workers, **share)
    with evaluating(module):
        metrics = measure(task, module, batches, partial(place_for, module), flip=flip)
    metrics.synchronize()
    report: Report = metrics.report(dataset)
    settings = report.settings | ({"split": split} if named else {}) | ({"flip": True} if flip else {})
    return replace(report, settings=settings if pixels is None else {**settings, "preprocessing": pixels.to_dict()})
