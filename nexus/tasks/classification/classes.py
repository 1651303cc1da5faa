"""The classes of a data set, in the order of a model's outputs."""

import re
from collections import Counter

import numpy as np
from torch import nn

from nexus.core.config import nearest
from nexus.core.module import NexusModule
from nexus.data import Dataset
from nexus.models.cv.cards.imagenet import COUNTS, names, synsets
from nexus.tasks import ClassificationTask


def match_classes(model: nn.Module, dataset: Dataset) -> tuple[ClassificationTask, np.ndarray]:
    """Returns the task with the model's classes, and for each class of the data set the model's index of it.

    Classes are matched by name, so that the data may list them in another order, or hold only some of them. A model
    without class names is taken to have the data set's.

    Raises:
        ValueError: The data set has labels without a class, or a class that the model does not have.
    """
    theirs = tuple(dataset.class_names)
    ours = (model.class_names if isinstance(model, NexusModule) else ()) or theirs
    ClassificationTask(theirs).check_data(dataset)
    if ours == theirs:
        return ClassificationTask(ours), np.arange(len(ours))
    known, ours = ours, _as_numbers(ours, theirs)
    counts = Counter(ours)
    for name in theirs:
        if name not in counts:
            raise ValueError(
                f"The data set {dataset.name!r} has the class {name!r}, which the model does not have."
                f" {nearest(name, counts)} A class of the data must be named as in model.class_names."
            )
        if counts[name] > 1:
            raise ValueError(
                f"The model has {counts[name]} classes named {name!r}, so names do not tell which is meant."
            )
    return ClassificationTask(known), np.array([ours.index(name) for name in theirs])


def _as_numbers(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[str, ...]:
    """Returns ImageNet's classes as synset numbers where the data has those, as folders of ImageNet do."""
    count = len(ours)
    if all(re.fullmatch(r"n\d{8}", name) for name in theirs) and count in COUNTS and ours == names(count):
        return synsets(count)
    return ours
