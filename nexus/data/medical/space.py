"""A volume of voxels and where they lie in the patient.

Dims: i j k voxels along the axes of the array.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nexus.core.text import as_message

MOST_VOXELS = 1 << 28
"""Of a volume: 1 GiB of 32-bit floats."""


class VolumeError(ValueError):
    """A volume that cannot be used: the message names the file and says what to change, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(as_message(message))


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan.

    Attributes:
        voxels: In the units of the scanner: Hounsfield's of a CT, any of an MR.
        affine: From (i, j, k, 1) to millimetres to the right, to the front and to the head (RAS) of the patient.
        path: The file, or the folder of a series.
        modality: "CT", "MR", ... where the file says it.
    """

    voxels: Float[np.ndarray, "i j k"]
    affine: Float[np.ndarray, "4 4"]
    path: str
    modality: str = ""

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Millimetres from one voxel to the next along each axis."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)


def check_space(voxels: np.ndarray, affine: np.ndarray, path: str) -> None:
    """Raises VolumeError unless all voxels are numbers and lie somewhere."""
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise VolumeError(f"{path}: its affine does not span a volume; write it again with the right one.")
    if not np.isfinite(voxels).all():
        raise VolumeError(f"{path} holds voxels that are not finite; replace them, by the lowest value for example.")


def check_size(shape: tuple[int, ...], path: str) -> None:
    """Raises VolumeError unless a volume has voxels, and no more than `MOST_VOXELS`."""
    count = int(np.prod([int(side) for side in shape], dtype=object)) if shape else 0
    if min(shape, default=0) < 1 or count > MOST_VOXELS:
        sides = " x ".join(map(str, shape))
        raise VolumeError(
            f"{path} has {sides} voxels; a volume has at least 1 along each axis, {MOST_VOXELS:,} in all."
        )
