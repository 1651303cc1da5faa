"""Small scans that tests write: a bright ball in a dark block, as NIfTI and as a DICOM series."""

from pathlib import Path

import numpy as np

OBLIQUE = np.array([[1.9, 0.3, 0.1, -20.0], [-0.4, 1.4, -0.2, 7.0], [0.0, 0.2, 2.9, 30.0], [0.0, 0.0, 0.0, 1.0]])


def ball(shape=(24, 20, 12), centre=(11, 9, 6), radius=5.0) -> np.ndarray:
    """Voxels (i, j, k): 300 in a ball, 20 around it."""
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) - np.array(centre)
    return np.where(np.linalg.norm(places, axis=-1) <= radius, 300.0, 20.0).astype(np.float32)


def write_nifti(path: Path, voxels: np.ndarray, affine=OBLIQUE, **header) -> Path:
    import nibabel

    image = nibabel.Nifti1Image(voxels, affine)
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


def write_series(folder: Path, voxels: np.ndarray, *, step=2.5, spacing=(0.7, 0.9), turn=None, start=(5.0, -8.0, 40.0)):
    """Writes a series of the slices of (columns, rows, slices), under names that are not in order; returns the folder."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    turn = np.array([[1.0, 0, 0], [0, 1.0, 0]] if turn is None else turn)
    normal = np.cross(*turn)
    series = generate_uid()
    for number in range(voxels.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        name = folder / f"{(number * 7) % voxels.shape[2]:03}.dcm"
        one = FileDataset(str(name), {}, file_meta=meta, preamble=b"\0" * 128)
        one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        one.SeriesInstanceUID, one.Modality = series, "CT"
        one.Rows, one.Columns = voxels.shape[1], voxels.shape[0]
        one.PixelSpacing, one.SliceThickness = list(spacing), step
        one.ImageOrientationPatient = [float(part) for part in turn.flat]
        one.ImagePositionPatient = [float(part) for part in np.array(start) + number * step * normal]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.RescaleSlope, one.RescaleIntercept = 2, -1000
        one.PixelData = np.ascontiguousarray((voxels[:, :, number].T + 1000) / 2).astype("<i2").tobytes()
        one.save_as(name, enforce_file_format=True)
    assert pydicom.dcmread(folder / "000.dcm").Rows == voxels.shape[1]
    return folder


def rewrite(path: Path, **values) -> None:
    """Changes elements of a DICOM file."""
    import pydicom

    one = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(one, name, value)
    one.save_as(path)
