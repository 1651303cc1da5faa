"""EfficientNet against torchvision, timm and transformers."""

import pytest
import torch

from nexus.models.cv import EfficientNet, EfficientNetConfig
from nexus.models.cv.efficient_net import pad_same, scale
from nexus.models.registry import create_model, list_models, model_info
from nexus.proofs.convolutional import NAMES, ROWS, ROWS_V2, timm_efficientnet, torchvision_efficientnet


def tiny(rows, **changes):
    stages = [dict(zip(NAMES, row)) for row in rows]
    return EfficientNetConfig(num_classes=5, stem_dim=8, stages=stages, embed_dim=32, dropout=0.0).replace(**changes)


@pytest.mark.parametrize("rows", [ROWS, ROWS_V2], ids=["v1", "v2"])
@pytest.mark.parametrize("size", [(64, 64), (45, 70)])
def test_matches_torchvision(torchvision, assert_parity, rows, size):
    ours, theirs = (
        EfficientNet(tiny(rows, norm_eps=1e-3)),
        torchvision_efficientnet(torchvision, tiny(rows, norm_eps=1e-3)),
    )
    assert_parity(ours, theirs, torch.randn(2, 3, *size), spelling="torchvision")


@pytest.mark.parametrize("rows", [ROWS, ROWS_V2], ids=["v1", "v2"])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("size", [(64, 64), (45, 70)])
def test_matches_timm_in_both_padding_modes(timm, assert_parity, rows, padding, size):
    ours = EfficientNet(tiny(rows, padding=padding))
    theirs = timm_efficientnet(timm, tiny(rows, padding=padding))
    assert_parity(ours, theirs, torch.randn(2, 3, *size), spelling="timm")


LITE = {"activation": "relu6", "squeeze_excite": False}


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_lite_matches_timm(timm, assert_parity, padding):
    config = tiny(ROWS, padding=padding, **LITE)
    assert_parity(EfficientNet(config), timm_efficientnet(timm, config), torch.randn(2, 3, 45, 70), spelling="timm")


def test_lite_grows_between_its_ends_alone():
    """Stem, last convolution, and the depth of the first and last stage stay (the authors' `fix_head_stem`)."""
    lite4 = model_info("tf_efficientnet_lite4").config
    assert (lite4.stem_dim, lite4.embed_dim) == (32, 1280)
    assert [stage.num_layers for stage in lite4.stages] == [1, 4, 4, 6, 6, 8, 1]
    assert [stage.out_dim for stage in lite4.stages] == [24, 32, 56, 112, 160, 272, 448]


def published_names(state):
    """Names of the package efficientnet_pytorch for timm's: one list of blocks, norms by what they follow."""
    places = sorted({tuple(map(int, key.split(".")[1:3])) for key in state if key.startswith("blocks.")})
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    later = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    later |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    squeeze = {"conv_reduce": "_se_reduce", "conv_expand": "_se_expand"}
    outside = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    names = {}
    for key in state:
        name, _, rest = key.partition(".")
        if name != "blocks":
            names[key] = f"{outside[name]}.{rest}"
            continue
        stage, place, layer, *rest = rest.split(".")
        where = f"_blocks.{places.index((int(stage), int(place)))}"
        table = first if stage == "0" else later
        names[key] = ".".join([where, squeeze[rest[0]], *rest[1:]] if layer == "se" else [where, table[layer], *rest])
    return {names[key]: value for key, value in state.items()}


@pytest.mark.parametrize("changes", [{}, LITE], ids=["with squeeze-excitation", "lite"])
def test_reads_files_of_efficientnet_pytorch(timm, tmp_path, changes):
    config = tiny(ROWS, padding="same", **changes)
    theirs = timm_efficientnet(timm, config).eval()
    torch.save(published_names(theirs.state_dict()), tmp_path / "theirs.pth")
    ours = EfficientNet.from_pretrained(tmp_path / "theirs.pth", **config.to_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2"])
def test_published_weights_of_the_package_give_what_timm_gives(timm, name):
    """The file is the authors'; timm's class is filled by the order of the tensors, which knows nothing of names."""
    ours = EfficientNet.from_pretrained(f"{name}.pypi_in1k")
    with torch.device("meta"):
        theirs = timm.create_model(name)
    values = ours.state_dict().values()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)), assign=True)
    side = ours.preprocessing.image_size[0]
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(images)["logits"], theirs.eval()(images), rtol=1e-5, atol=1e-5)


def test_a_network_that_knows_what_a_cat_is():
    """scikit-image's photos, seen by the published EfficientNet-Lite0 (numbers are ImageNet's classes)."""
    from skimage import data

    import nexus

    guess = nexus.Predictor(EfficientNet.from_pretrained("tf_efficientnet_lite0.pypi_in1k"))
    cat, coffee, camera = (guess(photo)[0].order for photo in (data.cat(), data.coffee(), data.camera()))
    assert set(cat[:3].tolist()) == {281, 282, 285}  # tabby, tiger cat, Egyptian cat
    assert (coffee[0], camera[0]) == (967, 872)  # espresso, tripod


