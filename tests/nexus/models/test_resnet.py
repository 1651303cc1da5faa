"""ResNet against torchvision, timm and transformers."""

import pytest
import torch

from nexus.core.weights import load_weights
from nexus.models.cv import ResNet, ResNetConfig
from nexus.models.cv.resnet import VARIANTS
from nexus.models.registry import create_model, model_info
from nexus.proofs.convolutional import hub_resnet, timm_resnet

SMALL = {
    "basic": ResNetConfig(block="basic", num_layers=(2, 1, 1, 1), num_classes=5, hidden_dim=8),
    "bottleneck": ResNetConfig(num_layers=(1, 2, 1, 1), num_classes=5, hidden_dim=8),
}


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
@pytest.mark.parametrize("size", [(64, 64), (45, 70)])
def test_matches_timm(timm, assert_parity, kind, size):
    assert_parity(ResNet(SMALL[kind]), timm_resnet(timm, SMALL[kind]), torch.randn(2, 3, *size), spelling="torchvision")


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_matches_torchvision(torchvision, assert_parity, kind):
    resnet = torchvision.models.resnet
    block = {"basic": resnet.BasicBlock, "bottleneck": resnet.Bottleneck}[kind]
    layers = [1, 1, 2, 1]
    ours = ResNet({"block": kind, "num_layers": layers, "num_classes": 5})
    theirs = resnet.ResNet(block, layers, num_classes=5)
    assert_parity(ours, theirs, torch.randn(2, 3, 48, 64), spelling="torchvision", float64=1e-9)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_matches_transformers(transformers, assert_parity, kind, tmp_path):
    config = SMALL[kind]
    theirs = hub_resnet(transformers, config)
    images = torch.randn(2, 3, 48, 64)
    assert_parity(ResNet(config), theirs, images, spelling="hub", run=lambda model, x: model(x).logits)
    theirs.save_pretrained(tmp_path)
    ours = ResNet.from_pretrained(tmp_path)
    assert ours.config == config
    torch.testing.assert_close(ours(images)["logits"], theirs.eval()(images).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_training_mode_matches_torchvision(torchvision, kind):
    """Batch statistics, running averages and gradients of one step in training mode."""
    resnet = torchvision.models.resnet
    theirs = resnet.ResNet({"basic": resnet.BasicBlock, "bottleneck": resnet.Bottleneck}[kind], [1, 1, 1, 1])
    ours = ResNet({"block": kind, "num_layers": [1, 1, 1, 1]})
    ours.load_state_dict({key.replace("fc.", "head."): value for key, value in theirs.state_dict().items()})
    ours, theirs, images = ours.double().train(), theirs.double().train(), torch.randn(4, 3, 64, 64).double()
    wanted = theirs(images)
    logits = ours(images)["logits"]
    torch.testing.assert_close(logits, wanted, rtol=1e-10, atol=1e-10)
    logits.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(ours.conv1.weight.grad, theirs.conv1.weight.grad, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(ours.layer4[0].bn2.running_var, theirs.layer4[0].bn2.running_var)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameter_counts(name, torchvision):
    with torch.device("meta"):
        ours, theirs = create_model(name), torchvision.models.get_model(name, weights=None)
    assert ours.num_parameters() == model_info(name).num_parameters == sum(p.numel() for p in theirs.parameters())


def test_published_parameter_counts():
    published = {
        "resnet18": 11_689_512,
        "resnet34": 21_797_672,
        "resnet50": 25_557_032,
        "resnet101": 44_549_160,
        "resnet152": 60_192_808,
    }
    assert {name: model_info(name).num_parameters for name in published} == published


def test_cards_agree_with_timm(timm):
    for name in VARIANTS:
        ours = {weights.tag: weights for weights in model_info(name).weights}
        theirs = {model.partition(".")[2] for model in timm.list_pretrained(f"{name}.*")}
        assert ours.keys() == theirs - {"bamboo"}  # bamboo's licence is not stated
        for tag, weights in ours.items():
            settings = timm.get_pretrained_cfg(f"{name}.{tag}")
            where = f"{name}.{tag}"
            assert weights.licence == settings.license, where
            side = (settings.test_input_size or settings.input_size)[1]
            crop = settings.test_crop_pct or settings.crop_pct
            assert weights.preprocessing.image_size == (side, side), where
            assert weights.preprocessing.resize_size == int(side / crop), where
            assert weights.preprocessing.interpolation == settings.interpolation, where
            assert (weights.preprocessing.mean, weights.preprocessing.std) == (settings.mean, settings.std), where


def test_cards_agree_with_torchvision(torchvision):
    for name in VARIANTS:
        theirs = {weights.url: weights for weights in torchvision.models.get_model_weights(name)}
        ours = {weights.url: weights for weights in model_info(name).weights if weights.tag.startswith("tv")}
        assert ours.keys() == theirs.keys()
        for url, weights in ours.items():
            transforms = theirs[url].transforms()
            assert weights.metrics[0].value == theirs[url].meta["_metrics"]["ImageNet-1K"]["acc@1"]
            assert weights.preprocessing.resize_size == transforms.resize_size[0]
            assert weights.preprocessing.interpolation == transforms.interpolation.value


def test_features_are_the_stem_and_the_four_stages():
    model = ResNet(SMALL["bottleneck"]).eval()
    kept = {}
    for name in ("layer1", "layer2", "layer3", "layer4"):
        model.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: kept.update({name: output}))
    outputs = model(torch.randn(1, 3, 64, 96))
    shapes = [tuple(feature.shape[1:]) for feature in outputs["features"]]
    assert shapes == [(8, 32, 48), (32, 16, 24), (64, 8, 12), (128, 4, 6), (256, 2, 3)]
    torch.testing.assert_close(outputs["embeddings"], outputs["features"][-1].mean((2, 3)))
    assert model.token_layout((64, 96)) is None


def test_features_can_be_left_out():
    model, images = ResNet(SMALL["basic"]).eval(), torch.randn(1, 3, 64, 64)
    lean = model(images, output_features=False)
    assert lean.keys() == {"logits", "embeddings"}
    assert torch.equal(lean["logits"], model(images)["logits"])


def test_zero_branches_leave_the_shortcut():
    """A residual block whose last norm is zero is the identity on what is positive (Sec. 3.1)."""
    model = ResNet(SMALL["basic"]).eval()
    block = model.layer1[1]
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 8, 9, 9)
    assert torch.equal(block(x), x)


