"""The classes of a data set, in the order of a model's outputs."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from nexus.core.config import nearest
from nexus.models.cv.cards.imagenet import COUNTS, names, synsets


def match_classes(ours: Sequence[str], theirs: Sequence[str], data: str) -> tuple[int, ...]:
    """Returns for each class of a data set the model's index of it.

    Classes are matched by name, so that the data may list them in another order, or hold only some of them.

    Args:
        ours: The model's classes.
        theirs: Those of the data set.
        data: What messages call it.

    Raises:
        ValueError: The model does not have a class of the data set, or has two of the name.
    """
    if tuple(ours) == tuple(theirs):
        return tuple(range(len(ours)))
    ours = _as_numbers(tuple(ours), theirs)
    counts = Counter(ours)
    for name in theirs:
        if name not in counts:
            raise ValueError(
                f"The data set {data!r} has the class {name!r}, which the model does not have."
                f" {nearest(name, counts)} A class of the data must be named as in model.class_names;"
                " torch's data sets say their names in `class_names` or `classes`."
            )
        if counts[name] > 1:
            raise ValueError(
                f"The model has {counts[name]} classes named {name!r}, so names do not tell which is meant."
            )
    places = {name: place for place, name in enumerate(ours)}
    return tuple(places[name] for name in theirs)


def class_weights(dataset: Any) -> list[float]:
    """Returns a weight for each class, inverse to its number of images; 1 is the mean over the images.

    A class without images has the weight 0.

    Args:
        dataset: With labels.
    """
    counts = np.bincount(np.asarray(dataset.labels), minlength=len(dataset.class_names))
    share = float(counts.sum() / np.count_nonzero(counts))
    return [share / count if count else 0.0 for count in counts.tolist()]


def _as_numbers(ours: tuple[str, ...], theirs: Sequence[str]) -> tuple[str, ...]:
    """Returns ImageNet's classes as synset numbers where the data has those, as folders of ImageNet do."""
    count = len(ours)
    if all(re.fullmatch(r"n\d{8}", name) for name in theirs) and count in COUNTS and ours == names(count):
        return synsets(count)
    return ours
