"""Medical volumes: NIfTI files and DICOM series in, masks in the same space out; windows of CT, levels of MR."""

from nexus.data.medical.dicom import read_dicom
from nexus.data.medical.nifti import is_nifti, read_nifti, write_mask
from nexus.data.medical.volume import Volume, VolumeError, read_volume
from nexus.data.medical.windows import WINDOWS, Window, find_window, to_levels

__all__ = [
    "WINDOWS",
    "Volume",
    "VolumeError",
    "Window",
    "find_window",
    "is_nifti",
    "read_dicom",
    "read_nifti",
    "read_volume",
    "to_levels",
    "write_mask",
]
