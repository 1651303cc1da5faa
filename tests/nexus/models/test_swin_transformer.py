"""SwinTransformer against timm, torchvision, transformers and the authors' layout."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nexus.core.formats import rename_keys, to_our_names
from nexus.core.weights import load_weights
from nexus.models.cv import SwinConfig, SwinTransformer
from nexus.models.cv.swin_transformer import PatchMerging
from nexus.models.registry import create_model, list_models, model_info
from nexus.proofs.convolutional import hub_swin, timm_swin, torchvision_swin

TINY = SwinConfig(
    image_size=32, num_classes=5, embed_dim=8, num_layers=(2, 2), num_heads=(2, 4), window_size=4, mlp_ratio=2.0
)
COUNTS = {  # the authors' model
    "swin_tiny_patch4_window7_224": 28_288_354,
    "swin_small_patch4_window7_224": 49_606_258,
    "swin_base_patch4_window7_224": 87_768_224,
    "swin_base_patch4_window12_384": 87_903_584,
    "swin_large_patch4_window7_224": 196_532_476,
    "swin_large_patch4_window12_384": 196_735_516,
}


@pytest.mark.parametrize("size", [32, (64, 96)])
def test_matches_timm(timm, assert_parity, size):
    sides = (size, size) if isinstance(size, int) else size
    ours, theirs = SwinTransformer(TINY.replace(image_size=size)), timm_swin(timm, TINY, img_size=size)
    assert_parity(ours, theirs, torch.randn(2, 3, *sides), spelling="timm")


def test_matches_timm_at_another_size_than_it_was_built_for(timm, assert_parity):
    theirs = timm_swin(timm, TINY, img_size=64, strict_img_size=False)
    assert_parity(SwinTransformer(TINY), theirs, torch.randn(2, 3, 96, 128), spelling="timm")


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (36, 44), (84, 52)])  # the last two leave windows unfilled
def test_matches_torchvision(torchvision, assert_parity, size):
    ours, theirs = SwinTransformer(TINY), torchvision_swin(torchvision, TINY)
    assert_parity(ours, theirs, torch.randn(2, 3, *size), spelling="torchvision")


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (84, 52)])
def test_matches_transformers(transformers, assert_parity, size):
    images = torch.randn(2, 3, *size)
    theirs = hub_swin(transformers, TINY)
    assert_parity(SwinTransformer(TINY), theirs, images, spelling="hub", run=lambda model, x: model(x).logits)


def test_reads_a_hub_folder_in_the_older_names(transformers, tmp_path):
    theirs = hub_swin(transformers, TINY).eval()
    theirs.save_pretrained(tmp_path)
    ours = SwinTransformer.from_pretrained(tmp_path)
    assert ours.config == TINY
    images = torch.randn(2, 3, 64, 96)
    torch.testing.assert_close(ours(images)["logits"], theirs(images).logits, rtol=1e-5, atol=1e-5)


def as_the_authors_write(theirs: nn.Module) -> dict[str, torch.Tensor]:
    """timm's weights as the authors' files have them: patch merging ends a stage, and buffers are stored."""
    names = {r"^layers\.1\.downsample": "layers.0.downsample", r"^head\.fc": "head"}
    state = rename_keys(theirs.state_dict(), names)
    for key in list(state):
        if key.endswith("relative_position_bias_table"):
            state[key.replace("bias_table", "index")] = torch.zeros(16, 16, dtype=torch.long)
            state[key.replace("attn.relative_position_bias_table", "attn_mask")] = torch.zeros(4, 16, 16)
    return state


def test_reads_the_authors_file(timm, tmp_path):
    theirs = timm_swin(timm, TINY).eval()
    torch.save({"model": as_the_authors_write(theirs), "epoch": 299}, tmp_path / "swin.pth")
    ours = SwinTransformer.from_pretrained(tmp_path / "swin.pth", **TINY.to_dict())
    assert to_our_names(as_the_authors_write(theirs), ours.formats)[1] == "authors"
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=1e-5, atol=1e-5)


def test_reads_weights_without_a_head_and_for_other_channels(timm, tmp_path):
    theirs = timm_swin(timm, TINY, num_classes=0).eval()
    torch.save(theirs.state_dict(), tmp_path / "backbone.pth")
    config = TINY.replace(num_classes=0).to_dict()
    ours = SwinTransformer.from_pretrained(tmp_path / "backbone.pth", **config)
    grey = SwinTransformer.from_pretrained(tmp_path / "backbone.pth", **config | {"in_channels": 1})
    image = torch.randn(2, 1, 32, 32)
    wanted = theirs(image.expand(-1, 3, -1, -1))
    for logits in (ours(image.expand(-1, 3, -1, -1))["logits"], grey(image)["logits"]):
        torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=1e-5)


def test_a_small_map_is_one_window_as_in_the_authors_code(timm, assert_parity, tmp_path):
    """Where a map is smaller than the window, their table is smaller; ours is used in its middle."""
    theirs = timm_swin(timm, TINY, img_size=16).eval()  # maps of 4x4 and 2x2
    assert theirs.layers[1].blocks[0].attn.relative_position_bias_table.shape == (9, 4)
    nn.init.normal_(theirs.layers[1].blocks[0].attn.relative_position_bias_table)
    torch.save(theirs.state_dict(), tmp_path / "small.pth")
    ours = SwinTransformer(TINY.replace(image_size=32)).eval()  # built for another size, so nothing is prepared
    load_weights(ours, tmp_path / "small.pth")
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=1e-5, atol=1e-5)


def test_tables_are_resampled_as_the_authors_do(timm, tmp_path):
    theirs = timm_swin(timm, TINY)
    key = "layers.0.blocks.1.attn.relative_position_bias_table"
    table = torch.randn(49, 2)
    theirs.get_submodule("layers.0.blocks.1.attn").relative_position_bias_table.data = table
    torch.save(theirs.state_dict(), tmp_path / "window4.pth")
    ours = SwinTransformer(TINY.replace(window_size=6, image_size=48))
    load_weights(ours, tmp_path / "window4.pth")
    grid = table.T.reshape(1, 2, 7, 7)  # utils.py of microsoft/Swin-Transformer
    wanted = F.interpolate(grid, size=(11, 11), mode="bicubic").reshape(2, 121).T
    torch.testing.assert_close(ours.state_dict()[key], wanted)
    torch.testing.assert_close(wanted[60], table[24])  # the bias of a token to itself stays


@pytest.mark.parametrize("name", list(COUNTS))
def test_parameter_counts(timm, name):
    with torch.device("meta"):
        ours, theirs = create_model(name), timm.create_model(name)
    assert ours.num_parameters() == model_info(name).num_parameters == COUNTS[name]
    assert COUNTS[name] == sum(p.numel() for p in theirs.parameters())


def test_cards_agree_with_timm(timm):
    assert sorted(COUNTS) == list_models("swin_*")
    tags, urls, published = set(), set(), set()
    for name in COUNTS:
        for weights in model_info(name).weights:
            if weights.url.startswith("https://github.com/"):
                urls.add(weights.url)
            if not weights.url.startswith("hf-hub:timm/"):
                continue
            tags.add(f"{name}.{weights.tag}")
            theirs, ours = timm.get_pretrained_cfg(f"{name}.{weights.tag}"), weights.preprocessing
            published.add(theirs.url)
            assert weights.changes.get("num_classes", 1000) == theirs.num_classes
            assert weights.licence == theirs.license
            assert ours.image_size == theirs.input_size[1:]
            assert ours.resize_size == int(theirs.input_size[1] / theirs.crop_pct)
            assert (ours.mean, ours.std, ours.interpolation) == (theirs.mean, theirs.std, theirs.interpolation)
    assert tags == set(timm.list_models("swin_*_patch4_*", pretrained=True))
    assert urls == published  # the authors' own files


def test_cards_agree_with_torchvision(torchvision):
    for name, size in (("swin_t", "tiny"), ("swin_s", "small"), ("swin_b", "base")):
        published = torchvision.models.get_model_weights(name).IMAGENET1K_V1
        card, transforms = model_info(f"swin_{size}_patch4_window7_224"), published.transforms()
        weights = card.find_weights("tv_in1k")
        assert weights.url == published.url
        assert card.num_parameters == published.meta["num_params"]
        assert weights.metrics[0].value == published.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert weights.preprocessing.resize_size == transforms.resize_size[0]
        assert weights.preprocessing.interpolation == transforms.interpolation.value


def test_a_window_does_not_see_its_neighbour():
    """An unshifted block keeps a change inside its window; the shifted one after it carries it across (Fig. 2)."""
    plain, shifted = SwinTransformer(TINY).eval().layers[0].blocks
    x = torch.randn(1, 8, 8, 8)
    y = x.clone()
    y[0, 3, 3] += torch.randn(8)  # the last token of the first window
    moved = (plain(x) - plain(y)).abs().sum(-1)[0] > 0
    assert moved[:4, :4].all()
    assert moved.sum() == 16
    moved = (shifted(x) - shifted(y)).abs().sum(-1)[0] > 1e-7
    assert moved[2:6, 2:6].all()
    assert moved.sum() == 16


def test_shifted_windows_do_not_wrap_around():
    """The cyclic shift puts opposite borders into one window; the mask keeps them apart (Fig. 4)."""
    _, shifted = SwinTransformer(TINY).eval().layers[0].blocks
    x = torch.randn(1, 8, 8, 8)
    y = x.clone()
    y[0, 0, 0] += torch.randn(8)
    moved = (shifted(x) - shifted(y)).abs().sum(-1)[0] > 1e-7
    assert moved.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_patch_merging_goes_down_columns_first():
    """The four tokens are joined in the order (even, even), (odd, even), (even, odd), (odd, odd) of row and column."""
    merging = PatchMerging(1, 1e-5)
    merging.norm, merging.reduction = nn.Identity(), nn.Identity()
    merged = merging(torch.tensor([[0.0, 1.0], [2.0, 3.0]]).reshape(1, 2, 2, 1))
    assert merged.flatten().tolist() == [0.0, 2.0, 1.0, 3.0]
    assert merging(torch.ones(1, 3, 5, 1)).shape == (1, 2, 3, 4)


def test_attentions_are_those_of_the_forward_pass(transformers):
    theirs = hub_swin(transformers, TINY, attn_implementation="eager").eval()
    state, _ = to_our_names(theirs.state_dict(), SwinTransformer.formats)
    ours = SwinTransformer(TINY).eval()
    ours.load_state_dict(state)
    images = torch.randn(2, 3, 32, 32)
    attentions = ours(images, output_attentions=True)["attentions"]
    assert [tuple(maps.shape) for maps in attentions] == [(2, 4, 2, 16, 16)] * 2 + [(2, 1, 4, 16, 16)] * 2
    wanted = [block.attention for layer in theirs.swin.encoder.layers for block in layer.blocks]
    seen = []
    hooks = [module.register_forward_hook(lambda *parts: seen.append(parts[2][1])) for module in wanted]
    theirs(images, output_attentions=True)
    for hook in hooks:
        hook.remove()
    for maps, reference in zip(attentions, seen, strict=True):
        torch.testing.assert_close(maps.flatten(0, 1), reference, rtol=1e-5, atol=1e-6)


def test_features_are_maps_of_the_stages():
    outputs = SwinTransformer(TINY)(torch.randn(1, 3, 64, 36))
    assert [tuple(x.shape) for x in outputs["features"]] == [(1, 8, 16, 9), (1, 16, 8, 5)]
    assert SwinTransformer(TINY).token_layout((32, 32)) is None


def test_drop_path_rises_over_all_stages():
    model = SwinTransformer(TINY.replace(drop_path_rate=0.3))
    rates = [round(block.drop_path.rate, 6) for stage in model.layers for block in stage.blocks]
    assert rates == [0.0, 0.1, 0.2, 0.3]


def test_errors_say_what_would_fit():
    with pytest.raises(ValueError, match=r"images are 30x32 pixels; both sides must be multiples of 4, such as 32x32"):
        SwinTransformer(TINY)(torch.zeros(1, 3, 30, 32))
    with pytest.raises(ValueError, match="num_layers has 2 stages and num_heads has 3; they must agree"):
        TINY.replace(num_heads=(2, 4, 8))
    with pytest.raises(ValueError, match="Stage 1 is 16 wide, which is not a multiple of its 3 heads"):
        TINY.replace(num_heads=(2, 3))
    with pytest.raises(ValueError, match="use_absolute_embeddings is true; Swin is built with relative positions only"):
        SwinTransformer.config_from_hub({"use_absolute_embeddings": True})
