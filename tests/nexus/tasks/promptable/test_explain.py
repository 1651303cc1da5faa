"""What the mask decoder looks at: its own weights of attention, over the part of the image that is there."""

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from nexus.cli.commands import app
from nexus.core.preprocessing import Preprocessing
from nexus.data import eval_transform
from nexus.models.cv import SAM, SAMConfig
from nexus.models.cv.sam import Prompts
from nexus.models.cv.sam2 import SAM2
from nexus.proofs.parity import randomize
from nexus.proofs.sam import SMALL
from nexus.tasks.promptable.explain import attending, look
from nexus.tasks.question import Question

PIXELS = Preprocessing(image_size=(64, 64), resize="within", resize_size=64, interpolation="bilinear", rounding="sam")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sam = SAM(SAMConfig(**SMALL)).eval()
    randomize(sam)
    sam.preprocessing = PIXELS
    return sam


@pytest.fixture(scope="module")
def photo():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 120, 3), dtype=np.uint8)  # 32 x 64 of 64 x 64 are seen
    return Image.fromarray(pixels)


def question(model, photo, **prompts):
    pixels = eval_transform(PIXELS)(photo)[None]
    return Question(model, pixels, None, None, prompts, (60, 120))


def test_weights_are_those_that_the_decoder_answers_with(model, photo):
    """The tokens that come out of the last look are made of the weights that are shown."""
    embeddings = torch.randn(1, model.config.embed_dim, 4, 4)
    layer = model.mask_decoder.final_attn
    given = []
    handle = layer.register_forward_hook(lambda module, inputs, output: given.append((*inputs, output)))
    try:
        with torch.no_grad(), attending(model.mask_decoder) as maps:
            model.predict(image_embedding=embeddings, prompt={"points": [[20, 30]]})
    finally:
        handle.remove()
    [(query, key, value, output)] = given
    weights = layer.maps(query, key)
    heads = layer.v_proj(value).unflatten(-1, (layer.num_heads, -1)).transpose(2, 3)
    torch.testing.assert_close(layer.out_proj((weights @ heads).transpose(2, 3).flatten(3)), output)
    torch.testing.assert_close(maps[-1], weights[0, 0].mean(dim=0))
    assert len(maps) == model.config.decoder_depth + 1
    assert not layer._forward_pre_hooks


def test_the_token_of_the_mask_and_of_each_prompt_is_shown(model, photo):
    found = look(question(model, photo, points=[[50, 30], [90, 20]], labels=[1, 0], boxes=[10, 10, 110, 50]))
    assert list(found.heats) == ["the mask", "point 1", "point 2", "upper left corner", "lower right corner"]
    patch = model.config.patch_size
    for heats in found.heats.values():
        assert len(heats) == model.config.decoder_depth + 1
        assert {tuple(one.shape) for one in heats} == {(32 // patch, 64 // patch)}
        assert all(0 < one.sum() <= 1 + 1e-6 for one in heats)
    assert found.mask.shape == (32, 64)


def test_the_mask_is_the_one_that_is_trusted_most(model, photo):
    found = look(question(model, photo, points=[[50, 30]]))
    padded = torch.nn.functional.pad(eval_transform(PIXELS)(photo)[None], (0, 0, 0, 32))
    with torch.no_grad():
        embedding = model.image_encoder(padded)
        prompt = {"points": [[50 * 64 / 120, 30 * 32 / 60]]}
        answer = model.predict(image_embedding=embedding, prompt=prompt)
    best = answer["iou_scores"][0, 0].argmax()
    assert found.score == pytest.approx(float(answer["iou_scores"][0, 0, best]), abs=1e-6)
    np.testing.assert_array_equal(found.mask, answer["masks"][0, 0, best, :32].numpy() > 0)


def test_explain_draws_the_decoder_from_the_shell(model, photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    model.save_pretrained(tmp_path / "sam")
    drawn = tmp_path / "why.png"

    def run(*more):
        given = ["explain", str(tmp_path / "photo.png"), "--model", str(tmp_path / "sam"), "-o", str(drawn), *more]
        return CliRunner().invoke(app, given)

    result = run("--point", "50,30", "--point", "not:90,20")
    assert result.exit_code == 0, result.output
    assert "of the image; the model expects an IoU of" in result.stdout
    assert np.asarray(Image.open(drawn).convert("RGB")).std() > 5
    assert "give a point (--point 500,375), a box" in str(run().exception)
    assert "A segmenter is explained for one prompt" in str(run("--prompt", "everything").exception)
    assert "There is no method 'gradcam'" in str(run("--point", "50,30", "--method", "gradcam").exception)


def test_a_kind_without_prompts_refuses_them(tmp_path, photo):
    photo.save(tmp_path / "photo.png")
    import nexus

    nexus.create_model("resnet18", num_classes=2, hidden_dim=8).save_pretrained(tmp_path / "classifier")
    given = ["explain", str(tmp_path / "photo.png"), "--model", str(tmp_path / "classifier"), "--point", "5,5"]
    assert "takes none; leave them out" in str(CliRunner().invoke(app, given).exception)


def test_sam_2_is_explained_too(photo):
    torch.manual_seed(0)
    widths = {"trunk_embed_dim": 8, "embed_dim": 32, "memory_dim": 8, "memory_depth": 1}
    sam2 = SAM2({"image_size": 64, "trunk_depths": (1, 1, 2, 1), "trunk_global_blocks": (3,), **widths}).eval()
    randomize(sam2)
    squashed = Preprocessing(image_size=(64, 64), resize="squash", interpolation="bilinear")
    pixels = eval_transform(squashed)(photo)[None]
    prompts = {"points": [[50, 30]], "boxes": [10, 10, 110, 50]}
    found = look(Question(sam2, pixels, None, None, prompts, (60, 120)))
    assert list(found.heats) == ["the mask", "point 1", "upper left corner", "lower right corner"]
    assert all(one.shape == (4, 4) and abs(one.sum() - 1) < 1e-5 for heats in found.heats.values() for one in heats)
    points = torch.tensor([[[50 * 64 / 120, 30 * 64 / 60]]])
    with torch.no_grad(), attending(sam2.mask_decoder) as maps:
        boxes = torch.tensor([[10 * 64 / 120, 10 * 64 / 60, 110 * 64 / 120, 50 * 64 / 60]])
        sam2.decode(
            sam2.encode(pixels), Prompts(points[None], torch.ones(1, 1, 1).long(), boxes[None]), multimask=False
        )
    torch.testing.assert_close(found.heats["point 1"][-1].flatten(), maps[-1][6])  # object, IoU, four masks
    torch.testing.assert_close(found.heats["the mask"][-1].flatten(), maps[-1][2])
    torch.testing.assert_close(found.heats["lower right corner"][0].flatten(), maps[0][-1])
