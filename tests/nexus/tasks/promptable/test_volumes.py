"""A box in one slice becomes the object in the whole volume."""

import dataclasses

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from nexus.cli.commands import app
from nexus.data.medical import Volume, find_window, read_nifti, write_mask
from nexus.evaluation import compare_masks
from nexus.models.cv import MedSAM
from nexus.models.registry import model_info
from nexus.proofs.sam import SMALL
from nexus.tasks.clicks import Clicks, Guess
from nexus.tasks.promptable import Carrying, PromptableTask, SliceBox, segment_volume
from tests.nexus.data.medical.drawn_scans import OBLIQUE, ball, write_nifti, write_series

pytestmark = [pytest.mark.needs("nibabel"), pytest.mark.needs("pydicom")]


class Bright:
    """Answers a box with what is bright in it, and keeps what it was asked."""

    def __init__(self):
        self.boxes = []

    def encode(self, image):
        return image[:, :, 0]

    def size_of(self, encoded):
        return encoded.nbytes

    def ask(self, encoded, clicks: Clicks, memory=None):
        x1, y1, x2, y2 = (int(place) for place in clicks.box)
        self.boxes.append((x1, y1, x2, y2))
        mask = np.zeros(encoded.shape, dtype=bool)
        mask[y1:y2, x1:x2] = encoded[y1:y2, x1:x2] > 128
        return [Guess(1.0, mask)]

    def mask(self, encoded, guess):
        return guess.memory


CT = find_window("40,400")


@pytest.fixture
def volume():
    return Volume(ball(), OBLIQUE, "ct.nii", "CT")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_ball_is_followed_through_all_of_its_slices(volume, axis):
    middle = (11, 9, 6)[axis]
    sides = [side for place, side in enumerate(volume.voxels.shape) if place != axis]
    start = SliceBox(middle, (0.0, 0.0, float(sides[0]), float(sides[1])))
    found = segment_volume(Bright(), volume, [start], window=CT, carrying=Carrying(axis=axis))
    assert np.array_equal(found, (volume.voxels > 100).astype(int))


def test_the_box_goes_on_around_the_mask(volume):
    clicker = Bright()
    segment_volume(clicker, volume, [SliceBox(6, (2, 2, 22, 18))], window=CT, carrying=Carrying(margin=2))
    rows = np.flatnonzero((volume.voxels[:, :, 6] > 100).any(axis=0))
    columns = np.flatnonzero((volume.voxels[:, :, 6] > 100).any(axis=1))
    assert clicker.boxes[0] == (2, 2, 22, 18)
    assert clicker.boxes[1] == (columns[0] - 2, rows[0] - 2, columns[-1] + 3, rows[-1] + 3)


def test_slices_bound_it_and_the_first_object_stays(volume):
    inside = volume.voxels > 100
    bound = segment_volume(
        Bright(), volume, [SliceBox(6, (2, 2, 22, 18))], window=CT, carrying=Carrying(first=5, last=7)
    )
    assert np.flatnonzero(bound.any(axis=(0, 1))).tolist() == [5, 6, 7]
    both = segment_volume(
        Bright(), volume, [SliceBox(6, (2, 2, 12, 18)), SliceBox(6, (2, 2, 22, 18))], window=CT,
        carrying=Carrying(margin=0, first=6, last=6),
    )  # fmt: skip
    assert (both == 1).sum() == inside[2:12, :, 6].sum()
    assert ((both > 0) == inside)[:, :, 6].all()


def test_two_bodies_are_not_confused():
    voxels = np.maximum(ball(centre=(6, 9, 6), radius=4), ball(centre=(18, 9, 6), radius=4))
    volume = Volume(voxels, OBLIQUE, "ct.nii", "CT")
    boxes = [SliceBox(6, (0, 3, 12, 16)), SliceBox(6, (13, 3, 24, 16))]
    found = segment_volume(Bright(), volume, boxes, window=CT)
    assert np.array_equal(found == 1, (voxels > 100) & (np.arange(24)[:, None, None] < 12))
    assert np.array_equal(found == 2, (voxels > 100) & (np.arange(24)[:, None, None] > 12))


@pytest.mark.parametrize(
    ("boxes", "carrying", "message"),
    [
        ([], Carrying(), "There is no box"),
        ([SliceBox(12, (0, 0, 5, 5))], Carrying(), "The box is in slice 12, and the slices are 0 to 11"),
        ([SliceBox(3, (0, 0, 5, 5))], Carrying(first=5), "The box is in slice 3, and the slices are 5 to 11"),
        ([SliceBox(3, (5, 0, 2, 5))], Carrying(), r"The box \(5, 0, 2, 5\) is x1, y1, x2, y2 in voxels"),
        ([SliceBox(3, (0, 0, 25, 5))], Carrying(), "within the 24 x 20 of a slice"),
        ([SliceBox(3, (0, 0, 5, 5))], Carrying(last=99), "The slices are 0 to 99, and the volume has 12"),
    ],
)
def test_mistakes_are_answered(volume, boxes, carrying, message):
    with pytest.raises(ValueError, match=message):
        segment_volume(Bright(), volume, boxes, window=CT, carrying=carrying)