def hub_net(transformers):
    _, expand_ratios, kernel_sizes, strides, out_channels, repeats = zip(*ROWS)
    config = transformers.EfficientNetConfig(
        num_labels=5,
        image_size=64,
        width_coefficient=0.5,
        depth_coefficient=1.5,
        in_channels=[32, 16, 32],
        out_channels=[2 * width for width in out_channels],
        expand_ratios=list(expand_ratios),
        kernel_sizes=list(kernel_sizes),
        strides=list(strides),
        num_block_repeats=list(repeats),
        depthwise_padding=[],
        hidden_dim=640,
    )
    return transformers.EfficientNetForImageClassification(config)


def test_matches_transformers(transformers, assert_parity, tmp_path):
    theirs = hub_net(transformers)
    theirs.save_pretrained(tmp_path)
    ours = EfficientNet.from_pretrained(tmp_path)
    assert [stage.num_layers for stage in ours.config.stages] == [3, 3, 2]
    assert (ours.config.stem_dim, ours.config.embed_dim, ours.config.padding) == (16, 640, "same")
    images = torch.randn(2, 3, 64, 64)
    assert_parity(ours, theirs, images, spelling="hub", run=lambda model, x: model(x).logits)


@pytest.mark.parametrize("rows", [ROWS, ROWS_V2], ids=["v1", "v2"])
def test_reads_files_of_torchvision_and_timm(torchvision, timm, tmp_path, rows):
    images = torch.randn(2, 3, 64, 64)
    for theirs in (
        torchvision_efficientnet(torchvision, tiny(rows)).eval(),
        timm_efficientnet(timm, tiny(rows)).eval(),
    ):
        torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
        ours = EfficientNet.from_pretrained(tmp_path / "theirs.pth", **tiny(rows).to_dict())
        torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=1e-5, atol=1e-5)


def test_training_mode_matches_torchvision(torchvision):
    """Batch statistics, running averages and gradients of one step in training mode."""
    ours, theirs = (
        EfficientNet(tiny(ROWS)).double().train(),
        torchvision_efficientnet(torchvision, tiny(ROWS)).double().train(),
    )
    ours.load_state_dict(EfficientNet.formats[0].to_ours(theirs.state_dict()))
    images = torch.randn(4, 3, 64, 64).double()
    logits, wanted = ours(images)["logits"], theirs(images)
    torch.testing.assert_close(logits, wanted, rtol=1e-10, atol=1e-10)
    logits.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(ours.stem.conv.weight.grad, theirs.features[0][0].weight.grad, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(ours.top.norm.running_var, theirs.features[-1][1].running_var)


def test_same_padding_puts_the_odd_pixel_below_and_to_the_right():
    """On an even side a 3x3 convolution of stride 2 lacks one pixel, on an odd side two: TensorFlow's "SAME"."""
    assert pad_same(torch.ones(1, 1, 4, 4), 3, 2)[0, 0].sum(1).tolist() == [4, 4, 4, 4, 0]
    assert pad_same(torch.ones(1, 1, 5, 5), 3, 2)[0, 0].sum(1).tolist() == [0, 5, 5, 5, 5, 5, 0]
    assert pad_same(torch.ones(1, 1, 4, 4), 5, 2)[0, 0].sum(0).tolist() == [0, 4, 4, 4, 4, 0, 0]
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    same = EfficientNet(tiny(ROWS, padding="same", in_channels=1)).eval().stem
    symmetric = EfficientNet(tiny(ROWS, in_channels=1)).eval().stem
    symmetric.load_state_dict(same.state_dict())
    assert same(image).shape == symmetric(image).shape == (1, 8, 2, 2)
    shifted = torch.zeros(1, 1, 4, 4)  # "SAME" sees at (0, 0) what "symmetric" sees at (1, 1) one pixel further
    shifted[..., 1:, 1:] = image[..., :3, :3]
    torch.testing.assert_close(same(image)[..., 0, 0], symmetric(shifted)[..., 1, 1])


def test_scaling_is_compound():
    """B3 is B0 with 1.2 times the width, rounded to 8, and 1.4 times the depth, rounded up (Eq. 3)."""
    b3 = scale(EfficientNetConfig(), 1.2, 1.4)
    assert (b3.stem_dim, b3.embed_dim) == (40, 1536)
    assert [stage.out_dim for stage in b3.stages] == [24, 32, 48, 96, 136, 232, 384]
    assert [stage.num_layers for stage in b3.stages] == [2, 3, 3, 5, 5, 6, 2]


@pytest.mark.parametrize("name", list_models("*efficientnet*"))
def test_parameter_counts(name, torchvision, timm):
    with torch.device("meta"):
        ours = create_model(name).num_parameters()
    assert ours == model_info(name).num_parameters
    if not name.endswith(("l2", "b8", "xl")):  # large; counted once, when the card was written
        with torch.device("meta"):
            library = torchvision.models.get_model if "v2_" in name and "tf" not in name else timm.create_model
            assert ours == sum(p.numel() for p in library(name).parameters())


def test_cards_agree_with_torchvision(torchvision):
    ours = {
        weights.url: (model_info(name), weights)
        for name in list_models("efficientnet_*")
        for weights in model_info(name).weights
        if weights.tag.startswith("tv")
    }
    names = [
        f"efficientnet_{size}" for size in ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "v2_s", "v2_m", "v2_l")
    ]
    published = {w.url: w for name in names for w in torchvision.models.get_model_weights(name)}
    assert ours.keys() == published.keys()
    for url, theirs in published.items():
        (card, weights), transforms = ours[url], theirs.transforms()
        preprocessing = weights.preprocessing
        assert card.num_parameters == theirs.meta["num_params"]
        assert weights.metrics[0].value == theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert preprocessing.resize_size == transforms.resize_size[0], url
        assert preprocessing.image_size == (transforms.crop_size[0],) * 2, url
        assert preprocessing.interpolation == transforms.interpolation.value, url
        assert (preprocessing.mean, preprocessing.std) == (tuple(transforms.mean), tuple(transforms.std)), url


