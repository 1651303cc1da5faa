"""Masks of a volume beside the true ones, label by label."""

from pathlib import Path

import numpy as np

from nexus.data.medical import Volume, read_nifti
from nexus.evaluation.surfaces import dice, surface_distances

SAME_MM = 1e-2
"""Two files are of one space where no corner lies further apart."""


def compare_masks(
    prediction: str | Path, truth: str | Path, *, tolerance_mm: float = 2.0
) -> dict[int, dict[str, float]]:
    """Returns `dice`, `nsd` (normalized surface distance) and `hausdorff_95_mm` of each label of two NIfTI files.

    Args:
        prediction: A mask: 0 outside, the number of an object inside.
        truth: The true one.
        tolerance_mm: How far two surfaces may be apart and still agree.

    Raises:
        ValueError: The files are of different shapes or spaces, or hold no whole numbers, or no label at all.
    """
    found, wanted = read_nifti(prediction), read_nifti(truth)
    _check_space(found, wanted)
    one, other = _labels(found), _labels(wanted)
    labels = sorted({*np.unique(one).tolist(), *np.unique(other).tolist()} - {0})
    if not labels:
        raise ValueError(f"Neither {found.path} nor {wanted.path} holds a label above 0; there is nothing to compare.")
    return {label: _figures(one == label, other == label, wanted.spacing_mm, tolerance_mm) for label in labels}


def _figures(
    found: np.ndarray, wanted: np.ndarray, spacing_mm: tuple[float, float, float], tolerance_mm: float
) -> dict[str, float]:
    distances = surface_distances(wanted, found, spacing_mm)
    return {
        "dice": dice(wanted, found),
        "nsd": distances.surface_dice(tolerance_mm),
        "hausdorff_95_mm": distances.hausdorff_mm(95),
    }


def _check_space(found: Volume, wanted: Volume) -> None:
    if found.voxels.shape != wanted.voxels.shape:
        raise ValueError(
            f"{found.path} is {found.voxels.shape} and {wanted.path} {wanted.voxels.shape}; they are of two volumes."
        )
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * [*found.voxels.shape, 1]
    apart = np.linalg.norm((corners @ (found.affine - wanted.affine).T)[:, :3], axis=1).max()
    if apart > SAME_MM:
        raise ValueError(
            f"{found.path} and {wanted.path} lie {apart:.3g} mm apart: their affines differ. Write both in one space."
        )


def _labels(volume: Volume) -> np.ndarray:
    labels = np.rint(volume.voxels).astype(np.int64)
    if np.abs(volume.voxels - labels).max(initial=0) > 1e-3 or labels.min(initial=0) < 0:
        raise ValueError(f"{volume.path} holds numbers that are no labels; a mask has 0, 1, 2, ...")
    return labels
