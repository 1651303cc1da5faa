"""DINOv2 against transformers and timm, and against the rule by which the authors resample positions."""

import numpy as np
import pytest
import torch
from torch import nn

from nexus.core.formats import to_our_names
from nexus.core.module import NexusModule
from nexus.core.weights import load_weights
from nexus.layers import resample_position_embedding
from nexus.models.cv import DINOv2, DINOv2Config
from nexus.models.cv.dinov2 import VARIANTS
from nexus.models.registry import create_model, model_info
from nexus.models.selection import recommend
from nexus.proofs.vit import hub_dinov2, timm_dinov2

TINY = DINOv2Config(image_size=28, patch_size=7, embed_dim=24, num_layers=3, num_heads=2)
REGISTERS = TINY.replace(num_registers=3, interpolate_antialias=True, interpolate_offset=0.0)
SWIGLU = TINY.replace(ffn="swiglu")


@pytest.mark.parametrize("config", [TINY, REGISTERS, SWIGLU], ids=["plain", "registers", "swiglu"])
def test_matches_transformers(transformers, assert_parity, config):
    theirs = hub_dinov2(transformers, config)
    images = torch.randn(2, 3, 28, 28)
    assert_parity(DINOv2(config), theirs, images, spelling="hub", run=lambda m, x: m(x).pooler_output)


@pytest.mark.parametrize("size", [(42, 35), (14, 21)])
def test_matches_transformers_at_another_size(transformers, assert_parity, size):
    """The registers' code and the hub's agree; for the others the hub leaves out the authors' offset.

    Transformers resamples in float32, whatever the model's type is.
    """
    for config in (REGISTERS, TINY.replace(interpolate_offset=0.0)):
        theirs = hub_dinov2(transformers, config)
        images = torch.randn(2, 3, *size)
        assert_parity(DINOv2(config), theirs, images, spelling="hub", run=lambda m, x: m(x).pooler_output, float64=2e-6)


@pytest.mark.parametrize("config", [TINY, REGISTERS], ids=["plain", "registers"])
def test_classifiers_match_transformers(transformers, assert_parity, config):
    ours = DINOv2(config.replace(num_classes=5, pool="token+mean"))
    theirs = hub_dinov2(transformers, config, classes=5)
    assert_parity(ours, theirs, torch.randn(2, 3, 28, 28), spelling="hub", run=lambda m, x: m(x).logits)


@pytest.mark.parametrize("config", [TINY, REGISTERS, SWIGLU], ids=["plain", "registers", "swiglu"])
def test_matches_timm(timm, assert_parity, config):
    theirs, images = timm_dinov2(timm, config), torch.randn(2, 3, 28, 28, dtype=torch.float64)
    if config == TINY:
        assert_parity(DINOv2(config), theirs, images, spelling="nexus")
        return
    # Gradients are of other things here: timm has folded a position, or calls a gated perceptron like a plain one.
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    ours, theirs = DINOv2(config).double().eval(), theirs.double().eval()
    state, spelling = to_our_names(theirs.state_dict(), DINOv2.formats)
    assert spelling == ("timm" if config.num_registers else "nexus")
    ours.load_state_dict(ours.fit_state(state))
    torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", [TINY, REGISTERS], ids=["plain", "registers"])
@pytest.mark.parametrize("classes", [0, 5])
def test_reads_a_hub_folder(transformers, tmp_path, config, classes):
    theirs = hub_dinov2(transformers, config, classes=classes).eval()
    theirs.save_pretrained(tmp_path)  # writes the older names, which published files have
    ours = NexusModule.from_pretrained(tmp_path)
    assert isinstance(ours, DINOv2)
    assert ours.config == config.replace(num_classes=classes, pool="token+mean" if classes else "token")
    images = torch.randn(2, 3, 28, 28)
    wanted = theirs(images).logits if classes else theirs(images).pooler_output
    torch.testing.assert_close(ours(images)["logits"], wanted, rtol=1e-5, atol=1e-5)