def small_medsam(folder):
    torch.manual_seed(0)
    model = MedSAM(SMALL).eval()
    model.preprocessing = dataclasses.replace(model_info("medsam_vit_base").preprocessing, image_size=(64, 64))
    return model.save_pretrained(folder)


def test_the_command_writes_a_mask_of_the_scan(tmp_path):
    scan, model = write_series(tmp_path / "series", ball()), small_medsam(tmp_path / "model")
    given = ["scan", str(scan), "--model", str(model), "--box", "6:5,3,18,16", "-o", str(tmp_path / "mask.nii.gz")]
    told = CliRunner().invoke(app, given)
    assert told.exit_code == 0, told.output
    assert "object 1: " in told.output
    mask = read_nifti(tmp_path / "mask.nii.gz")
    assert mask.voxels.shape == ball().shape
    clicker = PromptableTask().clicker(MedSAM.from_pretrained(model))
    from nexus.data.medical import read_dicom

    volume = read_dicom(scan)
    wanted = segment_volume(clicker, volume, [SliceBox(6, (5, 3, 18, 16))], window=find_window("soft_tissue"))
    assert np.array_equal(mask.voxels, wanted)
    assert np.allclose(mask.affine, volume.affine, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--box", "5,3,18,16"], "The box '5,3,18,16' is not SLICE:X1,Y1,X2,Y2"),
        (["--box", "6:5,3,18,16", "--slices", "3"], "--slices is '3'; write the first and the last one"),
        (["--box", "6:5,3,18,16", "-o", "mask.png"], "--output is mask.png; a mask of a volume is written to"),
        (["--box", "6:5,3,18,16", "--window", "bones"], "There is no window 'bones'. Did you mean 'bone'"),
        (["--box", "6:5,3,18,16"], "does not say whether it is a CT or an MR; say what to see: --window"),
    ],
)
def test_wrong_turns_of_the_command(tmp_path, changes, message):
    scan = write_nifti(tmp_path / "scan.nii", ball())
    given = ["scan", str(scan), "-o", str(tmp_path / "mask.nii"), *changes]
    told = CliRunner().invoke(app, given)
    assert told.exit_code != 0
    assert message in f"{told.output} {told.exception}"


def test_masks_are_compared_in_millimetres(tmp_path):
    volume = Volume(ball(), np.diag([2.0, 2.0, 2.0, 1.0]), "ct.nii", "CT")
    truth = (volume.voxels > 100).astype(int) * 2
    write_mask(tmp_path / "truth.nii", truth, volume)
    write_mask(tmp_path / "same.nii", truth, volume)
    write_mask(tmp_path / "moved.nii", np.roll(truth, 1, axis=0), volume)
    same = compare_masks(tmp_path / "same.nii", tmp_path / "truth.nii")
    assert same == {2: {"dice": 1.0, "nsd": 1.0, "hausdorff_95_mm": 0.0}}
    moved = compare_masks(tmp_path / "moved.nii", tmp_path / "truth.nii", tolerance_mm=1.0)[2]
    inside, other = truth > 0, np.roll(truth > 0, 1, axis=0)
    assert moved["dice"] == pytest.approx(2 * (inside & other).sum() / (inside.sum() + other.sum()))
    assert 0 < moved["hausdorff_95_mm"] <= 2.0 + 1e-6
    assert moved["nsd"] < compare_masks(tmp_path / "moved.nii", tmp_path / "truth.nii", tolerance_mm=2.5)[2]["nsd"]


def test_masks_of_other_spaces_are_not_compared(tmp_path):
    volume = Volume(ball(), OBLIQUE, "ct.nii", "CT")
    truth = (volume.voxels > 100).astype(int)
    write_mask(tmp_path / "truth.nii", truth, volume)
    moved = OBLIQUE.copy()
    moved[0, 3] += 5
    write_mask(tmp_path / "moved.nii", truth, dataclasses.replace(volume, affine=moved))
    with pytest.raises(ValueError, match="lie 5 mm apart: their affines differ"):
        compare_masks(tmp_path / "moved.nii", tmp_path / "truth.nii")
    write_nifti(tmp_path / "part.nii", truth[1:].astype(np.float32), OBLIQUE)
    with pytest.raises(ValueError, match="they are of two volumes"):
        compare_masks(tmp_path / "part.nii", tmp_path / "truth.nii")
    write_nifti(tmp_path / "half.nii", truth.astype(np.float32) / 2, OBLIQUE)
    with pytest.raises(ValueError, match="holds numbers that are no labels"):
        compare_masks(tmp_path / "half.nii", tmp_path / "truth.nii")
    write_mask(tmp_path / "empty.nii", truth * 0, volume)
    with pytest.raises(ValueError, match="holds a label above 0"):
        compare_masks(tmp_path / "empty.nii", tmp_path / "empty.nii")
