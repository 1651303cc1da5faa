"""`evaluate`: a model, a data set, and the figures."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from nexus.core.preprocessing import Preprocessing
from nexus.data import Dataset, Loader, eval_transform, load_dataset
from nexus.data.dataset import sample_path
from nexus.models.cv import CLIP, SigLIP
from nexus.tasks import task_name
from nexus.tasks.classification.classes import match_classes
from nexus.tasks.classification.report import Answers, Evaluation
from nexus.tasks.image_text.zero_shot import ZeroShotClassifier
from nexus.tasks.source import device_of, evaluating, open_model, preprocessing_of


def evaluate(
    model: nn.Module | str | Path,
    data: Dataset | str,
    *,
    split: str = "val",
    root: str | Path | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
    device: torch.device | str | None = None,
    preprocessing: Preprocessing | None = None,
) -> Evaluation:
    """Returns the figures of a classifier on a data set; CLIP and SigLIP classify by the names of its classes.

    Under `torchrun` each process takes its share of every batch, and each returns the figures of all.

    Args:
        model: A module, the folder of a run or of a saved model, or the name of a model with published weights.
        data: A data set, or what `load_dataset` takes: `"digits"`, `"folder:photos"`.
        split: Which part of a data set that is named.
        root: Where the named data set's files are.
        batch_size: Images per batch, over all processes.
        num_workers: Processes that read images; 0 reads them in this one.
        device: None means where the module is, or a GPU if there is one.
        preprocessing: Instead of the model's own.

    Raises:
        ValueError: The model, the data or their classes do not fit; the message says which and how.
    """
    module = open_model(model, device)
    dataset = load_dataset(data, split, root=root) if isinstance(data, str) else data
    if isinstance(module, CLIP | SigLIP) and dataset.class_names:
        module = ZeroShotClassifier(module, dataset.class_names)
    if task_name(module) != "classification":
        other = "evaluate_detector" if task_name(module) == "detection" else "probe (`nexus eval --probe knn`)"
        raise ValueError(
            f"evaluate measures classifiers; {type(module).__name__} is a model for {task_name(module)}. Use {other}."
        )
    task, codes = match_classes(module, dataset)
    transform = eval_transform(preprocessing_of(module, preprocessing))
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    loader = Loader(
        dataset, transform, batch_size=batch_size, seed=0, shuffle=False, drop_last=False,
        rank=rank, world_size=world_size, num_workers=num_workers,
    )  # fmt: skip
    metrics, parts = task.metrics(), []
    with evaluating(module):
        for batch in _batches(loader, codes, device_of(module)):
            outputs = task.predict(module, batch)
            metrics.update(outputs, batch)
            parts.append(_answers(outputs["logits"], batch))
    metrics.synchronize()
    answers = _gather(parts)
    paths = [sample_path(dataset, i) for i in answers.index.tolist()]
    _check_finite(answers, paths)
    return Evaluation.from_answers(dataset.name, task.class_names, metrics.compute(), paths, answers)


def _batches(loader: Loader, codes: np.ndarray, device: torch.device) -> Iterator[dict[str, Any]]:
    """Yields batches on the device, their labels as the model's classes; a share without images is left out."""
    classes = torch.from_numpy(codes)
    for batch in loader:
        if len(batch["images"]):
            yield {
                "images": batch["images"].to(device, non_blocking=True),
                "labels": classes[batch["labels"]].to(device),
                "index": batch["index"],
            }


def _answers(logits: Float[Tensor, "b k"], batch: Mapping[str, Any]) -> Answers:
    probabilities = logits.double().softmax(dim=1)
    labels: Int[Tensor, "b"] = batch["labels"]
    label_scores = probabilities.gather(1, labels[:, None])[:, 0]
    scores, guesses = probabilities.max(dim=1)
    columns = (batch["index"], labels, guesses, scores, label_scores)
    return Answers(*(torch.as_tensor(column).cpu().numpy() for column in columns))


def _gather(parts: Sequence[Answers]) -> Answers:
    """Returns the answers of all processes, in the order of the data set."""
    shares = [parts]
    if dist.is_initialized():
        shares = [[]] * dist.get_world_size()
        dist.all_gather_object(shares, parts)
    whole = Answers(*(np.concatenate(column) for column in zip(*(part for share in shares for part in share))))
    order = np.argsort(whole.index, kind="stable")
    return Answers(*(column[order] for column in whole))


def _check_finite(answers: Answers, paths: Sequence[str]) -> None:
    broken = np.flatnonzero(~np.isfinite(answers.score))
    if len(broken):
        raise ValueError(
            f"The model gives NaN or infinity for {len(broken)} of {len(paths)} images, first for {paths[broken[0]]}."
            " Its weights are broken, or its training diverged."
        )