def test_cifar_stem_keeps_small_images():
    model = ResNet(SMALL["basic"].replace(stem="cifar", in_channels=1)).eval()
    assert [feature.shape[-1] for feature in model(torch.randn(1, 1, 32, 32))["features"]] == [32, 32, 16, 8, 4]


def test_files_without_batch_counts_are_read(torchvision, tmp_path):
    theirs = torchvision.models.resnet18(num_classes=5).eval()
    state = {key: value for key, value in theirs.state_dict().items() if "num_batches_tracked" not in key}
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, tmp_path / "old.pth"
    )
    ours = create_model("resnet18", num_classes=5).eval()
    load_weights(ours, tmp_path / "old.pth")
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=1e-5, atol=1e-5)


def test_attentions_are_refused():
    with pytest.raises(ValueError, match=r"ResNet has no attention maps; nexus\.visualization.GradCAM shows"):
        ResNet(SMALL["basic"])(torch.zeros(1, 3, 32, 32), output_attentions=True)


def test_wrong_channels_and_wrong_blocks_are_refused():
    with pytest.raises(ValueError, match="images have 4 channels; this model was built with in_channels=3"):
        ResNet(SMALL["basic"])(torch.zeros(1, 4, 32, 32))
    with pytest.raises(ValueError, match=r"ResNetConfig\.num_layers is \(2, 2\); it needs 4 values"):
        ResNetConfig(num_layers=(2, 2))
