"""Masks of everything: those of the authors' code, kept in `tests/nexus/models/golden/sam_everything`."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import nexus
from nexus.core.formats import to_our_names
from nexus.core.preprocessing import Preprocessing
from nexus.models.cv import SAM, SAMConfig
from nexus.tasks.promptable import Everything
from nexus.tasks.promptable.everything import remove_small_regions

GOLDEN = Path(__file__).parents[2] / "models" / "golden" / "sam_everything"
AUTHORS = SAMConfig(
    image_size=128,
    patch_size=8,
    encoder_embed_dim=32,
    encoder_depth=3,
    encoder_num_heads=2,
    encoder_global_blocks=(1,),
    window_size=5,
    embed_dim=64,
    decoder_num_heads=4,
    decoder_mlp_dim=128,
    iou_head_dim=64,
)
PIXELS = Preprocessing(
    image_size=(128, 128), resize="within", resize_size=128, interpolation="bilinear", rounding="sam"
)
OURS = {
    "points_per_side": "points_per_side",
    "points_per_batch": "points_at_once",
    "pred_iou_thresh": "min_score",
    "stability_score_thresh": "min_stability",
    "box_nms_thresh": "max_overlap",
    "crop_n_layers": "crop_layers",
    "crop_nms_thresh": "max_crop_overlap",
    "crop_overlap_ratio": "crop_overlap",
    "crop_n_points_downscale_factor": "crop_points_divisor",
    "min_mask_region_area": "min_area",
}
RUNS = json.loads(GOLDEN.with_suffix(".json").read_text())["runs"]


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN.with_suffix(".safetensors"))


@pytest.fixture(scope="module")
def model(golden):
    weights = {key.removeprefix("weights/"): value for key, value in golden.items() if key.startswith("weights/")}
    sam = SAM(AUTHORS).eval()
    sam.load_state_dict(to_our_names({key: value.float() for key, value in weights.items()}, SAM.formats)[0])
    sam.preprocessing = PIXELS
    return sam


def iou(a, b):
    return (a & b).sum() / max(1, (a | b).sum())


def masks_of(golden, run, size):
    """The authors' masks, of runs down the columns."""
    counts = golden[f"outputs/{run}/rle_counts"].split(golden[f"outputs/{run}/rle_lengths"].tolist())
    for runs in counts:
        inside = np.arange(len(runs)) % 2 == 1
        yield np.repeat(inside, runs.numpy()).reshape(size[::-1]).T


@pytest.mark.parametrize("run", RUNS)
def test_masks_are_the_authors(model, golden, run):
    settings = Everything(**{OURS[key]: value for key, value in RUNS[run].items()})
    image = golden["inputs/image"].numpy()
    found = nexus.Predictor(model)(image, prompts=settings)[0]
    theirs = list(masks_of(golden, run, image.shape[:2]))
    assert len(found) == len(theirs)
    for place, (segment, mask) in enumerate(zip(found.segments, theirs)):
        assert iou(segment.mask.decode(), mask) > 0.998
        assert segment.score == pytest.approx(golden[f"outputs/{run}/predicted_iou"][place].item(), abs=1e-4)
        assert segment.stability == pytest.approx(golden[f"outputs/{run}/stability_score"][place].item(), abs=2e-3)
        assert segment.point == pytest.approx(golden[f"outputs/{run}/point_xy"][place].tolist())
        left, top, width, height = golden[f"outputs/{run}/bbox_xywh"][place].tolist()
        x1, y1, x2, y2 = segment.box  # the authors' width is one less
        assert np.allclose([x1, y1, x2 - x1 - 1, y2 - y1 - 1], [left, top, width, height], atol=1)


@pytest.mark.parametrize(
    ("size", "layers"), [((100, 128), 1), ((333, 517), 2), ((600, 800), 1), ((600, 800), 2)], ids=str
)
def test_parts_of_an_image_are_the_authors(golden, size, layers):
    crops = Everything(crop_layers=layers).crops(*size)
    assert [list(crop) for crop in crops] == golden[f"outputs/crop_boxes/{size[0]}x{size[1]}_layers{layers}"].tolist()


def test_grids_of_points_are_the_authors(golden):
    settings = Everything(points_per_side=5, crop_layers=2, crop_points_divisor=2)
    for layer in range(3):
        wanted = golden[f"outputs/point_grids/per_side5_layers2_factor2.{layer}"].numpy()
        assert np.allclose(settings.points(layer), wanted)


def test_small_holes_and_islands_go():
    mask = np.zeros((12, 12), dtype=bool)
    mask[1:8, 1:8] = True
    mask[3, 3] = False  # a hole
    mask[10, 10] = True  # an island
    tidy, changed = remove_small_regions(mask, 4)
    assert changed
    assert tidy.sum() == 49
    assert not remove_small_regions(tidy, 4)[1]
    only = np.zeros((5, 5), dtype=bool)
    only[0, 0] = only[3, 3] = only[4, 4] = True  # corners that touch belong together
    tidy, changed = remove_small_regions(only, 9)
    assert tidy.sum() == 2
    assert changed


def test_nothing_that_is_good_enough_is_no_error(model):
    found = nexus.Predictor(model)(
        np.zeros((40, 60, 3), np.uint8), prompts=Everything(points_per_side=2, min_score=0.999, crop_layers=1)
    )[0]
    assert len(found) == 0
    assert str(found).endswith("no mask")
    assert found.masks().shape == (0, 40, 60)
    assert found.draw().size[0] >= 60


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points_per_side": 0}, "points_per_side, points_at_once and crop_points_divisor are at least 1"),
        ({"crop_layers": 5}, "crop_layers is 5, from 0 to 4"),
        ({"max_overlap": 1.5}, "max_overlap is 1.5; it is a share"),
        ({"min_iou": 0.5}, "unexpected keyword"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Everything(**changes)


def test_answers_do_not_depend_on_how_many_come_at_once(model):
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    settings = {"points_per_side": 4, "min_score": -10.0, "min_stability": 0.0}
    whole, few = (
        nexus.Predictor(model)(image, prompts=Everything(**settings, points_at_once=count))[0] for count in (64, 3)
    )
    assert [one.point for one in whole.segments] == [one.point for one in few.segments]
    assert all((a != b).sum() <= 2 for a, b in zip(whole.masks(), few.masks()))


def test_what_is_said_is_plain_json(model):
    image = np.zeros((30, 30, 3), np.uint8)
    found = nexus.Predictor(model)(image, prompts=Everything(points_per_side=2, min_score=-10.0, min_stability=0.0))[0]
    said = json.loads(json.dumps(found.to_json()))
    assert len(said["segments"]) == len(found) > 0
    assert said["segments"][0].keys() == {"prompt", "score", "area", "box", "mask", "point", "stability"}
