"""Explanations of found objects: the heat lies where the score comes from, and the attention is that of its query."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from nexus import create_model
from nexus.cli.commands import app
from nexus.core.preprocessing import Preprocessing
from nexus.visualization import object_gradcam, plot_query_attention, query_attention

TINY_DETR = {
    "backbone": "resnet18", "embed_dim": 16, "num_layers": (1, 2), "num_heads": 2, "hidden_dim": 16, "num_queries": 5,
    "num_classes": 3,
}  # fmt: skip


class TwoPlaces(nn.Module):
    """Finds two objects: the sure one by the upper left corner of a map, the other by the lower right."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 4, stride=4)
        nn.init.constant_(self.conv.weight, 0.1)

    def forward(self, images):
        fine = self.conv(images)
        coarse = nn.functional.avg_pool2d(fine, 2)
        scores = torch.stack([fine[0, :, 0, 0].sum() + 5, coarse[0, :, -1, -1].sum()])
        boxes = torch.tensor([[0.0, 0, 4, 4], [8, 8, 16, 16]])
        return {"features": [fine, coarse], "boxes": [boxes], "scores": [scores], "labels": [torch.tensor([0, 1])]}


def test_the_heat_lies_where_the_score_comes_from():
    model, image = TwoPlaces().train(), torch.rand(1, 16, 16)
    # The mean gradient weighs a channel; the places that are bright in it are hot: make the corners bright.
    image[:, :4, :4], image[:, 4:, 4:], image[:, 8:, 8:] = 20.0, 0.0, 10.0
    first, second = object_gradcam(model, image), object_gradcam(model, image, 1)
    for heat in (first, second):
        assert heat.shape == (16, 16)
        assert heat.min() >= 0
        assert heat.max() == 1
    assert first.argmax() == 0
    assert second[12:, 12:].mean() > second[:4, 8:].mean() * 2
    assert model.training
    assert model.conv.weight.grad is None


def test_one_map_is_gradcam_by_the_equations():
    model, image = TwoPlaces(), torch.rand(1, 1, 16, 16)
    activations = model.conv(image)
    slope = torch.zeros_like(activations)
    slope[0, :, 0, 0] = 1
    heat = (slope.mean((2, 3), keepdim=True) * activations).sum(1, keepdim=True).relu()
    expected = nn.functional.interpolate(heat, size=(16, 16), mode="bilinear")[0, 0]
    torch.testing.assert_close(object_gradcam(model, image), expected / expected.max())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("detr_resnet50", TINY_DETR),
        (
            "fasterrcnn_resnet50_fpn",
            {
                "backbone": "resnet18", "num_classes": 3, "pyramid_dim": 8, "box_head": {"hidden_dim": 8},
                "detect": {"min_score": 0.0}, "rpn": {"num_proposals": (20, 10)},
            },
        ),
    ],
)  # fmt: skip
def test_detectors_of_the_zoo_are_explained(name, changes):
    torch.manual_seed(0)
    model = create_model(name, **changes).eval()
    heat = object_gradcam(model, torch.rand(3, 64, 96), rank=1)
    assert heat.shape == (64, 96)
    assert heat.min() >= 0
    assert heat.max() == 1
    assert len(heat.unique()) > 10


@pytest.fixture
def detr():
    torch.manual_seed(0)
    return create_model("detr_resnet50", **TINY_DETR).eval()


def test_attention_is_that_of_the_objects_query(detr):
    with torch.no_grad():
        outputs = detr(torch.rand(1, 3, 64, 96), output_attentions=True)
    chances = outputs["pred_logits"][0].softmax(-1)[:, :-1].amax(-1)
    for rank in range(5):
        query = int(chances.argsort(descending=True)[rank])
        expected = outputs["attentions"][-1][0, :, query].mean(0).view(2, 3)
        torch.testing.assert_close(query_attention(outputs, rank), expected)
        assert query_attention(outputs, rank).sum() == pytest.approx(1, abs=1e-5)


def test_the_figure_has_a_panel_for_each_object(detr):
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        outputs = detr(image, output_attentions=True)
    figure = plot_query_attention(outputs, image[0], ranks=(0, 3), class_names=("cat", "dog", "bird"))
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 2
    assert titles[1].startswith("3: ")
    assert titles[0].split()[1] in ("cat", "dog", "bird")


def test_errors_say_what_is_missing(detr):
    image = torch.rand(3, 64, 64)
    with pytest.raises(ValueError, match="There is no object 5; 5 were found, 0 to 4"):
        object_gradcam(detr, image, 5)
    with pytest.raises(ValueError, match="output_attentions=True"):
        query_attention(detr(image[None]), 0)
    classifier = create_model("resnet18", num_classes=2).eval()
    with pytest.raises(ValueError, match="a detector gives boxes and scores"):
        object_gradcam(classifier, image)


@pytest.mark.parametrize("method", ["gradcam", "attention", "features"])
def test_the_command_explains_an_object(detr, tmp_path, method):
    detr.preprocessing = Preprocessing(image_size=(96, 128), resize="within", resize_size=64)
    detr.class_names = ("cat", "dog", "bird")
    folder, photo, picture = tmp_path / "model", tmp_path / "photo.png", tmp_path / "explained.png"
    detr.save_pretrained(folder)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(photo)
    arguments = ["explain", str(photo), "--model", str(folder), "--method", method, "--output", str(picture)]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "Object 0 of 5 is" in shown.stdout
    assert np.asarray(Image.open(picture).convert("RGB")).std() > 5
    with pytest.raises(ValueError, match="no method 'rollout' for detection"):
        CliRunner().invoke(app, [*arguments[:5], "rollout", *arguments[6:]], catch_exceptions=False)
