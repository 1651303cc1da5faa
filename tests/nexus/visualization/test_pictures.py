"""Pictures pixel by pixel, figures by what they hold, and the seeds' code as printed."""

import ast
import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nexus.visualization
from nexus.core.preprocessing import Preprocessing
from nexus.visualization import (
    caption,
    contact_sheet,
    overlay,
    plot_confusion_matrix,
    plot_guesses,
    plot_training_curves,
    to_data_uri,
    to_picture,
    to_png,
)
from nexus.visualization.curves import read_metrics, smooth


def test_every_kind_of_image_becomes_a_picture():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    settings = Preprocessing(image_size=(4, 6), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    normalized = (tensor - torch.tensor(settings.mean)[:, None, None]) / torch.tensor(settings.std)[:, None, None]
    for image in (Image.fromarray(pixels), pixels, pixels / 255, tensor, tensor[None], (tensor * 255).byte()):
        np.testing.assert_array_equal(to_picture(image), pixels)
    np.testing.assert_array_equal(to_picture(normalized, settings), pixels)


def test_other_numbers_of_channels():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 6, 5), dtype=np.uint8)
    np.testing.assert_array_equal(to_picture(pixels), pixels[..., :3])
    grey = np.asarray(to_picture(pixels[..., 0]))
    np.testing.assert_array_equal(grey, np.repeat(pixels[..., :1], 3, 2))


def test_values_outside_of_0_to_1_are_stretched():
    picture = np.asarray(to_picture(np.array([[-2.0, 0.0, 2.0]])))
    assert picture[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4, 4\) is not one image"):
        to_picture(torch.rand(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"shape \(7,\) is not one image"):
        to_picture(np.zeros(7))


def test_overlay_colours_the_hot_place_only():
    heat = torch.zeros(8, 8)
    heat[2:4, 2:4] = 1
    image = np.full((32, 32, 3), 128, np.uint8)
    result = np.asarray(overlay(image, heat, side=32)).astype(int)
    assert result.shape == (32, 32, 3)
    red, _, blue = result[12, 12]
    assert red > blue + 40
    assert (result[20:, 20:] == 128).all()
    assert overlay(np.zeros((8, 8), np.uint8), heat[None], side=100).size == (96, 96)
    with pytest.raises(ValueError, match=r"heat map of shape \(2, 8, 8\) is not one map"):
        overlay(image, torch.zeros(2, 8, 8))


def test_small_images_are_enlarged_with_sharp_pixels():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0, 0] = 255
    shown = np.asarray(caption(Image.fromarray(pixels), "a digit", side=128))
    assert shown.shape[1] == 128
    assert (shown[:16, :16] == 255).all()
    assert (shown[:128, 16:] == 0).all()
    assert shown[128:].min() < 100, "there is text under the image"


def test_a_contact_sheet_has_a_tile_for_each_image():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 255, 255), (255, 0, 255)]
    images = [Image.new("RGB", (8, 4), colour) for colour in colours]
    sheet = contact_sheet(
        images, ["a", "b\nc", "d", "e", "a text that is much too long for its tile"], columns=3, tile=48
    )
    seen = {colour for _, colour in sheet.getcolors(maxcolors=1 << 20)}
    assert set(colours) <= seen
    counts = {colour: count for count, colour in sheet.getcolors(maxcolors=1 << 20)}
    assert all(counts[colour] == 48 * 24 for colour in colours)
    with pytest.raises(ValueError, match="5 images and 1 captions"):
        contact_sheet(images, ["a"])


def test_png_of_figures_and_pictures():
    figure = plot_guesses(Image.new("RGB", (8, 8)), [("cat $x", 0.75), ("dog_y", 0.25)], title="a $ b/" * 30)
    opened = Image.open(io.BytesIO(to_png(figure, dpi=50)))
    assert opened.size[0] == 50 * 7.2
    assert figure._repr_png_()[:4] == b"\x89PNG"
    uri = to_data_uri(Image.new("RGB", (3, 2), "red"))
    assert uri.startswith("data:image/png;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).getpixel((0, 0)) == (255, 0, 0)


def test_confusion_matrix():
    confusion = np.array([[8, 2, 0], [0, 5, 0], [0, 0, 0]])
    figure = plot_confusion_matrix(confusion, ["ant", "bee $", "a name of more than twenty-four letters"])
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.8, 0.2, 0], [0, 1, 0], [0, 0, 0]])
    assert [text.get_text() for text in axes.texts] == ["8", "2", "5"]
    assert axes.get_title() == "13 of 15 right (86.67%)"
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["ant", "bee $"]
    to_png(figure, dpi=40)
    many = plot_confusion_matrix(np.eye(300, dtype=int), [f"class {i}" for i in range(300)])
    assert len(many.axes[0].get_yticklabels()) == 30
    to_png(many, dpi=20)
    with pytest.raises(ValueError, match=r"shape \(3, 3\) and there are 2 class names"):
        plot_confusion_matrix(confusion, ["a", "b"])


