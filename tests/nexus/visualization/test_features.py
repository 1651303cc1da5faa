"""Feature maps: which channels are shown, their colours, and what is refused."""

import numpy as np
import pytest
import torch

from nexus.core.module import TokenLayout
from nexus.visualization import visualize_feature_maps
from nexus.visualization.features import principal_colours


def drawn(figure) -> dict[str, np.ndarray]:
    return {a.get_title(): np.asarray(a.images[0].get_array()) for a in figure.axes if a.get_title() and a.images}


def test_the_channels_that_vary_most_are_shown():
    torch.manual_seed(0)
    features = torch.randn(2, 6, 5, 7) * torch.tensor([1.0, 40, 2, 20, 3, 9])[:, None, None]
    maps = drawn(visualize_feature_maps(features, num_maps=3, index=1))
    assert list(maps) == ["components as RGB", "channel 1", "channel 3", "channel 5"]
    np.testing.assert_array_equal(maps["channel 3"], features[1, 3])


def test_tokens_become_maps():
    torch.manual_seed(0)
    tokens = torch.randn(1, 2 + 12, 4)
    layout = TokenLayout(2, 3, 4)
    maps = drawn(visualize_feature_maps(tokens, num_maps=4, layout=layout, image=torch.rand(1, 1, 9, 12)))
    assert len(maps) == 6
    np.testing.assert_array_equal(maps["channel 2"], tokens[0, 2:, 2].reshape(3, 4))
    square = drawn(visualize_feature_maps(tokens[:, :10], num_maps=1))
    assert square["components as RGB"].shape == (3, 3, 3)


def test_colours_are_principal_components(needed):
    decomposition = needed("sklearn.decomposition")
    torch.manual_seed(0)
    features = torch.randn(8, 6, 5) * torch.arange(1, 9)[:, None, None]
    pixels = features.flatten(1).T.numpy()
    expected = decomposition.PCA(3).fit_transform(pixels)
    colours = principal_colours(features).reshape(-1, 3)
    for ours, theirs in zip(colours.T, expected.T):
        inside = (ours > 0) & (ours < 1)
        assert inside.sum() > 20
        assert abs(np.corrcoef(ours[inside], theirs[inside])[0, 1]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("features", [torch.zeros(1, 4, 3, 3), torch.randn(1, 1, 3, 3), torch.randn(1, 2, 1, 1)])
def test_little_can_be_shown_too(features):
    maps = drawn(visualize_feature_maps(features))
    assert len(maps) == 1 + features.shape[1]
    assert np.isfinite(maps["components as RGB"]).all()


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"a tensor of shape \(3, 4\); it must be a map"):
        visualize_feature_maps(torch.rand(3, 4))
    with pytest.raises(ValueError, match=r"features is list; it must be a map.*one entry of outputs"):
        visualize_feature_maps([torch.rand(1, 2, 3, 4)])
    with pytest.raises(ValueError, match="num_maps is 0"):
        visualize_feature_maps(torch.rand(1, 2, 3, 4), num_maps=0)
    with pytest.raises(ValueError, match="index is 1; the batch has 1 images"):
        visualize_feature_maps(torch.rand(1, 2, 3, 4), index=1)
