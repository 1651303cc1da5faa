"""Metrics of classification: sums over batches and processes, and what was answered to each image.

Dims: b batch, k classes.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nexus.data.dataset import sample_path
from nexus.data.facets import class_names_of
from nexus.ops.ranking import correct_guesses
from nexus.tasks.classification.report import Answers, Evaluation
from nexus.tasks.distributed import gather_over_processes, sum_over_processes

if TYPE_CHECKING:
    from nexus.data import Dataset


class ClassificationMetrics:
    """Top-1 and top-5 accuracy and cross-entropy (nats, without label smoothing), each the mean over images.

    Top-5 counts the first five guesses; it is left out where there are not more classes than that. A soft label
    (MixUp) counts as its heaviest class in the accuracies, and as it is in the loss. The sums stay on the device of the
    outputs, so that `update` does not wait for it.
    """

    def __init__(self) -> None:
        self._sums = torch.zeros(5, dtype=torch.float64)  # images, hits, top-5 hits, losses, images of many classes

    @torch.inference_mode(False)  # the sums are added to later, outside of it
    @torch.no_grad()
    def update(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """Adds a batch: `outputs["logits"]` (b, k) and `batch["labels"]` (b,) or, soft, (b, k)."""
        logits: Float[Tensor, "b k"] = outputs["logits"].float()
        labels: Tensor = batch["labels"]
        loss = F.cross_entropy(logits, labels, reduction="sum")
        hits = correct_guesses(logits, labels)
        images = hits.new_tensor(len(hits), dtype=torch.float64)
        many = images * (logits.shape[1] > 5)
        counts = [images, hits[:, 0].sum(), hits.any(dim=1).sum(), loss, many]
        self._sums = self._sums.to(logits.device) + torch.stack([count.double() for count in counts])

    def state(self) -> dict[str, Tensor]:
        """Returns the sums themselves: adding another process's state in place merges it."""
        return {"sums": self._sums}

    def synchronize(self) -> None:
        """Merges what all processes saw."""
        sum_over_processes(self.state().values())

    def compute(self) -> dict[str, float]:
        """Returns `top1`, of more than five classes `top5` (0 to 1), and `loss`.

        Raises:
            ValueError: No image was seen.
        """
        images, top1, top5, loss, many = self._sums.tolist()
        if images == 0:
            raise ValueError("There is nothing to measure: not one image was seen. Is the data set empty?")
        fifth = {"top5": top5 / images} if many else {}
        return {"top1": top1 / images, **fifth, "loss": loss / images}


class AnswerMetrics(ClassificationMetrics):
    """The same figures, and besides the guess for every image, for a report.

    Args:
        name: Of the task.
        class_names: Of the model; empty takes those of the data set.
        codes: For each class of the data the model's index of it; empty means that they are the same.
    """

    def __init__(self, name: str, class_names: Sequence[str] = (), codes: Sequence[int] = ()) -> None:
        super().__init__()
        self.name, self.class_names = name, tuple(class_names)
        self._codes = torch.tensor(codes, dtype=torch.int64)
        self._answers: list[tuple[Tensor, ...]] = []

    def update(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """Adds a batch with its `index` (b,)."""
        labels: Int[Tensor, "b"] = batch["labels"]
        if len(self._codes):
            labels = self._codes.to(labels.device)[labels]
        super().update(outputs, {**batch, "labels": labels})
        probabilities = outputs["logits"].detach().double().softmax(dim=1)
        scores, guesses = probabilities.max(dim=1)
        columns = (batch["index"], labels, guesses, scores, probabilities.gather(1, labels[:, None])[:, 0])
        self._answers.append(tuple(torch.as_tensor(column) for column in columns))

    def synchronize(self) -> None:
        """Merges what all processes saw."""
        super().synchronize()
        own = [tuple(column.cpu().numpy() for column in answers) for answers in self._answers]
        self._answers = gather_over_processes(own)

    def report(self, dataset: "Dataset") -> Evaluation:
        """Returns the figures with the guess for every image.

        Raises:
            ValueError: Nothing was seen, or a score is not finite; the message names the first such image.
        """
        metrics = self.compute()
        merged = Answers(*(np.concatenate([np.asarray(part) for part in column]) for column in zip(*self._answers)))
        order = np.argsort(merged.index, kind="stable")
        answers = Answers(*(column[order] for column in merged))
        paths = [sample_path(dataset, index) for index in answers.index.tolist()]
        _check_finite(answers, paths)
        names = self.class_names or class_names_of(dataset)
        return Evaluation.from_answers(
            answers, metrics=metrics, class_names=names, data=dataset.name, task=self.name, paths=paths
        )


def _check_finite(answers: Answers, paths: Sequence[str]) -> None:
    broken = np.flatnonzero(~np.isfinite(answers.score))
    if len(broken):
        raise ValueError(
            f"The model gives NaN or infinity for {len(broken)} of {len(paths)} images, first for {paths[broken[0]]}."
            " Its weights are broken, or its training diverged."
        )
