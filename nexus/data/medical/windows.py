"""From what a scanner measures to 8 bits: windows of a CT, shares of an MR, as MedSAM's authors prepared their data.

Ma et al., "Segment Anything in Medical Images", 2024 (Methods, "Data preprocessing"). https://arxiv.org/abs/2304.12306
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from nexus.core.config import nearest
from nexus.data.medical.space import Volume

LOWEST, HIGHEST = 0.5, 99.5
"""Percentiles of the voxels of an MR that are not 0."""


class Window(NamedTuple):
    """What is told apart of a CT, in Hounsfield units: all below is black, all above white."""

    level: float
    width: float


WINDOWS = {
    "soft_tissue": Window(40, 400),
    "lung": Window(-600, 1500),
    "bone": Window(400, 1800),
    "brain": Window(40, 80),
    "mediastinum": Window(50, 350),
    "liver": Window(30, 150),
}
MR = "mr"
"""Instead of a window: shares of the voxels that are not 0."""


def find_window(text: str) -> Window | None:
    """Returns the window of a name, or of "LEVEL,WIDTH"; None is for "mr".

    Raises:
        ValueError: It is none of these.
    """
    if text == MR:
        return None
    if text in WINDOWS:
        return WINDOWS[text]
    try:
        level, width = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"There is no window {text[:60]!r}. {nearest(text[:60], [*WINDOWS, MR])} Or give LEVEL,WIDTH: 40,400."
        ) from None
    if not (np.isfinite([level, width]).all() and width > 0):
        raise ValueError(f"The window {text!r} has no width above 0; give LEVEL,WIDTH, such as 40,400.")
    return Window(level, width)


def to_levels(volume: Volume, window: Window | None) -> UInt8[np.ndarray, "i j k"]:
    """Returns a volume in 8 bits.

    Args:
        volume: A scan.
        window: Of a CT. None, for all else: 0.5 and 99.5 per cent of the voxels that are not 0 become black and
            white, and voxels that are 0 stay black.

    Raises:
        ValueError: All voxels are 0.
    """
    voxels = volume.voxels
    if window is not None:
        low, high = window.level - window.width / 2, window.level + window.width / 2
        return _scaled(voxels, low, high)
    some = voxels[voxels != 0]
    if not len(some):
        raise ValueError(f"{volume.path} holds nothing but zeros; there is nothing to see.")
    low, high = np.percentile(some, [LOWEST, HIGHEST])
    levels = _scaled(voxels, float(low), float(high))
    levels[voxels == 0] = 0
    return levels


def _scaled(voxels: Float[np.ndarray, "i j k"], low: float, high: float) -> UInt8[np.ndarray, "i j k"]:
    span = max(high - low, 1e-8)
    return ((np.clip(voxels, low, high) - low) / span * 255).astype(np.uint8)
