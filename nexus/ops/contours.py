"""How well the mask of an object fits, by its pixels (J) and by its outline (F), as videos are judged by.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", 2016, Sec. 4 (J and F);
Pont-Tuset et al., "The 2017 DAVIS Challenge on Video Object Segmentation", 2017, Sec. 3 (several objects, J&F).
https://arxiv.org/abs/1704.00675

Dims: t frames, h w pixels.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

TOLERANCE = 0.008
"""Of an outline, as a share of the image's diagonal; rounded up to whole pixels."""


class ClipScores(NamedTuple):
    """How well the masks of one object fit, frame by frame, each from 0 to 1.

    Attributes:
        regions: J of each frame that counts.
        contours: F likewise.
    """

    regions: Float[np.ndarray, " t"]
    contours: Float[np.ndarray, " t"]

    @property
    def j(self) -> float:
        """The mean of J over the frames."""
        return float(self.regions.mean())

    @property
    def f(self) -> float:
        """The mean of F over the frames."""
        return float(self.contours.mean())

    @property
    def j_and_f(self) -> float:
        """The mean of both means."""
        return (self.j + self.f) / 2


def clip_scores(
    truth: Bool[np.ndarray, "t h w"],
    found: Bool[np.ndarray, "t h w"],
    *,
    ends: bool = False,
    tolerance: float = TOLERANCE,
) -> ClipScores:
    """Returns J and F of an object in the frames of a clip.

    Args:
        truth: What is annotated.
        found: What was said.
        ends: Whether the first and the last frame count. DAVIS leaves them out: on the first one the object is given.
        tolerance: See `contour_accuracy`.

    Raises:
        ValueError: They are no masks of one shape, or no frame counts.
    """
    if truth.ndim != 3:
        raise ValueError(f"The masks have the shape {truth.shape}; those of a clip are (frames, height, width).")
    _check(truth, found)
    counted = range(len(truth)) if ends else range(1, len(truth) - 1)
    if not counted:
        raise ValueError(
            f"A clip of {len(truth)} frames has none between its first and its last, which do not count; ends=True"
            " counts them."
        )
    regions = [region_similarity(truth[at], found[at]) for at in counted]
    contours = [contour_accuracy(truth[at], found[at], tolerance=tolerance) for at in counted]
    return ClipScores(np.array(regions), np.array(contours))


def region_similarity(truth: Bool[np.ndarray, "h w"], found: Bool[np.ndarray, "h w"]) -> float:
    """Returns J, the intersection over the union of two masks; two empty ones agree: 1."""
    _check(truth, found)
    union = np.count_nonzero(truth | found)
    return np.count_nonzero(truth & found) / union if union else 1.0


def contour_accuracy(
    truth: Bool[np.ndarray, "h w"], found: Bool[np.ndarray, "h w"], *, tolerance: float = TOLERANCE
) -> float:
    """Returns F, the harmonic mean of precision and recall of the pixels on the outline of a mask.

    A pixel is right when an outline of the other mask passes within the tolerance. Two masks without outline agree: 1.
    A mask that fills the image has none either.

    Args:
        truth: What is annotated.
        found: What was said.
        tolerance: As a share of the diagonal, rounded up to pixels; from 1 on, in pixels.
    """
    _check(truth, found)
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance is {tolerance}; it is a share of the diagonal, or pixels from 1 on.")
    reach = int(tolerance) if tolerance >= 1 else math.ceil(tolerance * math.hypot(*truth.shape))
    wanted, given = contour(truth), contour(found)
    if not wanted.any() or not given.any():
        return float(wanted.any() == given.any())
    precision = np.count_nonzero(given & grown(wanted, reach)) / np.count_nonzero(given)
    recall = np.count_nonzero(wanted & grown(given, reach)) / np.count_nonzero(wanted)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def contour(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Returns the pixels that differ from their neighbour to the right, below or below right; beyond the image lies
    what lies at its edge."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


def grown(mask: Bool[np.ndarray, "h w"], radius: int) -> Bool[np.ndarray, "h w"]:
    """Returns the pixels whose middle is no further than `radius` from the middle of one of the mask."""
    height, width = mask.shape
    counts = np.pad(np.cumsum(mask, axis=1, dtype=np.int32), ((0, 0), (1, 0)))
    columns = np.arange(width)
    result = np.zeros_like(mask)
    for down in range(min(radius, height - 1) + 1):
        reach = math.isqrt(radius * radius - down * down)
        ends, starts = np.minimum(columns + reach + 1, width), np.maximum(columns - reach, 0)
        near = counts[:, ends] > counts[:, starts]
        result[down:] |= near[: height - down]
        result[: height - down] |= near[down:]
    return result


def _check(truth: np.ndarray, found: np.ndarray) -> None:
    for name, mask in (("truth", truth), ("found", found)):
        if mask.dtype != bool:
            raise ValueError(f"{name} holds {mask.dtype}; a mask is an array of bool: write {name} > 0.")
    if truth.shape != found.shape:
        raise ValueError(f"The masks have the shapes {truth.shape} and {found.shape}; they must be of one.")
