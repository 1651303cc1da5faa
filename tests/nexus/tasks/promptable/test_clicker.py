"""An image encoded once answers clicks as `Predictor` does, and each click goes on from the mask before."""

import numpy as np
import pytest
import torch

import nexus
from nexus.core.preprocessing import Preprocessing
from nexus.models.cv import SAM, SAMConfig
from nexus.proofs.parity import randomize
from nexus.proofs.sam import SMALL
from nexus.tasks import task_of
from nexus.tasks.clicks import Clickable, Clicks

SIZE = (45, 90)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sam = SAM(SAMConfig(**SMALL)).eval()
    randomize(sam)
    sam.preprocessing = Preprocessing(
        image_size=(64, 64), resize="within", resize_size=64, interpolation="bilinear", rounding="sam"
    )
    return sam


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def clicker(model):
    task = task_of(model).for_model(model)
    assert isinstance(task, Clickable)
    return task.clicker(model)


def test_the_answers_are_those_of_the_predictor(model, clicker, image):
    encoded = clicker.encode(image)
    assert clicker.size_of(encoded) == 4 * encoded.embedding.numel()
    for clicks, prompt in (
        (Clicks(((30.0, 20.0, 1),)), {"points": [[30.0, 20.0]]}),
        (Clicks(box=(10.0, 5.0, 60.0, 40.0)), {"boxes": [10.0, 5.0, 60.0, 40.0]}),
        (
            Clicks(((30.0, 20.0, 1), (70.0, 9.0, 0)), (10.0, 5.0, 60.0, 40.0)),
            {"points": [[30.0, 20.0], [70.0, 9.0]], "labels": [1, 0], "boxes": [10.0, 5.0, 60.0, 40.0]},
        ),
    ):
        best = clicker.ask(encoded, clicks)[0]
        said = nexus.Predictor(model)(image, prompts=prompt)[0]
        assert np.array_equal(clicker.mask(encoded, best), said.masks()[0])
        assert best.score == pytest.approx(said.segments[0].score, abs=1e-6)


def test_a_first_point_has_three_guesses_the_best_first(clicker, image):
    encoded = clicker.encode(image)
    guesses = clicker.ask(encoded, Clicks(((30.0, 20.0, 1),)))
    assert len(guesses) == 3
    assert [one.score for one in guesses] == sorted((one.score for one in guesses), reverse=True)
    assert len(clicker.ask(encoded, Clicks(((30.0, 20.0, 1), (5.0, 5.0, 0))))) == 1
    assert len(clicker.ask(encoded, Clicks(((30.0, 20.0, 1),)), guesses[0].memory)) == 1


def test_a_further_click_goes_on_from_the_mask_before(model, clicker, image):
    encoded = clicker.encode(image)
    first = clicker.ask(encoded, Clicks(((30.0, 20.0, 1),)))[1]
    two = Clicks(((30.0, 20.0, 1), (70.0, 9.0, 0)))
    (second,) = clicker.ask(encoded, two, first.memory)
    scale = torch.tensor([64 / 90, 32 / 45])
    prompt = {"points": torch.tensor([[30.0, 20.0], [70.0, 9.0]]) * scale, "labels": [1, 0], "masks": first.memory}
    with torch.no_grad():
        said = model.predict(image_embedding=encoded.embedding, prompt=prompt, multimask=False)
    torch.testing.assert_close(second.memory, said["low_res_masks"][0, 0, 0])
    assert not torch.equal(second.memory, clicker.ask(encoded, two)[0].memory)


def test_wrong_clicks_are_named(clicker, image):
    encoded = clicker.encode(image)
    with pytest.raises(ValueError, match="There is no prompt"):
        clicker.ask(encoded, Clicks())
    with pytest.raises(ValueError, match=r"The point \(91, 3\) is outside of the image, which is 90 x 45"):
        clicker.ask(encoded, Clicks(((91.0, 3.0, 1),)))
