"""SAM against transformers, against kept results of the authors' code, and against what the paper and we promise.

`golden/sam_prompts` holds a small model that ran in the authors' code (segment-anything at dca509f): its weights under
their names, a picture, and what came out for eight kinds of prompts.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nexus import create_model
from nexus.core.formats import to_our_names
from nexus.models.cv import SAM, SAMConfig
from nexus.models.cv.sam.image_encoder import PlacedAttention, distances
from nexus.proofs.parity import compare, randomize
from nexus.proofs.sam import SMALL, hub_sam, one_matrix, published

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "sam_prompts.json").read_text())["cases"]
AUTHORS = SAMConfig(
    image_size=128,
    patch_size=8,
    encoder_embed_dim=32,
    encoder_depth=3,
    encoder_num_heads=2,
    encoder_global_blocks=(1,),
    window_size=5,
    embed_dim=64,
    decoder_num_heads=4,
    decoder_mlp_dim=128,
    iou_head_dim=64,
)
SHARE = torch.tensor([128 / 110, 93 / 80])
"""Pixels of the resized picture in one of the picture as it was, across and down."""


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "sam_prompts.safetensors")


@pytest.fixture(scope="module")
def authors(golden):
    """Our model with the authors' weights, and the picture as they normalized it and filled it up."""
    model = SAM(AUTHORS).eval()
    weights = {key.removeprefix("weights/"): value for key, value in golden.items() if key.startswith("weights/")}
    state, spelling = to_our_names({key: value.float() for key, value in weights.items()}, SAM.formats)
    assert spelling == "authors"
    model.load_state_dict(model.fit_state(state))
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    picture = ((golden["outputs/resized"] - mean) / std).permute(2, 0, 1)
    images = torch.zeros(1, 3, 128, 128)
    images[0, :, :93] = picture
    return model, images


def small(**changes) -> SAM:
    torch.manual_seed(0)
    model = SAM(SAMConfig(**SMALL | changes)).eval()
    randomize(model)
    return model


def prompt_of(case, golden):
    found = {}
    if case["points_xy"]:
        found |= {"points": torch.tensor(case["points_xy"]) * SHARE, "labels": case["labels"]}
    if case["box_xyxy"]:
        found["boxes"] = torch.tensor(case["box_xyxy"]) * SHARE.repeat(2)
    if case["mask_prompt"]:
        found["masks"] = golden["inputs/mask_logits"][0]
    return found


def test_embedding_is_the_authors(authors, golden):
    model, images = authors
    assert torch.equal(images[:, :, ::4, ::4], golden["outputs/preprocessed_every_4th"])
    with torch.no_grad():
        assert (model.image_encoder(images) - golden["outputs/image_embedding"]).abs().max() < 2e-5


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_every_prompt_is_answered_as_by_the_authors(authors, golden, name, multimask):
    """Logits are up to 16; the authors' code with other routines for convolutions is 7e-5 from itself."""
    model, _ = authors
    kind = f"outputs/{name}/{'multi' if multimask else 'single'}"
    with torch.no_grad():
        prompt = prompt_of(CASES[name], golden)
        answer = model.predict(image_embedding=golden["outputs/image_embedding"], prompt=prompt, multimask=multimask)
        logits = answer["low_res_masks"][0, 0]
        assert (logits[:, ::4, ::4] - golden[f"{kind}/low_res_logits"]).abs().max() < 3e-4
        assert (answer["iou_scores"][0, 0] - golden[f"{kind}/iou"]).abs().max() < 2e-4
        if f"{kind}/masks" in golden:
            masks = answer["masks"][..., :93, :]
            masks = torch.nn.functional.interpolate(masks[0], (80, 110), mode="bilinear", align_corners=False)[0]
            unlike = (masks > 0) != golden[f"{kind}/masks"]
            assert not unlike[masks.abs() > 1e-3].any()


