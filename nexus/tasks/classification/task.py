"""Classification: one label per image, hard or soft.

Dims: b batch, k classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nexus.data.facets import Annotated, Captioned, Labelled, class_names_of
from nexus.tasks.classification.classes import class_weights, match_classes
from nexus.tasks.classification.explain import METHODS, guess
from nexus.tasks.classification.metrics import AnswerMetrics
from nexus.tasks.classification.prediction import Prediction
from nexus.tasks.protocol import Loss, Task
from nexus.tasks.question import Method, Question
from nexus.tasks.views import ImageInfo

if TYPE_CHECKING:
    from PIL.Image import Image

    from nexus.data import Dataset


@dataclass(frozen=True)
class ClassificationTask(Task):
    """Cross-entropy, top-1 and top-5.

    Attributes:
        class_names: Names of the classes, in the order of the model's outputs. Without names, any number of outputs
            is taken, and they are called "0", "1", ...
        label_smoothing: Share of a label that is spread over all classes (Szegedy et al. 2016, Sec. 7), in [0, 1).
        class_weights: What the loss of an image counts, by its class; empty is 1.
        loss: From logits and labels to a scalar, instead of cross-entropy.
        codes: For each class of the data that is measured the model's index of it; empty means that they are the same.
    """

    class_names: tuple[str, ...] = ()
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    codes: tuple[int, ...] = ()
    loss: Loss | None = None

    name = "classification"
    headline = "top1"
    settings = ("training.label_smoothing", "training.class_weights", "data.sampling")

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(self.class_names))
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it must be at least 0 and below 1.")

    @classmethod
    def for_data(cls, model: nn.Module, dataset: "Dataset", *, tokenizer: str | Path | None = None) -> Self:
        """Returns the task whose classes are the model's; those of the data are matched to them by name.

        Raises:
            ValueError: The data set has labels without a class, or a class that the model does not have.
        """
        theirs = class_names_of(dataset)
        cls(theirs).check_data(dataset)
        task = cls.for_model(model, tokenizer=tokenizer)
        names = task.class_names or theirs
        return replace(task, class_names=names, codes=match_classes(names, theirs, dataset.name))

    @classmethod
    def for_run(cls, model: nn.Module, dataset: "Dataset", recipe: Any) -> Self:
        """Returns the task with the recipe's label smoothing and class weights."""
        names, training = class_names_of(dataset), recipe.training
        cls(names).check_data(dataset)
        weights = class_weights(cast("Labelled", dataset)) if training.class_weights == "balanced" else ()
        return cls(names, label_smoothing=training.label_smoothing, class_weights=tuple(weights))

    def item_weights(self, dataset: Any, recipe: Any) -> np.ndarray | None:
        """Returns weights that make each class equally frequent, if the recipe wants that."""
        if recipe.data.sampling != "balanced":
            return None
        labelled = cast("Labelled", dataset)  # as `check_data` saw
        return np.asarray(class_weights(labelled))[np.asarray(labelled.labels)]

    def check_data(self, dataset: "Dataset") -> None:
        """Raises ValueError if the data set is empty or has labels without a class."""
        if isinstance(dataset, Annotated):
            raise ValueError(f"The data set {dataset.name!r} has objects, not a class per image; use a detector.")
        if isinstance(dataset, Captioned) and not class_names_of(dataset):
            raise ValueError(
                f"The data set {dataset.name!r} has captions, not a class per image; use a model of images and texts."
            )
        if not isinstance(dataset, Labelled):
            raise ValueError(f"The data set {dataset.name!r} has no class per image: no class_names and labels.")
        labels, count = np.asarray(dataset.labels), len(self.class_names or dataset.class_names)
        if len(labels) == 0:
            raise ValueError(f"The data set {dataset.name!r} is empty.")
        wrong = np.flatnonzero((labels < 0) | (labels >= count))
        if len(wrong):
            raise ValueError(
                f"The data set {dataset.name!r} has the label {labels[wrong[0]]} (image {wrong[0]}), and the model has"
                f" {count} classes, 0 to {count - 1}: {len(wrong)} of {len(labels)} labels have no class."
                f" Create the model with num_classes={labels.max() + 1}, or check the labels."
            )

    def losses(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns the model's outputs and its `cross_entropy`; labels are int64 (b,), or soft (b, k) from MixUp."""
        outputs = self.predict(model, batch)
        logits: Float[Tensor, "b k"] = outputs["logits"].float()
        if self.loss is not None:
            return outputs, {"loss": _scalar(self.loss(logits, batch["labels"]))}
        settings: dict[str, Any] = {"label_smoothing": self.label_smoothing}
        if self.class_weights:  # the mean over images, not over weights, so that parts of a batch add up to the whole
            weights = logits.new_tensor(self.class_weights)
            loss = F.cross_entropy(logits, batch["labels"], weights, reduction="none", **settings).mean()
        else:
            loss = F.cross_entropy(logits, batch["labels"], **settings)
        return outputs, {"cross_entropy": loss}

    def with_loss(self, loss: Loss) -> Self:
        """Returns the task with another loss of logits and labels.

        Raises:
            ValueError: Something is set that only its own loss follows.
        """
        if self.label_smoothing or self.class_weights:
            raise ValueError(
                "A loss is given, and label_smoothing or class_weights, which it does not see; leave them out."
            )
        if not callable(loss):
            raise ValueError(f"loss is {loss!r:.80}; it is called with logits and labels, as nn.CrossEntropyLoss() is.")
        return replace(self, loss=loss)

    def predict(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the model's outputs, whose `logits` are (b, k).

        Raises:
            ValueError: The model gives no logits, or not one per class.
        """
        outputs = model(batch["images"])
        outputs = {"logits": outputs} if isinstance(outputs, Tensor) else outputs
        if not isinstance(outputs, dict):
            raise ValueError(
                f"{type(model).__name__} gives a {type(outputs).__name__}; a classifier gives logits (b, k), or a"
                " mapping with 'logits'."
            )
        if "logits" not in outputs:
            raise ValueError(f"{type(model).__name__} gives {', '.join(outputs)}; a classifier gives 'logits' (b, k).")
        shape = tuple(outputs["logits"].shape)
        if len(shape) != 2 or (self.class_names and shape[1] != len(self.class_names)):
            raise ValueError(
                f"{type(model).__name__} gives logits of shape {shape}, and there are {len(self.class_names)} classes."
                f" Create the model with num_classes={len(self.class_names)}."
            )
        return outputs

    def mean_answer(self, outputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Returns logits of the mean of the probabilities."""
        chances = torch.stack([one["logits"].float().log_softmax(dim=1) for one in outputs])
        return {"logits": chances.logsumexp(dim=0) - math.log(len(outputs))}

    def metrics(self) -> AnswerMetrics:
        """Returns fresh top-1, top-5 and loss."""
        return AnswerMetrics(self.name, self.class_names, self.codes)

    def results(self, outputs: Mapping[str, Any], infos: Sequence[ImageInfo]) -> list[Prediction]:
        """Returns one `Prediction` per image: the softmax of its logits.

        Raises:
            ValueError: The logits of an image are not finite; the message names it.
        """
        probabilities = outputs["logits"].detach().double().softmax(dim=1).float().cpu().numpy()
        for info, row in zip(infos, probabilities):
            if not np.isfinite(row).all():
                raise ValueError(
                    f"The model gives NaN or infinity for {info.path}."
                    " Its weights are broken, or its training diverged."
                )
        names = self.class_names or tuple(map(str, range(probabilities.shape[1])))
        return [Prediction(info.path, row, names, info.image) for info, row in zip(infos, probabilities, strict=True)]

    def draw(self, image: "Image", result: Prediction) -> "Image":
        """Returns the image with the first guess written under it."""
        from nexus.visualization.drawing import caption

        return caption(image, f"{result.label} {result.score:.0%}")

    def explanations(self) -> Mapping[str, Method]:
        """Returns the methods that show what a classifier looked at."""
        return METHODS

    def answer(self, question: Question) -> str:
        """Returns in a sentence what the model takes the image for."""
        return guess(question)


def _scalar(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.ndim:
        told = f"a tensor {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise ValueError(f"The loss gives {told}; it must give a scalar tensor, such as its mean over the batch.")
    return loss
