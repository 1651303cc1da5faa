"""The verbs that timm's users type, against timm's own: features, heads, maps."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from nexus.core.formats import to_our_names
from nexus.core.module import NexusModule
from nexus.models import cv
from nexus.models.features import FeatureMaps
from nexus.models.registry import create_model, list_models
from nexus.proofs import convolutional, randomize, vit
from tests.nexus.models.test_every_model import CASES, build, images

STAGES = [dict(zip(convolutional.NAMES, row)) for row in convolutional.ROWS]
PLAIN = {"image_size": 32, "patch_size": 8, "num_classes": 5, "embed_dim": 24, "num_layers": 4}
EVA = {**PLAIN, "num_heads": 2, "sub_norm": True}


class Reference(NamedTuple):
    """A small model of a family, and how timm builds it and takes its maps.

    Attributes:
        cls: Of the zoo.
        config: Of the small model.
        build: Makes timm's.
        wrap: Name of timm's class that takes maps from it.
        tokens: Whether timm gives the last three blocks by default.
    """

    cls: type[NexusModule]
    config: Any
    build: Callable[..., nn.Module]
    wrap: str = "FeatureListNet"
    tokens: bool = False


REFERENCES = {
    "vit": Reference(cv.VisionTransformer, cv.ViTConfig(**PLAIN, num_heads=2), vit.timm_vit, "FeatureGetterNet", True),
    "vit, mean": Reference(
        cv.VisionTransformer, cv.ViTConfig(**PLAIN, num_heads=2, pool="mean"), vit.timm_vit, "FeatureGetterNet", True
    ),
    "dinov2": Reference(
        cv.DINOv2,
        cv.DINOv2Config(image_size=28, patch_size=7, embed_dim=24, num_layers=4, num_heads=2, num_registers=2),
        vit.timm_dinov2,
        "FeatureGetterNet",
        True,
    ),
    "eva02": Reference(cv.EVA02, cv.EVA02Config(**EVA), vit.timm_eva, "FeatureGetterNet", True),
    "mixer": Reference(cv.MLPMixer, cv.MixerConfig(**PLAIN), vit.timm_mixer, "FeatureGetterNet", True),
    "resnet": Reference(
        cv.ResNet, cv.ResNetConfig(num_layers=(1, 2, 1, 1), num_classes=5, hidden_dim=8), convolutional.timm_resnet
    ),
    "vgg": Reference(
        cv.VGG,
        cv.VGGConfig(num_layers=(1, 1, 2, 1, 1), num_classes=5, hidden_dim=4, embed_dim=12, batch_norm=True),
        convolutional.timm_vgg,
    ),
    "swin": Reference(
        cv.SwinTransformer,
        cv.SwinConfig(image_size=64, num_classes=5, embed_dim=8, num_heads=(1, 2, 4, 8), window_size=4),
        convolutional.timm_swin,
    ),
    "efficientnet": Reference(
        cv.EfficientNet,
        cv.EfficientNetConfig(num_classes=5, stem_dim=8, stages=STAGES, embed_dim=32),
        convolutional.timm_efficientnet,
    ),
}


@pytest.fixture(params=REFERENCES)
def pair(request, timm):
    """A reference, our model, timm's with the same weights, and images."""
    torch.manual_seed(0)
    reference = REFERENCES[request.param]
    theirs = reference.build(timm, reference.config).eval()
    randomize(theirs)
    ours = reference.cls(reference.config).eval()
    ours.load_state_dict(ours.fit_state(to_our_names(theirs.state_dict(), ours.formats)[0]))
    side = getattr(reference.config, "image_size", 64)
    return reference, ours, theirs, torch.randn(2, 3, side, side)


close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)


def test_features_and_heads_are_those_of_timm(pair):
    _, ours, theirs, images = pair
    with torch.no_grad():
        features, expected = ours.forward_features(images), theirs.forward_features(images)
        close(features, expected)
        close(ours.forward_head(features, pre_logits=True), theirs.forward_head(expected, pre_logits=True).flatten(1))
        close(ours.forward_head(features), theirs(images))
    assert ours.num_features == theirs.num_features
    assert ours.head_hidden_size == getattr(theirs.get_classifier(), "in_features", theirs.head_hidden_size)


def test_maps_are_those_of_timm(pair, timm):
    reference, ours, theirs, images = pair
    indices = 3 if reference.tokens else tuple(range(len(theirs.feature_info)))
    settings = (
        {} if reference.tokens else {"flatten_sequential": any("." in row["module"] for row in theirs.feature_info)}
    )
    wrapped = getattr(timm.models._features, reference.wrap)(theirs, out_indices=indices, **settings)
    features = FeatureMaps(ours)
    with torch.no_grad():
        maps, expected = features(images), wrapped(images)
    if reference.cls is cv.SwinTransformer:  # timm has its channels last
        expected = [x.permute(0, 3, 1, 2) for x in expected]
    assert features.feature_info.channels() == [x.shape[1] for x in expected]
    assert features.feature_info.reduction() == wrapped.feature_info.reduction()
    close(maps, expected)


