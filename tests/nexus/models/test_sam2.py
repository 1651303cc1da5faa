"""SAM 2 on still images: against kept results of the authors' code, and against what the paper and we promise."""

import pytest
import torch

from nexus.core.files import FileError
from nexus.core.module import NexusModule
from nexus.core.weights import load_weights
from nexus.models.cv.sam2 import SAM2, VARIANTS, Embedding, SAM2Config
from nexus.models.cv.sam2.mask_decoder import Masks, single, stability
from nexus.proofs.libraries import import_library
from nexus.proofs.parity import compare
from nexus.proofs.sam import one_matrix, ours, published
from nexus.proofs.sam import theirs as hub_answers
from nexus.proofs.sam2 import SMALL, hub_sam2
from tests.nexus.models.sam2_golden import AUTHORS, authors_model, golden

TENSORS, NOTES = golden("sam2_image")
SHARE = torch.tensor([128 / 110, 128 / 80])
"""Pixels of what the model sees in one of the picture, across and down."""
COUNTS = {"tiny": 38_962_498, "small": 46_060_354, "base_plus": 80_850_178, "large": 224_446_642}


@pytest.fixture(scope="module")
def model() -> SAM2:
    return authors_model(TENSORS)


@pytest.fixture(scope="module")
def embedding(model) -> Embedding:
    with torch.no_grad():
        return model.encode(TENSORS["outputs/model_image"][None])


def prompt_of(case):
    found = {}
    if case["points_xy"]:
        found |= {"points": torch.tensor(case["points_xy"]) * SHARE, "labels": case["labels"]}
    if case["box_xyxy"]:
        found["boxes"] = torch.tensor(case["box_xyxy"]) * SHARE.repeat(2)
    if case["mask_prompt"]:
        found["masks"] = TENSORS["inputs/mask_logits"][0]
    return found


def near(found, key, atol=1e-5):
    torch.testing.assert_close(found, TENSORS[f"outputs/{key}"], rtol=0, atol=atol)


def test_the_trunk_and_the_embedding_are_the_authors(model, embedding):
    for stage, end in enumerate(model.image_encoder.trunk(TENSORS["outputs/model_image"][None])):
        near(end, f"trunk.{stage}")
    near(embedding.tokens + model.no_memory[0, :, :, None, None], "image_embed")
    near(embedding.quarters, "high_res.0")
    near(embedding.eighths, "high_res.1")
    near(model.prompt_encoder.positions.grid((8, 8))[None], "dense_position")


@pytest.mark.parametrize("case", NOTES["cases"])
@pytest.mark.parametrize("multimask", [True, False])
def test_answers_are_the_authors(model, embedding, case, multimask):
    with torch.no_grad():
        answer = model.predict(image_embedding=embedding, prompt=prompt_of(NOTES["cases"][case]), multimask=multimask)
    key = f"{case}/{'multi' if multimask else 'single'}"
    near(answer["low_res_masks"][0, 0].clamp(-32, 32), f"{key}/low_res_logits", 2e-4)
    near(answer["iou_scores"][0, 0], f"{key}/iou")
    near(answer["object_scores"], f"{case}/object_score")
    assert answer["masks"].shape == (1, 1, 3 if multimask else 1, 128, 128)


def test_an_unstable_single_mask_is_replaced_in_evaluation_alone():
    low = torch.full((1, 1, 4, 2, 2), 5.0)
    low[0, 0, 0] = torch.tensor([[3.0, 0.01], [-3.0, -3.0]])
    masks = Masks(low, torch.tensor([[[0.1, 0.2, 0.9, 0.3]]]), torch.arange(4.0)[None, None, :, None], torch.ones(1, 1))
    low[0, 0, 2] = 7.0
    assert stability(low)[0, 0].tolist() == [0.5, 1, 1, 1]
    assert stability(torch.full((1, 2, 2), -9.0)).tolist() == [1]
    chosen = single(masks)
    assert (chosen.logits == 7).all()
    assert chosen.iou_scores.item() == pytest.approx(0.9)
    assert chosen.tokens.item() == 0, "the pointer stays that of the first token"
    assert torch.equal(single(masks, stable=False).logits, low[:, :, :1])


@pytest.mark.parametrize(("size", "count"), COUNTS.items())
def test_parameter_counts(size, count):
    with torch.device("meta"):
        new, old = SAM2(VARIANTS[f"sam2.1_hiera_{size}"]), SAM2(VARIANTS[f"sam2_hiera_{size}"])
    assert sum(one.numel() for one in new.parameters()) == count
    assert sum(one.numel() for one in old.parameters()) == count - 16_512


def test_images_of_a_batch_do_not_mix_and_prompts_do_not_either(model):
    torch.manual_seed(0)
    images, points = torch.randn(2, 3, 64, 96), torch.rand(2, 3, 2, 2) * 60
    with torch.no_grad():
        both = model(images, points, torch.ones(2, 3, 2).long())["low_res_masks"]
        alone = model(images[1:], points[1:, 2:], torch.ones(1, 1, 2).long())["low_res_masks"]
    torch.testing.assert_close(both[1:, 2:], alone, rtol=1e-4, atol=1e-4)