def test_patch_embeddings_are_the_hubs_last_hidden_state(transformers):
    theirs, ours = hub_dinov2(transformers, REGISTERS).eval(), DINOv2(REGISTERS).eval()
    ours.load_state_dict(DINOv2.formats[1].to_ours(theirs.state_dict()))
    images = torch.randn(2, 3, 28, 28)
    wanted = theirs(images).last_hidden_state[:, 4:]
    torch.testing.assert_close(ours(images)["patch_embeddings"], wanted, rtol=1e-5, atol=1e-5)


def test_masked_patches_match_transformers(transformers):
    theirs, ours = hub_dinov2(transformers, TINY).eval(), DINOv2(TINY).eval()
    nn.init.normal_(theirs.embeddings.mask_token)
    ours.load_state_dict(DINOv2.formats[1].to_ours(theirs.state_dict()))
    images, masks = torch.randn(2, 3, 28, 28), torch.rand(2, 16) < 0.5
    wanted = theirs(images, bool_masked_pos=masks).pooler_output
    torch.testing.assert_close(ours(images, masks=masks)["embeddings"], wanted, rtol=1e-5, atol=1e-5)
    assert not torch.equal(ours(images)["embeddings"], ours(images, masks=masks)["embeddings"])


def cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.75, which torch takes."""
    a, x = -0.75, np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    return np.where(x <= 1, near, np.where(x < 2, a * (((x - 5) * x + 8) * x - 4), 0.0))


def sampling_matrix(old: int, new: int, offset: float) -> np.ndarray:
    """Rows of weights over `old` values, for `new` ones whose distance is that of `new + offset` among them."""
    places = (np.arange(new) + 0.5) * old / (new + offset) - 0.5
    matrix = np.zeros((new, old))
    for row, place in enumerate(places):
        for tap in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            matrix[row, min(max(tap, 0), old - 1)] += cubic(np.array(place - tap))
    return matrix


@pytest.mark.parametrize("new", [(16, 16), (5, 9), (37, 36)])
def test_positions_are_sampled_with_the_offset_that_the_weights_were_trained_with(new):
    positions = torch.randn(1, 1 + 9 * 9, 4, dtype=torch.float64)
    model = DINOv2(TINY)
    found = model.resample(positions, (9, 9), new)
    image = positions[0, 1:].reshape(9, 9, 4).numpy()
    rows, columns = (sampling_matrix(9, count, 0.1) for count in new)
    wanted = np.einsum("ia,jb,abd->ijd", rows, columns, image).reshape(-1, 4)
    np.testing.assert_allclose(found[0, 1:].numpy(), wanted, atol=1e-12)
    assert torch.equal(found[:, 0], positions[:, 0])
    without = resample_position_embedding(positions, (9, 9), new, num_prefix=1, antialias=False)
    assert (found - without).abs().max() > 1e-3


def test_positions_are_resampled_at_loading_as_in_the_forward_pass(tmp_path):
    theirs = DINOv2(TINY).eval()
    torch.save(theirs.state_dict(), tmp_path / "dinov2.pth")
    ours = DINOv2.from_pretrained(tmp_path / "dinov2.pth", **TINY.replace(image_size=(42, 35)).to_dict())
    images = torch.randn(2, 3, 42, 35)
    torch.testing.assert_close(ours(images)["logits"], theirs(images)["logits"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameter_counts(name, timm):
    card = model_info(name)
    with torch.device("meta"):
        ours = create_model(name)
        timm_name = card.find_weights("timm_lvd142m").url.removeprefix("hf-hub:timm/")
        theirs = timm.create_model(timm_name.partition(".")[0])
    assert ours.num_parameters() == card.num_parameters
    width, registers = ours.config.embed_dim, ours.config.num_registers
    folded = width * (2 if registers else 1)  # timm has no mask token, and adds the class position to the token
    assert ours.num_parameters() - folded == sum(parameter.numel() for parameter in theirs.parameters())


def test_published_parameter_counts():
    counts = [model_info(name).num_parameters for name in VARIANTS]
    assert counts == [
        22_056_576,
        86_580_480,
        304_368_640,
        1_136_480_768,
        22_058_112,
        86_583_552,
        304_372_736,
        1_136_486_912,
    ]


def test_cards_agree_with_timm(timm):
    for name in VARIANTS:
        weights = model_info(name).find_weights("timm_lvd142m")
        theirs = timm.get_pretrained_cfg(weights.url.removeprefix("hf-hub:timm/"))
        assert theirs is not None, name
        ours = weights.preprocessing
        assert (ours.mean, ours.std, ours.interpolation) == (theirs.mean, theirs.std, theirs.interpolation)
        assert (ours.image_size, weights.licence) == (theirs.input_size[1:], theirs.license)
        assert theirs.crop_pct == 1.0


def test_the_seeds_lines_run(tmp_path, monkeypatch):
    """`DINOv2.from_pretrained("dinov2_vitb14"); model.head = nn.Linear(768, num_classes)`, with the file in its place."""
    card = model_info("dinov2_vits14")
    file = tmp_path / "dinov2_vits14_pretrain.pth"
    written = DINOv2(card.config)
    torch.save(written.state_dict(), file)
    monkeypatch.setattr("nexus.core.weights.download", lambda url, sha256="": tmp_path / url.rpartition("/")[2])
    model = DINOv2.from_pretrained("dinov2_vits14")
    assert model.preprocessing == card.preprocessing
    images = torch.randn(1, 3, 28, 42)
    assert torch.equal(model(images)["logits"], written.eval()(images)["embeddings"])
    model.head = nn.Linear(384, 7)
    assert model(images)["logits"].shape == (1, 7)
    again = DINOv2.from_pretrained(model.save_pretrained(tmp_path / "saved"))
    assert torch.equal(again(images)["logits"], model(images)["logits"])


def test_registers_have_no_place():
    """Registers get no position, so a permutation of them permutes their outputs and changes nothing else."""
    model = DINOv2(REGISTERS).double().eval()
    nn.init.normal_(model.register_tokens)
    images = torch.randn(1, 3, 28, 28, dtype=torch.float64)
    before = model(images)["features"][-1]
    with torch.no_grad():
        model.register_tokens.copy_(model.register_tokens[:, [2, 0, 1]])
    after = model(images)["features"][-1]
    order = [0, 3, 1, 2, *range(4, 20)]
    torch.testing.assert_close(after, before[:, order], rtol=0, atol=1e-12)


def test_layer_scale_of_zero_silences_the_blocks():
    model = DINOv2(TINY.replace(layer_scale=0.0)).eval()
    images = torch.randn(1, 3, 28, 28)
    assert torch.equal(model(images)["features"][-1], model.embed(images))


def test_recommended_where_the_seeds_say_so():
    for need in ({"task": "image-classification"}, {"constraint": "zero-shot"}, {"constraint": "few-shot"}):
        rows = recommend(**need)
        assert {"DINOv2"} <= {row["family"] for row in rows if row["choice"] == "recommended"}
    for data in ("none", "10-100"):
        assert "DINOv2" in [row["family"] for row in recommend(data=data) if row["choice"] == "recommended"]


def test_errors_say_what_to_change():
    with pytest.raises(ValueError, match=r"image_size 30 is not a multiple of patch_size 7; the nearest one is 28\."):
        TINY.replace(image_size=30)
    with pytest.raises(ValueError, match=r"embed_dim 24 is not a multiple of num_heads 5"):
        TINY.replace(num_heads=5)
    with pytest.raises(ValueError, match=r"masks have shape \(1, 9\); patches have \(1, 16\)"):
        DINOv2(TINY)(torch.randn(1, 3, 28, 28), masks=torch.ones(1, 9, dtype=torch.bool))
    with pytest.raises(ValueError, match="hidden_act is 'relu'; DINOv2 is built with 'gelu'"):
        DINOv2.config_from_hub({"model_type": "dinov2", "hidden_act": "relu"})


def test_a_file_of_another_size_is_refused(tmp_path):
    torch.save(DINOv2(TINY).state_dict(), tmp_path / "dinov2.pth")
    with pytest.raises(ValueError, match=r"does not fit DINOv2: it lacks register_tokens"):
        load_weights(DINOv2(REGISTERS), tmp_path / "dinov2.pth")