def test_cards_agree_with_timm(timm):
    tags = set()
    for name in list_models("*efficientnet*"):
        for weights in model_info(name).weights:
            if not weights.url.startswith("hf-hub:timm/"):
                continue
            where = f"{name}.{weights.tag}"
            tags.add(where)
            theirs, ours = timm.get_pretrained_cfg(where), weights.preprocessing
            _, *sides = theirs.test_input_size or theirs.input_size
            crop = theirs.test_crop_pct or theirs.crop_pct
            assert ours.image_size == tuple(sides), where
            assert ours.resize == ("squash" if theirs.crop_mode == "squash" else "shorter"), where
            assert ours.resize_size == (None if ours.resize == "squash" else int(sides[0] / crop)), where
            assert (ours.mean, ours.std) == (theirs.mean, theirs.std), where
            assert ours.interpolation == theirs.interpolation, where
            assert weights.changes.get("num_classes", 1000) == theirs.num_classes, where
            assert weights.licence == theirs.license, where
    known = set()
    for pattern in (
        "efficientnet_b?.*",
        "efficientnet_lite0.*",
        "tf_efficientnet_lite?.*",
        "tf_efficientnet_b?.*",
        "tf_efficientnet_l2.*",
        "tf_efficientnetv2_*",
    ):
        known |= set(timm.list_models(pattern, pretrained=True))
    assert tags == known


def test_features_are_the_last_map_of_each_resolution():
    outputs = EfficientNet(tiny(ROWS))(torch.randn(1, 3, 64, 48))
    assert [tuple(x.shape) for x in outputs["features"]] == [(1, 8, 32, 24), (1, 16, 16, 12), (1, 24, 8, 6)]
    with torch.device("meta"):
        b0 = create_model("efficientnet_b0")(torch.empty(1, 3, 224, 224))
    assert [tuple(x.shape[1:]) for x in b0["features"]] == [
        (16, 112, 112),
        (24, 56, 56),
        (40, 28, 28),
        (112, 14, 14),
        (320, 7, 7),
    ]


def test_drop_path_rises_as_in_torchvision(torchvision):
    module = torchvision.models.efficientnet
    theirs = module.EfficientNet([module.MBConvConfig(4, 3, 1, 8, 8, 4)], 0.0, stochastic_depth_prob=0.2)
    ours = EfficientNet(tiny([("mbconv", 4, 3, 1, 8, 4)], drop_path_rate=0.2))
    wanted = [block.stochastic_depth.p for block in theirs.features[1]]
    assert [block.drop_path.rate for block in ours.blocks[0]] == pytest.approx(wanted)


def test_errors_say_what_would_fit():
    model = EfficientNet(tiny(ROWS))
    with pytest.raises(ValueError, match=r"EfficientNet has no attention maps; nexus\.visualization\.GradCAM"):
        model(torch.zeros(1, 3, 32, 32), output_attentions=True)
    with pytest.raises(ValueError, match=r"padding is 'valid'; it must be one of 'symmetric', 'same'"):
        tiny(ROWS, padding="valid")
    with pytest.raises(ValueError, match=r"Stage has no key 'kernel'. Did you mean 'kernel_size'\?"):
        EfficientNetConfig.from_mapping({"stages": [{"kernel": 3, "out_dim": 8, "num_layers": 1}]})
    with pytest.raises(ValueError, match="pooling_type is 'max'; EfficientNet is built with 'mean'"):
        EfficientNet.config_from_hub({"pooling_type": "max"})