def test_windows_do_not_see_each_other(model):
    first = model.image_encoder.trunk.blocks[0]
    x = torch.randn(1, 16, 16, 8)
    other = x.clone()
    other[:, 8:] += 1
    with torch.no_grad():
        assert torch.equal(first(x)[:, :8], first(other)[:, :8])


def test_errors_say_what_would_fit(model, embedding):
    with pytest.raises(
        ValueError, match=r"image_embedding is a Tensor; it is the Embedding that `encode\(images\)` gives"
    ):
        model.predict(image_embedding=embedding.tokens, prompt={"points": [[1, 1]]})
    with pytest.raises(ValueError, match="images are 48x64 pixels; both sides must be multiples of 32"):
        model.encode(torch.zeros(1, 3, 48, 64))
    with pytest.raises(ValueError, match="image_size 1000 is not a multiple of patch_size 32"):
        SAM2Config(image_size=1000)
    with pytest.raises(ValueError, match=r"trunk_windows \(7, 4, 14, 7\) are halved between stages"):
        SAM2Config(trunk_windows=(7, 4, 14, 7))
    with pytest.raises(ValueError, match="The trunk has four stages"):
        SAM2Config(trunk_depths=(1, 2))
    with pytest.raises(ValueError, match=r"trunk_global_blocks \(12,\) must be numbers of the 12 blocks"):
        SAM2Config(trunk_global_blocks=(12,))
    with pytest.raises(ValueError, match="memory_depth is 0; it is at least 1"):
        SAM2Config(memory_depth=0)
    with pytest.raises(ValueError, match="multiple of 8 and of memory_dim 60"):
        SAM2Config(memory_dim=60)


def test_the_authors_files_are_read(model, tmp_path):
    weights = {key.removeprefix("weights/"): value for key, value in TENSORS.items() if key.startswith("weights/")}
    torch.save({"model": weights}, tmp_path / "sam2.1_hiera_tiny.pt")
    again = SAM2(AUTHORS)
    load_weights(again, tmp_path / "sam2.1_hiera_tiny.pt")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())


@pytest.mark.parametrize("video", [True, False])
def test_folders_of_transformers_are_read(tmp_path, video):
    config = SAM2Config(**SMALL | {"video": video})
    torch.manual_seed(0)
    theirs = hub_sam2(import_library("transformers"), config)
    same = theirs.shared_image_embedding.positional_embedding
    theirs.prompt_encoder.shared_embedding.positional_embedding = same.clone()
    theirs.save_pretrained(tmp_path)
    found = NexusModule.from_pretrained(tmp_path)
    assert isinstance(found, SAM2)
    assert (found.config.video, found.config.trunk_windows) == (video, SMALL["trunk_windows"])
    assert found.config == config or not video
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            found.encode(images).quarters,
            theirs.get_image_features(images).fpn_hidden_states[0][:, 0].T.reshape(1, 16, 16, 16),
        )


def test_the_image_model_of_transformers_answers_alike():
    config = SAM2Config(**SMALL | {"video": False})
    torch.manual_seed(0)
    theirs = hub_sam2(import_library("transformers"), config)
    one_matrix(theirs)
    found = compare(
        SAM2(config).eval(), theirs, torch.randn(2, 3, 64, 64), run=hub_answers, read=ours, publish=published
    )
    assert found.values < 1e-6
    assert found.largest_gradient < 1e-4


def test_what_a_config_of_the_hub_changes_is_followed_or_refused():
    transformers = import_library("transformers")
    mapping = transformers.Sam2VideoConfig().to_dict()
    assert SAM2.config_from_hub(mapping) == VARIANTS["sam2.1_hiera_tiny"]
    old = mapping | {
        "enable_temporal_pos_encoding_for_object_pointers": False,
        "enable_occlusion_spatial_embedding": False,
    }
    assert SAM2.config_from_hub(old) == VARIANTS["sam2_hiera_tiny"]
    with pytest.raises(FileError, match="max_cond_frame_num is 4; SAM2 is built with -1"):
        SAM2.config_from_hub(mapping | {"max_cond_frame_num": 4})
    with pytest.raises(FileError, match="wide_memory, which is not known here"):
        SAM2.config_from_hub(mapping | {"wide_memory": 3})


def test_the_part_that_decodes_takes_points_boxes_and_masks_as_tensors(model, embedding):
    """Behind the corners of a box, labels 2 and 3, comes a place of no point, as behind points."""
    decoder = model.parts((128, 128))["mask_decoder"]
    masks = TENSORS["inputs/mask_logits"][None]
    places = torch.tensor([[[[20.0, 30.0], [10.0, 12.0], [90.0, 100.0], [0.0, 0.0]]]])
    labels = torch.tensor([[[1, 2, 3, -1]]])
    prompt = {"points": places[:, :, :1], "boxes": places[:, :, 1:3].flatten(2), "masks": masks}
    with torch.no_grad():
        found = decoder(*embedding, places, labels, masks, torch.tensor([[True]]))
        wanted = model.predict(image_embedding=embedding, prompt=prompt)
    for name in ("low_res_masks", "iou_scores"):
        torch.testing.assert_close(found[name][:, :, 1:], wanted[name], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["object_scores"], wanted["object_scores"], rtol=1e-4, atol=1e-4)
