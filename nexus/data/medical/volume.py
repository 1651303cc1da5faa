"""Which kind of scan a path is."""

from pathlib import Path

from nexus.data.medical.dicom import read_dicom
from nexus.data.medical.nifti import is_nifti, read_nifti
from nexus.data.medical.space import Volume, VolumeError

__all__ = ["Volume", "VolumeError", "read_volume"]


def read_volume(path: str | Path) -> Volume:
    """Returns the scan at `path`: a NIfTI file (.nii, .nii.gz) or a folder with the slices of one DICOM series.

    Raises:
        VolumeError: It is neither, or cannot be read; see `read_nifti` and `read_dicom`.
        ImportError: nibabel or pydicom is not installed.
    """
    path = Path(path)
    if is_nifti(path):
        return read_nifti(path)
    if path.is_dir():
        return read_dicom(path)
    if not path.exists():
        raise VolumeError(f"{path} does not exist; check the path.")
    raise VolumeError(f"{path} is no scan: give a .nii or .nii.gz, or the folder of a DICOM series.")
