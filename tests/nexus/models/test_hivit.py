"""HiViT against kept results of the authors' code, and against its definition written out in NumPy."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nexus.core.weights import load_weights
from nexus.layers.relative_position import relative_positions, resample_offsets
from nexus.models.cv import HiViT, HiViTConfig
from nexus.models.cv.hivit import VARIANTS
from nexus.models.registry import create_model, model_info

TINY = HiViTConfig(image_size=32, patch_size=8, num_classes=5, embed_dim=16, num_layers=(1, 1, 2), num_heads=2)
GOLDEN = Path(__file__).with_name("golden")


@pytest.fixture(scope="module")
def golden():
    spec = importlib.util.spec_from_file_location("golden_hivit", GOLDEN / "hivit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_matches_the_authors_code(golden):
    """Logits and gradients that golden/hivit.py wrote from the authors' file, with the same weights and images."""
    kept = json.loads((GOLDEN / "hivit.json").read_text())
    model = HiViT(
        HiViTConfig(
            image_size=golden.IMAGE_SIZE, patch_size=golden.PATCH_SIZE, num_layers=golden.DEPTHS, **golden.SETTINGS
        )
    )
    model = model.double().eval()
    assert {name for name, _ in model.named_parameters()} == set(kept["gradients"])
    model.load_state_dict(golden.weights({name: value.shape for name, value in model.named_parameters()}))
    logits = model(golden.images())["logits"]
    torch.testing.assert_close(logits, torch.tensor(kept["logits"], dtype=torch.float64), rtol=0, atol=1e-12)
    (logits * golden.draw("direction", logits.shape)).sum().backward()
    for name, parameter in model.named_parameters():
        found = [parameter.grad.sum().item(), (parameter.grad * golden.draw("probe", parameter.shape)).sum().item()]
        assert found == pytest.approx(kept["gradients"][name], rel=1e-10, abs=1e-12), name


def test_the_authors_buffers_are_dropped(golden, tmp_path):
    kept = json.loads((GOLDEN / "hivit.json").read_text())
    model = HiViT(TINY)
    state = model.state_dict() | {name: torch.zeros(2, dtype=torch.long) for name in kept["buffers"]}
    state |= {"blocks.4.attn.relative_position_index": torch.zeros(2, dtype=torch.long)}  # of their supervised code
    torch.save({"model": state}, tmp_path / "ft.pth")
    again = HiViT.from_pretrained(tmp_path / "ft.pth", **TINY.to_dict())
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(again(images)["logits"], model.eval()(images)["logits"])


def layer_norm(x: np.ndarray, module) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return scaled * module.weight.detach().numpy() + module.bias.detach().numpy()


def test_units_are_those_of_their_patch():
    """Each patch alone, cut into 4 x 4 squares of two pixels, gives the same vectors as the whole image."""
    model = HiViT(TINY).double()
    images = torch.randn(1, 3, 16, 24, dtype=torch.float64)
    units = model.patch_embed(images).detach().numpy()
    kernel, bias = (value.detach().numpy() for value in model.patch_embed.proj.parameters())
    for row in range(2):
        for column in range(3):
            for u in range(4):
                for v in range(4):
                    top, left = 8 * row + 2 * u, 8 * column + 2 * v
                    square = images[0, :, top : top + 2, left : left + 2].numpy()
                    wanted = layer_norm(np.einsum("dcij,cij->d", kernel, square) + bias, model.patch_embed.norm)
                    np.testing.assert_allclose(units[0, 3 * row + column, u, v], wanted, atol=1e-12)


