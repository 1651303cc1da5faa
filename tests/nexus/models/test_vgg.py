"""VGG against torchvision and timm."""

import pytest
import torch

from nexus.models.cv import VGG, VGGConfig
from nexus.models.registry import create_model, list_models, model_info
from nexus.proofs.convolutional import timm_vgg, torchvision_vgg

TINY = VGGConfig(num_layers=(1, 1, 2, 1, 1), num_classes=5, hidden_dim=4, embed_dim=12)
LAYOUT = [4, "M", 8, "M", 16, 16, "M", 32, "M", 32, "M"]
NAMES = ["vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (224, 224), (300, 270)])
def test_matches_torchvision(torchvision, assert_parity, batch_norm, size):
    ours, theirs = (
        VGG(TINY.replace(batch_norm=batch_norm)),
        torchvision_vgg(torchvision, TINY.replace(batch_norm=batch_norm)),
    )
    assert_parity(ours, theirs, torch.randn(2, 3, *size), spelling="torchvision")


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (224, 224), (300, 270)])
def test_matches_timm(timm, assert_parity, batch_norm, size):
    ours, theirs = (
        VGG(TINY.replace(batch_norm=batch_norm, dense=True)),
        timm_vgg(timm, TINY.replace(batch_norm=batch_norm)),
    )
    assert_parity(ours, theirs, torch.randn(2, 3, *size), spelling="timm")


def test_dense_evaluation_averages_the_scores_of_windows():
    """On a map of 8x9 the fully connected layers see each of its 2x3 windows of 7x7; the head is linear (Sec. 3.2)."""
    model = VGG(TINY.replace(dense=True)).eval()
    outputs = model(torch.randn(1, 3, 8 * 32, 9 * 32))
    last = outputs["features"][-1]
    windows = [last[..., top : top + 7, left : left + 7] for top in range(2) for left in range(3)]
    scores = [model.head(model.pool_features(window)) for window in windows]
    torch.testing.assert_close(outputs["logits"], torch.stack(scores).mean(0))


def test_three_convolutions_see_seven_pixels():
    """A stack of three 3x3 convolutions has the receptive field of one of 7x7 (Sec. 2.3)."""
    model = VGG(VGGConfig(num_layers=(3, 1, 1, 1, 1), hidden_dim=4, embed_dim=8, num_classes=2))
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    features = images
    for layer in model.features[:5]:  # three convolutions; no ReLU after the last, which might be 0
        features = layer(features)
    features[0, :, 16, 16].sum().backward()
    rows = images.grad[0].abs().sum(0).nonzero()
    assert (rows.min(0).values.tolist(), rows.max(0).values.tolist()) == ([13, 13], [19, 19])


@pytest.mark.parametrize("name", NAMES)
def test_parameter_counts_and_cards_agree_with_torchvision(torchvision, timm, name):
    with torch.device("meta"):
        ours = create_model(name)
        theirs = timm.create_model(name)
    card = model_info(name)
    published = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    transforms = published.transforms()
    assert ours.num_parameters() == card.num_parameters == published.meta["num_params"]
    assert ours.num_parameters() == sum(p.numel() for p in theirs.parameters())
    (weights,) = card.weights
    assert weights.url == published.url
    assert weights.url.rpartition("-")[2] == f"{weights.sha256}.pth"
    assert weights.metrics[0].value == published.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert weights.preprocessing.resize_size == transforms.resize_size[0]
    assert weights.preprocessing.interpolation == transforms.interpolation.value
    assert (weights.preprocessing.mean, weights.preprocessing.std) == (tuple(transforms.mean), tuple(transforms.std))


def test_every_variant_is_registered():
    assert list_models("vgg*") == NAMES


@pytest.mark.parametrize("batch_norm", [False, True])
def test_reads_files_of_torchvision_and_timm(torchvision, timm, tmp_path, batch_norm):
    config = TINY.replace(batch_norm=batch_norm).to_dict()
    images = torch.randn(2, 3, 64, 64)
    for theirs in (
        torchvision_vgg(torchvision, TINY.replace(batch_norm=batch_norm)).eval(),
        timm_vgg(timm, TINY.replace(batch_norm=batch_norm)).eval(),
    ):
        torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
        ours = VGG.from_pretrained(tmp_path / "theirs.pth", **config)
        torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=1e-5, atol=1e-5)


def test_features_have_the_strides_of_the_stages():
    outputs = VGG(TINY)(torch.randn(1, 3, 96, 64))
    assert [tuple(x.shape) for x in outputs["features"]] == [
        (1, 4, 48, 32),
        (1, 8, 24, 16),
        (1, 16, 12, 8),
        (1, 32, 6, 4),
        (1, 32, 3, 2),
    ]
    assert outputs["embeddings"].shape == (1, 12)


def test_errors_say_what_would_fit():
    with pytest.raises(ValueError, match=r"images are 16x48 pixels; VGG halves them five times.*at least 32"):
        VGG(TINY)(torch.zeros(1, 3, 16, 48))
    with pytest.raises(ValueError, match=r"VGG has no attention maps; nexus\.visualization\.GradCAM"):
        VGG(TINY)(torch.zeros(1, 3, 32, 32), output_attentions=True)
    with pytest.raises(ValueError, match=r"VGGConfig\.num_layers is \(1, 1\); it needs 5 values"):
        VGG({"num_layers": (1, 1)})
