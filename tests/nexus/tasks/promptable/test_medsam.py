"""MedSAM is asked about pictures: by boxes in their pixels, and by nothing else."""

import numpy as np
import pytest
import torch

import nexus
from nexus.models.cv import MedSAM, SAMConfig
from nexus.models.registry import model_info
from nexus.proofs.parity import randomize
from nexus.proofs.sam import SMALL
from nexus.tasks.clicks import Clicks
from nexus.tasks.promptable.asking import read_texts
from nexus.tasks.promptable.encoded import SamClicker

PIXELS = model_info("medsam_vit_base").preprocessing.fitted({"image_size": 64})


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    medsam = MedSAM(SAMConfig(**SMALL)).eval()
    randomize(medsam)
    medsam.preprocessing = PIXELS
    return medsam


def by_hand(needed, model, image, box):
    """The authors' few lines: scikit-image's resize, 8 bits, the image's own levels, the box in shares of the sides."""
    height, width = image.shape[:2]
    small = needed("skimage.transform").resize(image, (64, 64), order=3, preserve_range=True, anti_aliasing=True)
    levels = small.astype(np.uint8).astype(np.float64)
    levels = (levels - levels.min()) / max(levels.max() - levels.min(), 1e-8)
    images = torch.from_numpy(levels).permute(2, 0, 1)[None].float()
    boxes = torch.tensor(box).double() / torch.tensor([width, height, width, height]) * 64
    with torch.no_grad():
        answer = model(images, boxes=boxes.float()[None, None], multimask=False)
    low = answer["low_res_masks"][0].sigmoid()
    masks = torch.nn.functional.interpolate(low, (height, width), mode="bilinear", align_corners=False)
    return (masks[0, 0] > 0.5).numpy(), answer["iou_scores"][0, 0, 0].item()


def test_a_box_is_answered_as_in_the_authors_script(needed, model):
    image = np.random.default_rng(0).integers(0, 255, (45, 90, 3), dtype=np.uint8)
    found = nexus.Predictor(model)(image, prompts={"boxes": [10, 5, 60, 40]})[0]
    mask, score = by_hand(needed, model, image, [10, 5, 60, 40])
    assert 0.05 < mask.mean() < 0.95
    assert np.array_equal(found.masks()[0], mask)
    assert found.segments[0].score == pytest.approx(score, abs=1e-5)


def test_grey_and_other_units_are_stretched(needed, model):
    """Floats need not be 0 to 1: the levels are the image's own."""
    grey = np.random.default_rng(0).integers(0, 200, (45, 90), dtype=np.uint8)
    predictor, box = nexus.Predictor(model), {"boxes": [10, 5, 60, 40]}
    mask, _ = by_hand(needed, model, grey[:, :, None].repeat(3, axis=2), [10, 5, 60, 40])
    assert np.array_equal(predictor(grey, prompts=box)[0].masks()[0], mask)
    hounsfield = predictor(grey.astype(np.float32) * 7 - 300, prompts=box)[0]
    assert (hounsfield.masks()[0] != mask).mean() < 0.01


@pytest.mark.parametrize(
    ("prompts", "told"),
    [
        ({"points": [[3, 4]]}, "points"),
        ({"boxes": [1, 2, 30, 40], "points": [[3, 4]]}, "points"),
        ("everything", "everything"),
        ({"boxes": [1, 2, 30, 40], "multimask": True}, "all masks of an ambiguous prompt"),
        (read_texts(["500,375"]), "points, labels"),
    ],
)
def test_what_it_was_not_trained_for_is_refused(model, prompts, told):
    image = np.zeros((45, 90, 3), np.uint8)
    with pytest.raises(
        ValueError, match=rf"trained to answer a box with one mask, and is asked for {told}; give boxes"
    ):
        nexus.Predictor(model)(image, prompts=prompts)


def test_an_annotation_page_gives_it_boxes(model):
    image = np.random.default_rng(0).integers(0, 255, (45, 90, 3), dtype=np.uint8)
    clicker = SamClicker(model)
    encoded = clicker.encode(image)
    (guess,) = clicker.ask(encoded, Clicks(box=(10, 5, 60, 40)))
    alone = nexus.Predictor(model)(image, prompts={"boxes": [10, 5, 60, 40]})[0]
    assert np.array_equal(clicker.mask(encoded, guess), alone.masks()[0])
    (again,) = clicker.ask(encoded, Clicks(box=(10, 5, 60, 40)), guess.memory)
    assert np.array_equal(clicker.mask(encoded, again), alone.masks()[0])
    with pytest.raises(ValueError, match="MedSAM was trained to answer a box"):
        clicker.ask(encoded, Clicks(points=((3, 4, 1),)))