def test_merging_joins_the_four_in_the_authors_order():
    """(even, even), (odd row, even column), (even, odd), (odd, odd): the order in which Swin joins too."""
    model = HiViT(TINY).double()
    merge = model.blocks[2]
    x = torch.randn(1, 2, 4, 4, 4, dtype=torch.float64)
    found = merge(x).detach().numpy()
    for u in range(2):
        for v in range(2):
            four = [x[0, 1, 2 * u + row, 2 * v + column].numpy() for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
            wanted = merge.reduction.weight.detach().numpy() @ layer_norm(np.concatenate(four), merge.norm)
            np.testing.assert_allclose(found[0, 1, u, v], wanted, atol=1e-12)


def test_attention_has_a_bias_for_each_offset():
    model = HiViT(TINY).double().eval()
    attn = model.blocks[-1].attn
    torch.nn.init.normal_(attn.relative_position_bias_table)
    x = torch.randn(1, 16, 16, dtype=torch.float64)
    found = attn.maps(x, model.index, (4, 4)).detach().numpy()
    table = attn.relative_position_bias_table.detach().numpy().reshape(7, 7, 2)
    q, k, v = attn.qkv(x).detach().numpy()[0].reshape(16, 3, 2, 8).transpose(1, 2, 0, 3)
    mixed = np.zeros((16, 2, 8))
    for head in range(2):
        for i in range(16):
            offsets = [table[i // 4 - j // 4 + 3, i % 4 - j % 4 + 3, head] for j in range(16)]
            scores = k[head] @ q[head, i] / np.sqrt(8) + np.array(offsets)
            weights = np.exp(scores) / np.exp(scores).sum()
            np.testing.assert_allclose(found[0, head, i], weights, atol=1e-12)
            mixed[i, head] = weights @ v[head]
    wanted = attn.proj(torch.from_numpy(mixed.reshape(1, 16, 16)))
    torch.testing.assert_close(attn(x, model.index, (4, 4)), wanted, rtol=0, atol=1e-12)


def test_early_stages_do_not_look_beyond_their_patch():
    """Sec. 3.1: a change in one patch leaves all others as they were until the last stage."""
    model = HiViT(TINY).eval()
    images = torch.randn(1, 3, 32, 32)
    changed = images.clone()
    changed[..., 8:16, 16:24] += 1
    before, after = model(images)["features"], model(changed)["features"]
    assert [tuple(maps.shape[1:]) for maps in before[:6]] == [
        (4, 16, 16),
        (4, 16, 16),
        (8, 8, 8),
        (8, 8, 8),
        (8, 8, 8),
        (16, 4, 4),
    ]
    for one, other in zip(before[:6], after[:6]):
        moved = (one - other).abs().sum(1)[0].reshape(4, one.shape[2] // 4, 4, one.shape[3] // 4).sum((1, 3))
        assert moved.nonzero().tolist() == [[1, 2]]
    assert ((before[-1] - after[-1]).abs().sum(-1) > 0).all()


@pytest.mark.parametrize(
    ("name", "count"), [("hivit_tiny", 19_181_668), ("hivit_small", 37_526_464), ("hivit_base", 66_418_952)]
)
def test_parameter_counts(name, count):
    with torch.device("meta"):
        model = create_model(name)
    assert model.num_parameters() == model_info(name).num_parameters == count
    assert set(VARIANTS) == {"hivit_tiny", "hivit_small", "hivit_base"}


def test_names_are_those_of_the_published_files():
    with torch.device("meta"):
        keys = create_model("hivit_base").state_dict().keys()
    for key in ("absolute_pos_embed", "patch_embed.proj.weight", "blocks.4.reduction.weight", "blocks.9.norm.weight"):
        assert key in keys
    assert "blocks.10.attn.relative_position_bias_table" in keys
    assert "blocks.29.attn.qkv.weight" in keys
    assert not any("index" in key for key in keys)


def test_reads_the_encoder_of_a_pretraining(tmp_path):
    theirs = HiViT(TINY)
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith(("fc_norm", "head"))}
    state |= {"norm.weight": torch.ones(16), "norm.bias": torch.ones(16), "mask_token": torch.zeros(1, 1, 8)}
    state |= {"decoder_embed.weight": torch.zeros(8, 16), "decoder_pos_embed": torch.zeros(1, 16, 8)}
    torch.save({"model": state}, tmp_path / "mae.pth")
    ours = HiViT.from_pretrained(tmp_path / "mae.pth", **TINY.to_dict())
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(ours(images)["features"][-1], theirs.eval()(images)["features"][-1])


def test_positions_and_biases_are_resampled_at_loading_as_in_the_forward_pass(tmp_path):
    theirs = HiViT(TINY).eval()
    for block in theirs.blocks[-2:]:
        torch.nn.init.normal_(block.attn.relative_position_bias_table)
    torch.save(theirs.state_dict(), tmp_path / "hivit.pth")
    ours = HiViT(TINY.replace(image_size=(48, 24))).eval()
    load_weights(ours, tmp_path / "hivit.pth")
    images = torch.randn(2, 3, 48, 24)
    torch.testing.assert_close(ours(images)["logits"], theirs(images)["logits"], rtol=1e-5, atol=1e-5)


def test_offsets_of_an_oblong_grid():
    index = relative_positions((2, 3), (2, 3))
    assert index.shape == (6, 6)
    assert index[0, 0] == 7  # no offset stands in the middle of a table of 3 x 5
    assert index[5, 0] == 14  # one row down and two columns right: the last
    assert index[0, 5] == 0
    table = torch.randn(15, 2)
    assert resample_offsets(table, (2, 3), (2, 3)) is table
    assert resample_offsets(torch.ones(15, 2), (2, 3), (4, 4)).shape == (49, 2)


def test_errors_say_what_to_change():
    with pytest.raises(ValueError, match="patch_size 6 is not a multiple of 4, the units along its side"):
        TINY.replace(patch_size=6)
    with pytest.raises(ValueError, match=r"image_size 30 is not a multiple of patch_size 8; the nearest one is 32"):
        TINY.replace(image_size=30)
    with pytest.raises(ValueError, match=r"embed_dim 18 must be a multiple of 4 .* and of num_heads 2"):
        TINY.replace(embed_dim=18)
    with pytest.raises(ValueError, match="hivit_base has no published weights"):
        HiViT.from_pretrained("hivit_base")