def test_training_curves_of_a_killed_run(tmp_path):
    lines = [{"kind": "train", "step": i, "epoch": 0, "loss": 2 / i, "lr": 0.1} for i in range(1, 80)]
    lines += [{"kind": "val", "step": 79, "epoch": 1, "loss": 0.5, "top1": 0.75, "top5": 0.9}]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"kind": "tra')
    assert read_metrics(tmp_path) == lines
    losses, accuracies, rates = plot_training_curves(tmp_path).axes
    np.testing.assert_allclose(losses.lines[0].get_ydata(), [2 / i for i in range(1, 80)])
    assert losses.lines[2].get_xydata().tolist() == [[79, 0.5]]
    assert accuracies.get_title() == "validation, best top 1 75.00%"
    assert rates.lines[0].get_ydata().tolist() == [0.1] * 79
    to_png(plot_training_curves(lines[:3]), dpi=40)


@pytest.mark.parametrize(
    ("measured", "title", "shown"),
    [
        ({"AP50": 0.5, "AP": 0.25, "AR1": 0.1}, "validation, best AP 25.00%", [0.25, 0.5]),
        ({"explained": 0.4, "loss": 1.0}, "validation, best explained 40.00%", [0.4]),
    ],
)
def test_training_curves_have_the_figures_of_every_task(measured, title, shown):
    train = {"kind": "train", "step": 4, "epoch": 1, "loss": 2.0, "lr": 0.1}
    losses, figures, rates = plot_training_curves([train, {"kind": "val", "step": 4, "epoch": 1, **measured}]).axes
    assert figures.get_title() == title
    assert [line.get_ydata().tolist() for line in figures.lines] == [[value] for value in shown]
    assert {line.get_marker() for axes in (losses, figures, rates) for line in axes.lines} == {"o"}, "seen as dots"


def test_training_curves_of_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"metrics\.jsonl does not exist"):
        plot_training_curves(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("garbage\n{}\n")
    with pytest.raises(ValueError, match="line 1 is not valid JSON"):
        plot_training_curves(tmp_path)
    with pytest.raises(ValueError, match="no loss in the records"):
        plot_training_curves([])


def test_smoothing_starts_at_the_first_value():
    np.testing.assert_allclose(smooth(np.full(9, 3.0), 4), 3)
    np.testing.assert_allclose(smooth(np.array([1.0, 2.0, 4.0]), 1), [1, 2, 4])
    # weights 1, 1/2, 1/4 backwards
    np.testing.assert_allclose(smooth(np.array([1.0, 2.0, 4.0]), 2)[2], (4 + 2 / 2 + 1 / 4) / 1.75)


def test_nothing_here_uses_pyplot():
    folder = Path(nexus.visualization.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not any("pyplot" in name for name in names), path


def test_the_seeds_code_runs_as_printed(shared):
    from matplotlib.figure import Figure

    from nexus.models.cv.vit import VisionTransformer
    from nexus.visualization import plot_attention_maps, visualize_feature_maps

    (text,) = [p.read_text() for p in shared.glob("seeds/001*.txt")]
    section = text.partition("## Visualization & Analysis")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 3
    torch.manual_seed(0)
    model = VisionTransformer({"image_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 2})
    names = {"model": model, "image": torch.randn(1, 3, 32, 32)}
    names |= {
        "plot_attention_maps": lambda *a, **k: names.update(attention=plot_attention_maps(*a, **k)),
        "visualize_feature_maps": lambda *a, **k: names.update(maps=visualize_feature_maps(*a, **k)),
    }
    for block in blocks:
        exec(block, names)
    assert isinstance(names["attention"], Figure)
    assert isinstance(names["maps"], Figure)
    assert names["heatmap"].shape == (1, 32, 32)
    assert names["heatmap"].max() == 1
