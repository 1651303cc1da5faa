"""How far what ONNX Runtime gives lies from what torch gives.

Dims: b images, n objects.
"""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

RANKED = ("scores", "pred_logits")
"""Outputs of a detector, whose objects may change places where two are equally likely."""
CUT = 1e-6
"""Objects whose score exceeds the last one's by less may be missing: others as likely were kept."""


def largest_differences(wanted: Mapping[str, Tensor], found: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Returns the largest difference of each output, as a share of its largest value; infinite if shapes differ.

    Objects of a detector are compared in the order that brings them together: those that are nearly as likely come in
    any order.
    """
    theirs = {name: value.cpu().numpy().astype(np.float64) for name, value in wanted.items()}
    ours = {name: np.asarray(found[name]).astype(np.float64) for name in theirs}
    plain = {name: _difference(theirs[name], ours[name]) for name in theirs}
    if (
        max(plain.values(), default=0.0) > 1e-6
        and theirs.keys() & set(RANKED)
        and np.isfinite(list(plain.values())).all()
    ):
        return {**plain, **_reordered(theirs, ours)}
    return plain


def _difference(wanted: np.ndarray, found: np.ndarray) -> float:
    if wanted.shape != found.shape:
        return float("inf")
    if not wanted.size:
        return 0.0
    if not np.array_equal(np.isnan(wanted), np.isnan(found)):
        return float("inf")
    with np.errstate(invalid="ignore"):
        apart = np.where(wanted == found, 0.0, np.abs(wanted - found))
    return float(np.nanmax(apart, initial=0.0)) / _scale(wanted)


def _scale(values: np.ndarray) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return max(float(finite.max(initial=0.0)), 1e-3)


def _reordered(wanted: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Returns the differences after each wanted object was paired with the one that is most like it."""
    largest: dict[str, float] = {}
    for leader in RANKED:
        if leader in wanted and leader not in largest:
            count = wanted[leader].shape[1]
            names = [name for name, value in wanted.items() if value.ndim > 1 and value.shape[1] == count]
            largest |= _paired({name: wanted[name] for name in names}, {name: found[name] for name in names})
    return largest


def _paired(wanted: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Likewise for outputs of the same objects. Of those as likely as the last one, others may have been kept."""
    scales = {name: _scale(value) for name, value in wanted.items()}
    rows, others = (
        np.concatenate([_rows(side[name]) / scales[name] for name in wanted], axis=-1) for side in (wanted, found)
    )
    largest = dict.fromkeys(wanted, 0.0)
    for image, (mine, theirs) in enumerate(zip(rows, others)):
        free = np.ones(len(theirs), bool)
        for place, row in enumerate(mine):
            if "scores" in wanted and wanted["scores"][image, place] <= wanted["scores"][image, -1] + CUT:
                continue
            distance = np.where(free, np.abs(theirs - row).max(axis=-1), np.inf)
            partner = int(distance.argmin())
            free[partner] = False
            for name, scale in scales.items():
                apart = np.abs(wanted[name][image, place] - found[name][image, partner]).max() / scale
                largest[name] = max(largest[name], float(apart))
    return largest


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(*values.shape[:2], -1)
