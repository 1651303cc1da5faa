"""A DICOM series: a folder of slices becomes a volume. pydicom (the extra "medical") reads them.

DICOM PS3.3: C.7.6.2 (image plane: position, orientation and spacing, in millimetres to the left, to the back and to the
head of the patient), C.11.1 (slope and intercept).
https://dicom.nema.org/medical/dicom/current/output/html/part03.html
"""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from nexus.data.medical.space import Volume, VolumeError, check_size, check_space

MOST_SLICES = 4096
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's axes point to the left and to the back, NIfTI's to the right and to the front."""
SAME = 1e-3
"""Orientations that differ by less are one; of gaps between slices, by less than this share of them."""
DEFLATED = "1.2.840.10008.1.2.1.99"
"""A file that is packed as a whole: it may unpack to any size."""
MISSING = 1.5
"""A gap so many times the others lacks a slice."""


class Slice(NamedTuple):
    """One file of a series, without its pixels.

    Attributes:
        path: The file.
        header: All but the pixels.
        position: Of the middle of its first pixel.
        turn: Directions of growing columns, and of growing rows (2, 3).
    """

    path: Path
    header: Any
    position: Float[np.ndarray, "3"]
    turn: Float[np.ndarray, "2 3"]


def read_dicom(folder: str | Path) -> Volume:
    """Returns the volume of the one series whose slices lie in a folder.

    Axes are columns, rows, slices; the slices are put in order by where they lie.

    Raises:
        VolumeError: There is no slice, or more than one series; a slice is missing, occurs twice, is damaged, of
            another size or direction, of colours, or packed in a way that cannot be unpacked here.
        ImportError: pydicom is not installed.
    """
    folder, pydicom = Path(folder), _pydicom()
    slices = _in_order(_of_one_series([_read_header(pydicom, path) for path in _files(folder)], folder), folder)
    first = slices[0].header
    rows, columns = int(first.Rows), int(first.Columns)
    check_size((columns, rows, len(slices)), str(folder))
    voxels = np.empty((columns, rows, len(slices)), dtype=np.float32)
    for number, one in enumerate(slices):
        voxels[:, :, number] = _pixels(pydicom, one, (rows, columns)).T
    affine = _affine(slices)
    check_space(voxels, affine, str(folder))
    return Volume(voxels, affine, str(folder), str(getattr(first, "Modality", "")))


def _files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    files = [path for path in files if path.name.upper() != "DICOMDIR"]
    if not files:
        raise VolumeError(f"{folder} holds no file; give the folder with the slices of a series.")
    if len(files) > MOST_SLICES:
        raise VolumeError(f"{folder} holds {len(files):,} files; a series has at most {MOST_SLICES:,} slices.")
    return files


def _read_header(pydicom: Any, path: Path) -> Slice:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on odd values; what matters is checked below
            if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == DEFLATED:
                raise VolumeError(
                    f"{path} is deflated as a whole, which is not read here; write it without compression."
                )
            header = pydicom.dcmread(path, stop_before_pixels=True)
            missing = [
                name
                for name in ("Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
                if getattr(header, name, None) in (None, "")
            ]
            if missing:
                raise VolumeError(f"{path} is no slice of a volume: it has no {', '.join(missing)}; take it out.")
            position = np.array([float(part) for part in header.ImagePositionPatient])
            turn = np.array([float(part) for part in header.ImageOrientationPatient]).reshape(2, 3)
            spacing = [float(part) for part in header.PixelSpacing]
            sides = int(header.Rows), int(header.Columns)
    except VolumeError:
        raise
    except Exception as error:  # pydicom raises many kinds over odd files
        reason = (" ".join(str(error).split()) or type(error).__name__)[:160].rstrip(".")
        raise VolumeError(
            f"{path} is no DICOM file that can be read ({reason}); take it out, or get it again."
        ) from None
    _check_slice(path, header, position, turn, spacing, sides)
    return Slice(path, header, position, turn)


def _check_slice(
    path: Path, header: Any, position: np.ndarray, turn: np.ndarray, spacing: list[float], sides: tuple[int, int]
) -> None:
    lengths = np.linalg.norm(turn, axis=1)
    good = position.shape == (3,) and len(spacing) == 2 and np.isfinite([*position, *turn.flat, *spacing]).all()
    if not good or min(spacing) <= 0 or abs(lengths - 1).max() > 0.01 or abs(turn[0] @ turn[1]) > 0.01:
        raise VolumeError(f"{path}: its position, orientation or spacing make no plane; get it again.")
    if min(sides) < 1:
        raise VolumeError(f"{path} has {sides[0]} x {sides[1]} pixels; get it again.")
    if int(getattr(header, "NumberOfFrames", 1) or 1) > 1:
        raise VolumeError(f"{path} holds many frames in one file, which is not read here; split it into slices.")
    if int(getattr(header, "SamplesPerPixel", 1) or 1) != 1:
        raise VolumeError(f"{path} is in colours; a volume has one number in each voxel.")


def _of_one_series(slices: list[Slice], folder: Path) -> list[Slice]:
    series: dict[str, list[Slice]] = {}
    for one in slices:
        series.setdefault(str(getattr(one.header, "SeriesInstanceUID", "")), []).append(one)
    if len(series) > 1:
        told = ", ".join(f"{mine[0].path.name} and {len(mine) - 1} more" for mine in list(series.values())[:4])
        raise VolumeError(f"{folder} holds {len(series)} series ({told}); put each into a folder of its own.")
    first = slices[0]
    for one in slices:
        if (one.header.Rows, one.header.Columns) != (first.header.Rows, first.header.Columns):
            sizes = [f"{s.header.Rows} x {s.header.Columns}" for s in (first, one)]
            raise VolumeError(
                f"{one.path} has {sizes[1]} pixels and {first.path.name} {sizes[0]}; a series has one size."
            )
        if np.abs(one.turn - first.turn).max() > SAME:
            raise VolumeError(f"{one.path} lies in another direction than {first.path.name}; a series has one.")
        if list(map(float, one.header.PixelSpacing)) != list(map(float, first.header.PixelSpacing)):
            raise VolumeError(f"{one.path} has another spacing than {first.path.name}; a series has one.")
    return slices


def _in_order(slices: list[Slice], folder: Path) -> list[Slice]:
    """Sorts slices by where they lie along the normal of their planes; equal steps lead from one to the next."""
    normal = np.cross(*slices[0].turn)
    slices = sorted(slices, key=lambda one: float(one.position @ normal))
    gaps = np.diff([float(one.position @ normal) for one in slices])
    if not len(gaps):
        return slices
    usual = float(np.median(gaps))
    for before, after, gap in zip(slices, slices[1:], gaps):
        names = f"{before.path.name} and {after.path.name}"
        if gap < SAME:
            raise VolumeError(f"{folder}: {names} lie in one place; take one of them out.")
        if gap > MISSING * usual:
            count = round(gap / usual) - 1
            raise VolumeError(
                f"{folder}: {count} slice{'s are' if count > 1 else ' is'} missing between {names}, {gap:g} mm apart"
                f" where others are {usual:g} mm; get the series whole."
            )
        if abs(gap - usual) > 0.05 * usual:
            raise VolumeError(f"{folder}: {names} are {gap:g} mm apart and others {usual:g} mm; a volume has one step.")
    return slices


def _pixels(pydicom: Any, one: Slice, sides: tuple[int, int]) -> Float[np.ndarray, "rows columns"]:
    """Returns a slice in the units of the scanner."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = pydicom.dcmread(one.path)
            pixels = np.asarray(whole.pixel_array)
            slope, intercept = (float(getattr(whole, f"Rescale{name}", default) or default) for name, default in PARTS)
    except Exception as error:
        syntax = getattr(getattr(one.header, "file_meta", None), "TransferSyntaxUID", None)
        kind = getattr(syntax, "name", "unknown")
        reason = (" ".join(str(error).split()) or type(error).__name__)[:160].rstrip(".")
        raise VolumeError(
            f"{one.path}: its pixels ({kind}) cannot be read ({reason}); get it again, or write it without compression."
        ) from None
    if pixels.shape != sides:
        raise VolumeError(f"{one.path} holds {pixels.shape} pixels and says {sides}; get it again.")
    values = pixels.astype(np.float32)
    if str(getattr(whole, "PhotometricInterpretation", "")) == "MONOCHROME1":  # the lowest number is white
        values = values.max() + values.min() - values
    return values * slope + intercept


PARTS = (("Slope", 1.0), ("Intercept", 0.0))


def _affine(slices: list[Slice]) -> Float[np.ndarray, "4 4"]:
    """Returns the way from (column, row, slice) to millimetres in RAS (PS3.3, Equation C.7.6.2.1-1)."""
    first, last = slices[0], slices[-1]
    down, across = (float(part) for part in first.header.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = first.turn[0] * across, first.turn[1] * down
    if len(slices) > 1:
        affine[:3, 2] = (last.position - first.position) / (len(slices) - 1)
    else:
        thick = float(getattr(first.header, "SliceThickness", 0) or 0) or 1.0
        affine[:3, 2] = np.cross(*first.turn) * thick
    affine[:3, 3] = first.position
    return TO_RAS @ affine


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError:
        raise ImportError("DICOM series need pydicom: pip install 'nexus-vision[medical]'.") from None
    return pydicom