NAMES = (
    "resnet18",
    "resnet50",
    "vgg11_bn",
    "vit_tiny_patch16_224",
    "mixer_s32_224",
    "swin_tiny_patch4_window7_224",
    "efficientnet_b0",
    "tf_efficientnetv2_s",
)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_of_the_maps_is_what_timm_says(name, timm):
    with torch.device("meta"):
        theirs, whole = timm.create_model(name, features_only=True), timm.create_model(name)
        ours, ours_whole = create_model(name, features_only=True), create_model(name)
    assert ours.feature_info.channels() == theirs.feature_info.channels()
    assert ours.feature_info.reduction() == theirs.feature_info.reduction()
    assert ours_whole.feature_info.channels() == [row["num_chs"] for row in whole.feature_info]
    assert (ours_whole.num_features, ours_whole.head_hidden_size) == (whole.num_features, whole.head_hidden_size)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_classifier_has_the_verbs(case):
    model, batch = build(case), images(case)
    with torch.no_grad():
        outputs, features = model(batch), model.forward_features(batch)
        torch.testing.assert_close(model.forward_head(features), outputs["logits"])
        torch.testing.assert_close(model.forward_head(features, pre_logits=True), outputs["embeddings"])
        maps, stages = model.forward_maps(batch), model.forward_stages(batch)
        firsts = [model.forward_maps(batch, count) for count in range(1, len(maps))]
    assert outputs["embeddings"].shape == (2, model.head_hidden_size)
    assert all(torch.equal(a, b) for a, b in zip(stages, outputs["features"], strict=True))
    info = model.feature_info
    assert [(x.shape[1], case.size // x.shape[-1]) for x in maps] == list(zip(info.channels(), info.reduction()))
    assert all(model.get_submodule(name) is not None for name in info.module_name())
    for count, first in enumerate(firsts, start=1):
        assert all(torch.equal(a, b) for a, b in zip(first, maps[:count], strict=True))


def test_every_registered_classifier_counts_its_maps():
    for name in list_models(task="classification"):
        with torch.device("meta"):
            model = create_model(name)
        model.reset_classifier(7)
        assert model.head_hidden_size == model.get_classifier().in_features, name
        assert len(model.feature_info) >= 3, name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fresh_head_follows_the_configuration(case, tmp_path):
    model, batch = build(case, num_classes=5).double(), images(case).double()
    model.class_names = tuple("abcde")
    before = model(batch)["embeddings"]
    model.reset_classifier(3)
    assert (model.num_classes, model.config.num_classes, model.class_names) == (3, 3, ())
    assert model.get_classifier().weight.dtype == torch.float64
    assert not model.get_classifier().training
    assert not model.get_classifier().bias.any()
    assert model(batch)["logits"].shape == (2, 3)
    model.float().class_names = ("x", "y", "z")
    again = type(model).from_pretrained(model.save_pretrained(tmp_path))
    assert again.class_names == ("x", "y", "z")
    assert torch.equal(again(batch.float())["logits"], model(batch.float())["logits"])
    model.double().reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    torch.testing.assert_close(model(batch)["logits"], before, rtol=1e-4, atol=1e-5)
    assert type(model).from_pretrained(model.float().save_pretrained(tmp_path / "none")).num_classes == 0


def test_a_fresh_head_starts_as_the_familys_does():
    model = create_model("efficientnet_b0", num_classes=10)
    model.reset_classifier(4)
    assert model.head.weight.abs().max() <= 0.5
    assert model.head.weight.std() > 0.2
    model = create_model("vgg11", hidden_dim=4, embed_dim=512)
    model.reset_classifier(64)
    assert 0.008 < model.head.weight.std() < 0.0105


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_maps_alone_leave_out_what_they_do_not_need(case):
    whole = create_model(case.name, **case.changes)
    for indices in ((0,), (-1,), (0, -1)):
        model = create_model(case.name, features_only=True, out_indices=indices, **case.changes)
        maps = model(images(case))
        channels = [whole.feature_info.channels()[index] for index in indices]
        assert [x.shape[1] for x in maps] == model.feature_info.channels() == channels
        torch.stack([x.sum() for x in maps]).sum().backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        assert sum(p.numel() for p in model.parameters()) < whole.num_parameters()


def test_maps_of_trained_weights(tmp_path):
    case = CASES[1]
    model = build(case)
    model.save_pretrained(tmp_path)
    features = create_model(str(tmp_path) + "/", features_only=True, pretrained=True, out_indices=[1, 4])
    assert all(torch.equal(x, model(images(case))["features"][i]) for i, x in zip((1, 4), features(images(case))))
    assert features.preprocessing == model.preprocessing


def test_refusals():
    with pytest.raises(ValueError, match="out_indices is \\(7,\\); there are 5 maps, 0 to 4"):
        create_model("resnet18", features_only=True, out_indices=(7,))
    with pytest.raises(ValueError, match="out_indices chooses maps; it goes with features_only=True"):
        create_model("resnet18", out_indices=(1,))
    with pytest.raises(ValueError, match="features_only leaves the head out"):
        create_model("resnet18", features_only=True, num_classes=3)
    with pytest.raises(ValueError, match="needs a classifier, with maps to give; CLIP is none"):
        create_model("clip_vit_base_patch32_224", features_only=True)
    with pytest.raises(ValueError, match="num_classes is -1; it must be at least 0"):
        create_model("resnet18").reset_classifier(-1)