def test_boxes_of_one_call_are_answered_one_by_one(authors, golden):
    model, _ = authors
    boxes, embedding = golden["inputs/boxes"] * SHARE.repeat(2), golden["outputs/image_embedding"]
    with torch.no_grad():
        answer = model.predict(image_embedding=embedding, prompt={"boxes": boxes})
        assert (
            answer["low_res_masks"][0, ..., ::4, ::4] - golden["outputs/three_boxes/low_res_logits"]
        ).abs().max() < 3e-4
        for place, box in enumerate(boxes):
            alone = model.predict(image_embedding=embedding, prompt={"boxes": box})
            torch.testing.assert_close(alone["masks"][:, 0], answer["masks"][:, place], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kinds", [("points",), ("boxes",), ("points", "boxes"), ("points", "masks"), ("masks",)])
@pytest.mark.parametrize("multimask", [True, False])
def test_values_and_gradients_are_those_of_transformers(transformers, kinds, multimask):
    """In float64, of each kind of prompt alone and of combinations; the epsilon is transformers'."""
    torch.manual_seed(0)
    config = SAMConfig(**SMALL, decoder_norm_eps=1e-6)
    theirs = hub_sam(transformers, config)
    one_matrix(theirs)
    size = torch.tensor([64.0, 64.0]).double()
    given = {
        "points": torch.rand(2, 3, 2, 2).double() * size,
        "boxes": (torch.tensor([0.1, 0.2, 0.6, 0.9]) + torch.rand(2, 3, 1) * 0.1).double() * 64,
        "masks": torch.randn(2, 1, 16, 16).double(),
    }
    ours = {key: value for key, value in given.items() if key in kinds}
    hub = {f"input_{key}": value for key, value in ours.items()}
    if "points" in kinds:
        ours["labels"] = torch.tensor([[1, 0], [0, 1], [1, -1]]).expand(2, 3, 2)
        hub["input_labels"] = ours["labels"]
    if "masks" in kinds:  # transformers takes one for each image, and one prompt beside it
        ours = {key: value[:, :1] for key, value in ours.items()}
        hub = {key: value[:, :1] for key, value in hub.items()}

    def read(model, images):
        answer = model(images, **ours, multimask=multimask)
        return torch.cat([answer["low_res_masks"].flatten(), answer["iou_scores"].flatten()])

    def run(model, images):
        answer = model(images, **hub, multimask_output=multimask)
        return torch.cat([answer.pred_masks.flatten(), answer.iou_scores.flatten()])

    images = torch.randn(2, 3, 64, 64)
    found = compare(SAM(config), theirs, images, run=run, read=read, publish=published)
    assert found.spelling == "hub"
    assert found.values < 1e-10
    assert found.largest_gradient < 1e-10, found.gradients


def test_the_configuration_of_the_hub_is_ours(transformers):
    config = SAMConfig(**SMALL, decoder_norm_eps=1e-6)
    assert SAM.config_from_hub(hub_sam(transformers, config).config.to_dict()) == config
    with pytest.raises(ValueError, match=r"vision_config\.use_rel_pos is False"):
        SAM.config_from_hub({"vision_config": {"use_rel_pos": False}})
    with pytest.raises(ValueError, match="not known here"):
        SAM.config_from_hub({"mask_decoder_config": {"num_gates": 2}})


@pytest.mark.parametrize(("name", "encoder"), [("base", 89_670_912), ("large", 308_278_272), ("huge", 637_026_048)])
def test_parameter_counts(name, encoder):
    with torch.device("meta"):
        model = create_model(f"sam_vit_{name}")
    assert sum(p.numel() for p in model.image_encoder.parameters()) == encoder
    assert sum(p.numel() for p in model.prompt_encoder.parameters()) == 6_220
    assert sum(p.numel() for p in model.mask_decoder.parameters()) == 4_058_340
    assert model.num_parameters() == model.card.num_parameters


def test_the_printed_use():
    sam = SAM({"encoder_embed_dim": 24, "encoder_depth": 4, "encoder_num_heads": 2, "image_size": 64})
    embedding = sam.image_encoder(torch.randn(1, 3, 64, 64))
    for prompt in ({"points": [[20, 30]]}, {"boxes": [5, 5, 40, 50]}, {"masks": torch.zeros(16, 16)}):
        answer = sam.predict(image_embedding=embedding, prompt=prompt)
        assert answer["masks"].shape == (1, 1, 3, 64, 64)
        assert answer["iou_scores"].shape == (1, 1, 3)


def test_a_window_does_not_see_its_neighbour():
    torch.manual_seed(0)
    attention = PlacedAttention(8, 2, (6, 6), window=3)
    randomize(attention)
    x = torch.randn(1, 6, 6, 8)
    changed = x.clone()
    changed[:, :3, :3] += 1
    apart = (attention(x) - attention(changed)).abs().amax(dim=-1)[0]
    assert (apart[:3, :3] > 0).all()
    assert (apart[3:] == 0).all()
    assert (apart[:, 3:] == 0).all()


def test_queries_answered_a_few_rows_at_a_time_are_the_same(monkeypatch):
    torch.manual_seed(0)
    attention = PlacedAttention(8, 2, (6, 5), window=None)
    randomize(attention)
    x = torch.randn(2, 6, 5, 8)
    whole = attention(x)
    monkeypatch.setattr("nexus.models.cv.sam.image_encoder.MOST_BIASES", 1000)
    torch.testing.assert_close(attention(x), whole)


def test_distances_count_from_key_to_query():
    table = torch.arange(5.0)[:, None]
    assert distances(table, 3)[..., 0].tolist() == [[2, 1, 0], [3, 2, 1], [4, 3, 2]]


def test_the_order_of_points_does_not_matter():
    model, images = small().double(), torch.randn(1, 3, 64, 64).double()
    embedding = model.image_encoder(images)
    points, labels = torch.tensor([[10.0, 20], [40, 50], [60, 5]]), torch.tensor([1, 0, 1])
    one = model.predict(image_embedding=embedding, prompt={"points": points, "labels": labels})
    other = model.predict(image_embedding=embedding, prompt={"points": points.flip(0), "labels": labels.flip(0)})
    torch.testing.assert_close(one["masks"], other["masks"], rtol=1e-9, atol=1e-9)


def test_prompts_and_images_do_not_mix():
    model = small().double()
    embedding = model.image_encoder(torch.randn(2, 3, 64, 64).double())
    points = torch.rand(2, 3, 1, 2) * 60
    together = model.predict(image_embedding=embedding, prompt={"points": points})
    for image in range(2):
        for prompt in range(3):
            alone = model.predict(
                image_embedding=embedding[image : image + 1], prompt={"points": points[image, prompt]}
            )
            torch.testing.assert_close(alone["masks"][0, 0], together["masks"][image, prompt], rtol=1e-9, atol=1e-9)


def test_other_sizes_and_channels():
    model = small(in_channels=1)
    answer = model(
        torch.randn(1, 1, 96, 80), points=torch.tensor([[[[70.0, 90.0]]]]), labels=torch.ones(1, 1, 1).long()
    )
    assert answer["masks"].shape == (1, 1, 3, 96, 80)
    assert answer["embeddings"].shape == (1, 32, 6, 5)


def test_weights_follow_another_image_size():
    model = small()
    larger = SAM(SAMConfig(**SMALL | {"image_size": (96, 80)})).eval()
    larger.load_state_dict(larger.fit_state(model.state_dict()))
    images, places = (
        torch.randn(1, 3, 96, 80),
        {"points": torch.tensor([[[[70.0, 90.0]]]]), "labels": torch.ones(1, 1, 1).long()},
    )
    torch.testing.assert_close(
        larger(images, **places)["masks"], model(images, **places)["masks"], rtol=1e-4, atol=1e-4
    )


def test_blocks_that_are_computed_again_give_the_same_gradients():
    gradients = []
    for enabled in (False, True):
        model = small().train().set_gradient_checkpointing(enabled)
        torch.manual_seed(1)
        answer = model(torch.randn(1, 3, 64, 64), boxes=torch.tensor([[[5.0, 5, 40, 50]]]))
        answer["masks"].sum().backward()
        gradients.append(model.image_encoder.patch_embed.proj.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({}, "There is no prompt: give points, boxes or masks"),
        ([[3, 4]], "prompt is a list; give a mapping such as"),
        ({"point": [[3, 4]]}, "There is no prompt 'point'. Did you mean 'points'"),
        ({"labels": [1]}, "labels are given without points"),
        ({"points": [[3, 4], [5, 6]], "labels": [1]}, "There are 2 points and 1 labels; each point has one"),
        ({"points": [[3, 4]], "labels": [2]}, "labels are 1 .*, 0 .* or -1"),
        ({"points": [[3, 4, 5]]}, "points have shape .*; the last dimension is x and y"),
        ({"points": [3, 4]}, r"points have shape \(2,\); of one prompt they are \(n, 2\)"),
        ({"points": [[3, 4], [5]]}, "points are not numbers in rows of one length"),
        ({"points": [[3, 65]]}, r"The point \(3, 65\) is outside of the image, which is 64 x 64 pixels"),
        ({"points": [[3, float("nan")]]}, "points hold a number that is not finite"),
        ({"boxes": [9, 9, 4, 20]}, r"The box \(9, 9, 4, 20\) is turned round or empty"),
        ({"boxes": [70, 70, 90, 90]}, r"The box \(70, 70, 90, 90\) is outside of the image"),
        ({"boxes": [1, 2, 3]}, "boxes have 3 numbers; a box is x1, y1, x2, y2"),
        ({"masks": torch.zeros(64, 64)}, "masks have 64 x 64 pixels; a mask prompt is the 16 x 16 logits"),
        ({"points": [[[3, 4]], [[5, 6]]], "boxes": [1, 2, 3, 4]}, "Images x prompts do not agree: points 1 x 2"),
        ({"points": torch.zeros(3, 1, 1, 2)}, "There are prompts for 3 images, and 1 images"),
        ({"points": torch.zeros(0, 1, 2)}, "There are 0 prompts; give at least one"),
    ],
)
def test_wrong_prompts_are_named(prompt, message):
    model = small()
    with torch.no_grad():
        embedding = model.image_encoder(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=message):
        model.predict(image_embedding=embedding, prompt=prompt)


def test_wrong_embeddings_and_configurations_are_named():
    with pytest.raises(ValueError, match=r"image_embedding is \(1, 3, 64, 64\); it is what `image_encoder\(images\)`"):
        small().predict(image_embedding=torch.zeros(1, 3, 64, 64), prompt={"points": [[1, 1]]})
    with pytest.raises(ValueError, match=r"encoder_global_blocks .* must be numbers of the 3 blocks"):
        SAMConfig(**SMALL | {"encoder_global_blocks": (3,)})
    with pytest.raises(ValueError, match="image_size 60 is not a multiple of patch_size 16"):
        SAMConfig(image_size=60)
    with pytest.raises(ValueError, match="images are 60x64 pixels; both sides must be multiples of 16"):
        small()(torch.zeros(1, 3, 60, 64), boxes=torch.tensor([[[1.0, 1, 9, 9]]]))
