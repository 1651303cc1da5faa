"""NIfTI and DICOM: voxels where nibabel and pydicom have them, and every fault by name."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from nexus.data.medical import (
    VolumeError,
    find_window,
    read_dicom,
    read_nifti,
    read_volume,
    to_levels,
    write_mask,
)
from nexus.data.medical.space import Volume
from tests.nexus.data.medical.drawn_scans import OBLIQUE, ball, rewrite, write_nifti, write_series

pytestmark = [pytest.mark.needs("nibabel"), pytest.mark.needs("pydicom")]
SAGITTAL = [[0.0, 1.0, 0.0], [0.0, 0.0, -1.0]]


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_nifti_is_where_nibabel_has_it(tmp_path, name):
    path = write_nifti(tmp_path / name, ball())
    volume = read_volume(path)
    assert np.array_equal(volume.voxels, ball())
    assert np.allclose(volume.affine, OBLIQUE, atol=1e-5)
    assert volume.spacing_mm == pytest.approx(np.linalg.norm(OBLIQUE[:3, :3], axis=0), abs=1e-5)


def test_slope_and_intercept_are_followed(tmp_path, needed):
    nibabel = needed("nibabel")
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(0.5, -3.0)
    nibabel.save(image, tmp_path / "scaled.nii")
    wanted = nibabel.load(tmp_path / "scaled.nii").get_fdata()
    assert np.allclose(read_nifti(tmp_path / "scaled.nii").voxels, wanted)


def test_a_real_brain_of_nibabel(needed):
    nibabel = needed("nibabel")
    path = Path(nibabel.__file__).parent / "tests" / "data" / "anatomical.nii"
    volume, wanted = read_volume(path), nibabel.load(path)
    assert np.array_equal(volume.voxels, wanted.get_fdata(dtype=np.float32))
    assert np.array_equal(volume.affine, wanted.affine)


@pytest.mark.parametrize("turn", [None, SAGITTAL, [[0.8, 0.6, 0.0], [0.0, 0.0, -1.0]]])
def test_a_series_is_in_order_and_in_place(tmp_path, turn):
    voxels = ball()
    start = np.array([5.0, -8.0, 40.0])
    volume = read_volume(write_series(tmp_path / "series", voxels, turn=turn))
    assert np.array_equal(volume.voxels, voxels)
    assert volume.modality == "CT"
    assert volume.spacing_mm == pytest.approx((0.9, 0.7, 2.5))  # PixelSpacing tells the rows' first
    across, down = np.array([[1.0, 0, 0], [0, 1.0, 0]] if turn is None else turn)
    column, row, number = 3, 11, 7
    lps = start + 0.9 * column * across + 0.7 * row * down + 2.5 * number * np.cross(across, down)
    ras = volume.affine @ [column, row, number, 1]
    assert ras[:3] == pytest.approx([-lps[0], -lps[1], lps[2]])


def test_real_files_of_pydicom(tmp_path, needed):
    pydicom = needed("pydicom")
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    shutil.copy(folder / "CT_small.dcm", tmp_path)
    volume, wanted = read_dicom(tmp_path), pydicom.dcmread(folder / "CT_small.dcm")
    hounsfield = wanted.pixel_array * float(wanted.RescaleSlope) + float(wanted.RescaleIntercept)
    assert np.array_equal(volume.voxels[:, :, 0].T, hounsfield.astype(np.float32))
    assert volume.spacing_mm == pytest.approx((0.661468, 0.661468, 5.0))


def test_white_is_high_whatever_the_file_calls_white(tmp_path):
    voxels = ball()
    folder = write_series(tmp_path / "series", voxels)
    for path in folder.iterdir():
        rewrite(path, PhotometricInterpretation="MONOCHROME1")
    turned = read_dicom(folder).voxels
    middle = voxels[:, :, 6]
    assert np.array_equal(turned[:, :, 6], middle.max() + middle.min() - middle)


@pytest.mark.parametrize("name", ["mask.nii", "mask.nii.gz"])
def test_masks_are_written_in_the_same_space(tmp_path, needed, name):
    nibabel = needed("nibabel")
    volume = read_dicom(write_series(tmp_path / "series", ball(), turn=SAGITTAL))
    mask = (volume.voxels > 100).astype(np.int32) * 3
    path = write_mask(tmp_path / "out" / name, mask, volume)
    again = nibabel.load(path)
    assert np.array_equal(again.get_fdata(), mask)
    assert np.allclose(again.affine, volume.affine, atol=1e-5)
    assert np.allclose(again.get_qform(), volume.affine, atol=1e-4)
    assert (again.get_data_dtype(), again.header.get_xyzt_units()[0]) == (np.dtype(np.uint8), "mm")
    with pytest.raises(ValueError, match=r"mask.png ends in '.png'; a mask of a volume is written to .nii or .nii.gz"):
        write_mask(tmp_path / "mask.png", mask, volume)
    with pytest.raises(ValueError, match="they must be one"):
        write_mask(tmp_path / "mask.nii", mask[1:], volume)


def test_windows_and_shares():
    values = np.array([-2000.0, -160, 40, 240, 2000], np.float32).reshape(1, 1, 5)
    volume = Volume(values, np.eye(4), "ct.nii", "CT")
    assert to_levels(volume, find_window("soft_tissue")).tolist() == [[[0, 0, 127, 255, 255]]]
    assert find_window("soft_tissue") == find_window("40,400")
    chance = np.random.default_rng(0).normal(500, 100, (20, 20, 20)).astype(np.float32)
    chance[:4] = 0
    levels = to_levels(Volume(chance, np.eye(4), "mr.nii", "MR"), find_window("mr"))
    low, high = np.percentile(chance[chance != 0], [0.5, 99.5])
    assert np.array_equal(levels[4:], ((np.clip(chance[4:], low, high) - low) / (high - low) * 255).astype(np.uint8))
    assert not levels[:4].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lunge", "There is no window 'lunge'. Did you mean 'lung'"),
        ("40", "There is no window '40'"),
        ("40,0", "The window '40,0' has no width above 0"),
        ("nan,400", "has no width above 0"),
    ],
)
def test_windows_that_are_none(text, message):
    with pytest.raises(ValueError, match=message):
        find_window(text)


def test_nothing_to_see():
    with pytest.raises(ValueError, match=r"mr\.nii holds nothing but zeros"):
        to_levels(Volume(np.zeros((2, 2, 2), np.float32), np.eye(4), "mr.nii"), None)


def _four_dimensions(path):
    write_nifti(path, np.zeros((4, 4, 4, 3), np.float32))


def _no_affine(path):
    write_nifti(path, ball(), affine=None)


def _flat_affine(path):
    write_nifti(path, ball())
    data = bytearray(path.read_bytes())
    data[280:328] = bytes(48)  # the rows of the sform
    path.write_bytes(data)


def _cut(path):
    write_nifti(path, ball())
    path.write_bytes(path.read_bytes()[:-100])


def _not_finite(path):
    voxels = ball()
    voxels[0, 0, 0] = np.nan
    write_nifti(path, voxels)


def _complex(path):
    write_nifti(path, ball().astype(np.complex64))


def _huge(path):
    write_nifti(path, ball())
    data = bytearray(path.read_bytes())
    data[40:56] = np.array([3, 30000, 30000, 30000, 1, 1, 1, 1], "<i2").tobytes()
    path.write_bytes(data)


def _far(path):
    write_nifti(path, ball())
    data = bytearray(path.read_bytes())
    data[108:112] = np.array([1e12], "<f4").tobytes()
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_four_dimensions, r"is 4-D \(4 x 4 x 4 x 3\); a volume has three dimensions"),
        (_no_affine, r"has no affine \(its sform and qform codes are 0\)"),
        (_flat_affine, "its affine does not span a volume"),
        (_cut, "is damaged or cut off"),
        (_not_finite, "holds voxels that are not finite"),
        (_complex, "holds complex64; a volume has one real number in each voxel"),
        (_huge, "30000 x 30000 x 30000 voxels; a volume has at least 1 along each axis, 268,435,456 in all"),
        (_far, "voxels begin at byte 1e\\+12"),
        (lambda path: path.write_bytes(b"hello" * 200), "does not begin with the header of a NIfTI file"),
        (lambda path: path.write_bytes(b""), "does not begin with the header"),
        (lambda path: path.write_bytes(gzip.compress(b"x" * 400)), "is packed by gzip, and its name says otherwise"),
        (lambda path: None, "does not exist"),
    ],
)
def test_nifti_files_that_are_none_are_refused(tmp_path, write, message):
    write(tmp_path / "scan.nii")
    with pytest.raises(VolumeError, match=message) as caught:
        read_nifti(tmp_path / "scan.nii")
    assert "\n" not in str(caught.value)


def _missing(folder):
    (folder / "007.dcm").unlink()


def _twice(folder):
    shutil.copy(folder / "007.dcm", folder / "copy.dcm")


def _two_series(folder):
    rewrite(folder / "007.dcm", SeriesInstanceUID="1.2.3")


def _other_size(folder):
    write_series(folder / "other", ball((10, 10, 2)))
    shutil.copy(folder / "other" / "000.dcm", folder / "007.dcm")
    rewrite(folder / "007.dcm", SeriesInstanceUID=_uid(folder))


def _uid(folder):
    import pydicom

    return pydicom.dcmread(folder / "000.dcm").SeriesInstanceUID


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_missing, r"1 slice is missing between \d+.dcm and \d+.dcm, 5 mm apart where others are 2.5 mm"),
        (_twice, r"007.dcm and copy.dcm lie in one place"),
        (_two_series, "holds 2 series"),
        (_other_size, "007.dcm has 10 x 10 pixels and 000.dcm 20 x 24; a series has one size"),
        (
            lambda folder: rewrite(folder / "007.dcm", ImageOrientationPatient=[0.0, 1, 0, 1, 0, 0]),
            "007.dcm lies in another direction than 000.dcm",
        ),
        (lambda folder: rewrite(folder / "007.dcm", PixelSpacing=[1.0, 1.0]), "has another spacing than"),
        (lambda folder: rewrite(folder / "007.dcm", NumberOfFrames=3), "holds many frames in one file"),
        (lambda folder: rewrite(folder / "007.dcm", SamplesPerPixel=3), "is in colours"),
        (
            lambda folder: rewrite(folder / "007.dcm", ImagePositionPatient=None),
            "has no ImagePositionPatient; take it out",
        ),
        (lambda folder: rewrite(folder / "007.dcm", PixelData=b"\0" * 10), "its pixels .* cannot be read"),
        (lambda folder: (folder / "notes.txt").write_text("CT of 2020"), "notes.txt is no DICOM file that can be read"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "holds no file"),
    ],
)
def test_series_that_are_none_are_refused(tmp_path, damage, message):
    folder = write_series(tmp_path / "series", ball())
    damage(folder)
    shutil.rmtree(folder / "other", ignore_errors=True)
    with pytest.raises(VolumeError, match=message) as caught:
        read_dicom(folder)
    assert "\n" not in str(caught.value)


def test_other_paths_are_refused(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"x")
    with pytest.raises(VolumeError, match=r"photo\.png is no scan: give a \.nii or \.nii\.gz, or the folder"):
        read_volume(tmp_path / "photo.png")
    with pytest.raises(VolumeError, match="nothere does not exist"):
        read_volume(tmp_path / "nothere")
