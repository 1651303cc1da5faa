"""Metrics. Keys: `input` (scores), `target`, `output`, a number. Counts are float32 at least."""

from typing import Any

from mithril.logical.connection import Expression, IOKey
from mithril.logical.model import Model
from mithril.models.common import op


class Accuracy(Model):
    """Share of right answers, of class scores (n, k, ...) and integer targets (n, ...)."""

    def __init__(self, name: str | None = None):
        super().__init__(name)
        right = IOKey("input").argmax(axis=1) == IOKey("target", type=int)
        self |= op("mean")(input=op("where")(right, 1.0, 0.0), output=IOKey("output"))
        self.set_cin("input")


class CountMetric(Model):
    """From the counts of a decision: an element is found where `input` > `threshold`, and true where `target` > 0.

    Args:
        threshold: 0 for logits and margins, 0.5 for probabilities.
        num_classes: Where given, `input` is class scores (n, k) and `target` integers (n); the metric of each class
            against the others is averaged over the classes.
    """

    def __init__(self, threshold: float = 0.0, num_classes: int | None = None, name: str | None = None):
        super().__init__(name)
        scores, target = IOKey("input"), IOKey("target", type=None if num_classes is None else int)
        if num_classes is None:
            masks = [scores > threshold, target > 0]
        else:
            masks = [op("one_hot", num_classes=num_classes)(x) > 0 for x in (scores.argmax(axis=1), target)]
        found, true = (op("where")(mask, 1.0, 0.0) for mask in masks)
        axis = None if num_classes is None else 0
        value: Any = self.of_counts(*(x.sum(axis=axis) for x in (found * true, found, true)))
        self |= op("buffer")(input=value if num_classes is None else value.mean(), output=IOKey("output"))
        self.set_cin("input")

    def of_counts(self, both: Expression, found: Expression, true: Expression) -> Expression:
        """The metric of the counts of what is found and true, found, and true."""
        raise NotImplementedError(f"{type(self).__name__} does not define of_counts.")


def share(part: Expression, whole: Expression) -> Expression:
    """`part / whole`, 0 of nothing."""
    return part / op("maximum")(whole, 1.0)


class Precision(CountMetric):
    __doc__ = f"Share of the found that is true. {CountMetric.__doc__}"

    def of_counts(self, both: Expression, found: Expression, true: Expression) -> Expression:
        return share(both, found)


class Recall(CountMetric):
    __doc__ = f"Share of the true that is found. {CountMetric.__doc__}"

    def of_counts(self, both: Expression, found: Expression, true: Expression) -> Expression:
        return share(both, true)


class F1Score(CountMetric):
    __doc__ = f"Harmonic mean of precision and recall. {CountMetric.__doc__}"

    def of_counts(self, both: Expression, found: Expression, true: Expression) -> Expression:
        return share(2 * both, found + true)


class AUC(Model):
    """Area under the ROC curve: how often a true element (`target` > 0) has a higher score than a false one.

    Keys: `input` and `target`, both (n). Equal scores count half, by their mean rank (Mann & Whitney 1947); there must
    be elements of both kinds.
    """

    def __init__(self, name: str | None = None):
        super().__init__(name)
        scores = IOKey("input")
        order: Any = op("argsort")(scores)
        ranked = scores[order]
        true: Any = op("where")(IOKey("target")[order] > 0, 1.0, 0.0)
        places: Any = op("arange")(stop=scores.shape[0])
        steps = op("concat")([ranked[:1] != ranked[:1], ranked[1:] != ranked[:-1]])
        first: Any = op("cummax", axis=0)(op("where")(steps, places, 0))
        ends = op("concat")([ranked[1:] != ranked[:-1], ranked[:1] == ranked[:1]])
        last: Any = op("cummin", axis=0)(op("where")(ends, places, scores.shape[0])[::-1])[::-1]
        count, all_true = scores.shape[0], true.sum()
        ranks = ((first + last) / 2 * true).sum() - all_true * (all_true - 1) / 2
        self |= op("divide")(ranks, all_true * (count - all_true), output=IOKey("output"))
        self.set_cin("input")
