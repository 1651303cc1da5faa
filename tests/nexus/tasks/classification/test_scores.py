"""Scores against scikit-learn."""

import numpy as np
import pytest

from nexus.tasks.classification.scores import calibration_error, class_table, confusion_matrix

pytestmark = pytest.mark.needs("sklearn")


@pytest.fixture(params=[(200, 5), (30, 12), (1, 3)], ids=["many", "classes without images", "one image"])
def answers(request):
    count, classes = request.param
    rng = np.random.default_rng(count)
    labels = rng.integers(0, classes - 1, count)  # the last class never occurs
    guesses = np.where(rng.random(count) < 0.6, labels, rng.integers(0, classes, count))
    return labels, guesses, classes


def test_confusion_matrix(answers):
    from sklearn import metrics

    labels, guesses, classes = answers
    theirs = metrics.confusion_matrix(labels, guesses, labels=range(classes))
    np.testing.assert_array_equal(confusion_matrix(labels, guesses, classes), theirs)


def test_class_table(answers):
    from sklearn import metrics

    labels, guesses, classes = answers
    theirs = metrics.precision_recall_fscore_support(labels, guesses, labels=range(classes), zero_division=0)
    ours = class_table(labels, guesses, classes)
    for column, expected in zip(ours, theirs):
        np.testing.assert_allclose(column, expected, rtol=1e-12)


def test_calibration_error():
    # Two bins: 0.95 with 3 of 4 right, 0.61 with 0 of 1 right.
    confidences, right = np.array([0.95, 0.95, 0.95, 0.95, 0.61]), np.array([True, True, False, True, False])
    assert calibration_error(confidences, right, bins=10) == pytest.approx((4 * (0.95 - 0.75) + 0.61) / 5)


def test_calibrated_guesses_have_no_error():
    rng = np.random.default_rng(0)
    confidences = rng.random(200_000)
    assert calibration_error(confidences, rng.random(200_000) < confidences) < 0.005


def test_a_confidence_of_zero_and_one_has_a_bin():
    assert calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0
