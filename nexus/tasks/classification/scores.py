"""Scores of classifications, from labels and guesses.

Dims: n images, k classes.
"""

from typing import NamedTuple

import numpy as np


class ClassTable(NamedTuple):
    """Per class, each (k,): what share of the guesses is right, what share of the images is found, their harmonic
    mean, and the number of images. A share of nothing counts as 0."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    guessed: np.ndarray


def confusion_matrix(labels: np.ndarray, guesses: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns counts (k, k): rows are the true classes, columns the guesses."""
    flat = np.bincount(labels * num_classes + guesses, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def class_table(labels: np.ndarray, guesses: np.ndarray, num_classes: int) -> ClassTable:
    """Returns precision, recall, F1, support and number of guesses of each class."""
    support = np.bincount(labels, minlength=num_classes)
    guessed = np.bincount(guesses, minlength=num_classes)
    right = np.bincount(labels[labels == guesses], minlength=num_classes)
    return ClassTable(
        precision=right / np.maximum(guessed, 1),
        recall=right / np.maximum(support, 1),
        f1=2 * right / np.maximum(support + guessed, 1),
        support=support,
        guessed=guessed,
    )


def calibration_error(confidences: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Returns the expected calibration error (Guo et al. 2017, Eq. 5), from 0 to 1.

    Confidences, from 0 to 1, are sorted into bins of equal width; the gap between mean confidence and accuracy of a
    bin counts by its share of the images.
    """
    place = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(place, weights=confidences - right, minlength=bins)
    return float(np.abs(gap).sum() / len(confidences))
