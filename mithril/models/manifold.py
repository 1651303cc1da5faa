"""Embeddings that keep distances or neighbours. Their one parameter is the new coordinates of the points, `coords`."""

from typing import Any

from mithril.logical.connection import Expression, IOKey
from mithril.logical.model import Model
from mithril.models.common import op, parameter
from mithril.models.kernel import DistanceMatrix, diagonal, squared_differences


class MDS(Model):
    """Metric multidimensional scaling: `output` is the distances (n, n) of `coords`. Kruskal 1964.

    The stress is half the summed `SquaredError` of `output` against the distances to keep.
    """

    def __init__(self, num_points: int, dimension: int = 2, name: str | None = None):
        super().__init__(name)
        coords = parameter("coords", [num_points, dimension])
        self |= DistanceMatrix()(left=coords, right=coords, output=IOKey("output"))


class TSNE(Model):
    """t-distributed stochastic neighbour embedding. van der Maaten & Hinton 2008.

    `output` is the log of the similarities of `coords` (n, n), log q of Eq. 4; q of a point with itself is 0. The cost
    (Eq. 2) is the summed `KLDivergence` of `output` against `joint_probabilities` of the points to embed.
    """

    def __init__(self, num_points: int, dimension: int = 2, name: str | None = None):
        super().__init__(name)
        coords = parameter("coords", [num_points, dimension])
        closeness: Any = -op("log1p")(squared_differences(coords, coords))
        closeness = op("where")(diagonal(num_points), -1e30, closeness)
        self |= op("buffer")(input=closeness - op("logsumexp")(closeness), output=IOKey("output"))


def joint_probabilities(points: Expression, perplexity: float = 30.0, steps: int = 60) -> Expression:
    """The similarities of points (n, d) that t-SNE keeps: p (n, n) of Sec. 2, which adds up to 1.

    Args:
        points: NumPy array.
        perplexity: How many neighbours count, about; less than n.
        steps: Of the bisection for each point's width.
    """
    import numpy as np

    x = np.asarray(points, np.float64)
    if not 1 < perplexity < len(x):
        raise ValueError(f"perplexity is {perplexity}; for {len(x)} points it must be between 1 and {len(x)}.")
    norms = (x * x).sum(-1)
    squares = np.maximum(norms[:, None] + norms - 2 * x @ x.T, 0)
    np.fill_diagonal(squares, np.inf)
    squares -= squares.min(-1, keepdims=True)
    low, high = np.zeros((len(x), 1)), np.full((len(x), 1), np.inf)
    beta = 1 / np.where(np.isinf(squares), 0, squares).mean(-1, keepdims=True).clip(1e-12)
    for _ in range(steps):
        p = np.exp(-beta * squares)
        total = p.sum(-1, keepdims=True)
        weighted = (np.where(p > 0, squares, 0) * p).sum(-1, keepdims=True)
        wide = np.log(total) + beta * weighted / total > np.log(perplexity)
        low, high = np.where(wide, beta, low), np.where(wide, high, beta)
        beta = np.where(np.isinf(high), 2 * beta, (low + high) / 2)
    p = np.exp(-beta * squares)
    p /= p.sum(-1, keepdims=True)
    return (p + p.T) / (2 * len(x))
