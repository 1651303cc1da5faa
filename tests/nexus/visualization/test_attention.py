"""Attention maps and rollout against transformers, a computation by hand, and what is drawn."""

import numpy as np
import pytest
import torch

from nexus.core.formats import to_our_names
from nexus.core.module import TokenLayout
from nexus.models.cv.vit import VisionTransformer
from nexus.visualization import attention_map, attention_rollout, plot_attention_maps

VIT = {"image_size": 16, "patch_size": 4, "num_classes": 5, "embed_dim": 16, "num_layers": 3, "num_heads": 2}


def attentions(layers: int = 3, images: int = 2, heads: int = 2, tokens: int = 17) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [(3 * torch.randn(images, heads, tokens, tokens)).softmax(-1) for _ in range(layers)]


def drawn(figure) -> dict[str, np.ndarray]:
    """Returns the values of each map by its title."""
    return {a.get_title(): np.asarray(a.images[0].get_array()) for a in figure.axes if a.get_title() and a.images}


def test_rollout_by_hand():
    layers = attentions(layers=2, images=1, tokens=3)
    first, second = (0.5 * layer[0].mean(0).numpy() + 0.5 * np.eye(3) for layer in layers)
    expected = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            expected[i, j] = sum(second[i, k] * first[k, j] for k in range(3))
    rollout = attention_rollout({"attentions": layers})
    np.testing.assert_allclose(rollout[0], expected, rtol=1e-5)


def test_rollout_keeps_the_sum():
    rollout = attention_rollout(attentions(layers=12))
    torch.testing.assert_close(rollout.sum(-1), torch.ones(2, 17))
    assert rollout.min() > 0


def test_maps_are_those_of_transformers(transformers):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=16, patch_size=4, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
        num_labels=5, attn_implementation="eager",
    )  # fmt: skip
    theirs = transformers.ViTForImageClassification(config).eval()

    ours = VisionTransformer(VIT | {"norm_eps": 1e-12}).eval()
    ours.load_state_dict(to_our_names(theirs.state_dict(), VisionTransformer.formats)[0])
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = theirs(images, output_attentions=True).attentions
        outputs = ours(images, output_attentions=True)
    maps = drawn(plot_attention_maps(outputs, num_layers=3, heads="all", index=1))
    assert len(maps) == 6
    for layer in range(3):
        for head in range(2):
            row = expected[layer][1, head, 0, 1:]
            relative = (row / row.mean()).reshape(4, 4)
            np.testing.assert_allclose(maps[f"layer {layer + 1}, head {head + 1}"], relative, rtol=1e-3)


def test_layers_are_spread_evenly_up_to_the_last():
    def titles(layers: int, shown: int) -> list[str]:
        return list(drawn(plot_attention_maps(attentions(layers), num_layers=shown)))

    assert titles(12, 4) == ["layer 3", "layer 6", "layer 9", "layer 12"]
    assert titles(5, 2) == ["layer 2", "layer 5"]
    assert titles(2, 4) == ["layer 1", "layer 2"]


def test_the_mean_of_heads_and_the_image_are_drawn():
    layers = attentions(layers=1)
    figure = plot_attention_maps(layers, image=torch.rand(2, 3, 16, 16), index=1)
    maps = drawn(figure)
    assert list(maps) == ["image", "layer 1"]
    row = layers[0][1].mean(0)[0, 1:]
    np.testing.assert_allclose(maps["layer 1"], (row / row.mean()).reshape(4, 4), rtol=1e-5)


def test_rows_of_the_attention():
    matrix = attentions(layers=1)[0][:, 0]
    torch.testing.assert_close(attention_map(matrix), matrix[:, 0, 1:].reshape(2, 4, 4))
    torch.testing.assert_close(attention_map(matrix, query=(1, 2)), matrix[:, 1 + 6, 1:].reshape(2, 4, 4))
    wide = attention_map(matrix, TokenLayout(1, 2, 8))
    torch.testing.assert_close(wide, matrix[:, 0, 1:].reshape(2, 2, 8))
    without_class_token = attention_map(matrix[:, 1:, 1:])
    torch.testing.assert_close(without_class_token, matrix[:, 1:, 1:].mean(1).reshape(2, 4, 4))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"hold logits, features and no attentions.*output_attentions=True"):
        plot_attention_maps({"logits": 1, "features": 2})
    with pytest.raises(ValueError, match=r"shape \(2, 17, 17\); all must be \(b, heads, n, n\)"):
        attention_rollout([torch.rand(2, 17, 17)])
    with pytest.raises(ValueError, match="attentions is empty"):
        attention_rollout([])
    with pytest.raises(ValueError, match="num_layers is 0"):
        plot_attention_maps(attentions(), num_layers=0)
    with pytest.raises(ValueError, match="index is 2; the batch has 2 images, 0 to 1"):
        plot_attention_maps(attentions(), index=2)
    with pytest.raises(ValueError, match=r"query is \(4, 0\); the grid has 4 rows"):
        plot_attention_maps(attentions(), query=(4, 0))
    with pytest.raises(ValueError, match=r"193 tokens are no square grid.*13 x 13 leaves 24.*token_layout"):
        plot_attention_maps(attentions(layers=1, tokens=193))
    with pytest.raises(ValueError, match=r"1 \+ 3 x 4 = 13 tokens, and there are 17"):
        plot_attention_maps(attentions(), layout=TokenLayout(1, 3, 4))
