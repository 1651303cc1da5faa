"""YOLO-World, against kept results of the authors' code and against the paper written once more.

`golden/yolo_world_v1` and `_v2` hold weights, inputs and outputs of AILab-CVC/YOLO-World at 4f70adb, run in float64.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nexus import create_model, list_models, model_info
from nexus.core.files import WeightsError
from nexus.core.formats import to_our_names
from nexus.models.cv import YOLOWorld
from nexus.models.cv.yolo_world.config import YOLOWorldConfig
from nexus.models.cv.yolo_world.yolo_world import VARIANTS, suppress
from nexus.proofs.yolo_world import WrittenYOLOWorld, in_the_authors_names, shrink
from nexus.proofs.yolov10 import authors_names, enliven

GOLDEN = Path(__file__).parent / "golden"
PUBLISHED = {
    "yolo_world_v1_s": 13_383_480,
    "yolo_world_v1_m": 29_065_294,
    "yolo_world_v1_l": 47_553_954,
    "yolo_world_v1_x": 73_690_201,
    "yolo_world_v2_s": 12_759_864,
    "yolo_world_v2_m": 28_376_142,
    "yolo_world_v2_l": 46_832_034,
    "yolo_world_v2_x": 72_886_361,
}
AUTHORS = {
    "dims": (8, 16, 32, 64, 32),
    "depths": (1, 2, 2, 1),
    "neck_num_heads": (1, 2, 4),
    "class_dim": 12,
    "projection_dim": 32,
    "pooling_dim": 32,
    "pooling_num_heads": 4,
    "text_dim": 16,
    "text_num_layers": 1,
    "text_num_heads": 2,
    "vocab_size": 64,
    "context_length": 8,
}


class Kept:
    """What the authors' code gave, in float64, and our model with its weights."""

    def __init__(self, version: int) -> None:
        data = load_file(GOLDEN / f"yolo_world_v{version}.safetensors")
        self.data = {key: value.double() if value.is_floating_point() else value for key, value in data.items()}
        self.told = json.loads((GOLDEN / f"yolo_world_v{version}.json").read_text())
        kind = {"contrast": "length", "image_pooling": True} if version == 1 else {}
        self.model = YOLOWorld({**AUTHORS, **kind}).double().eval()
        weights = {key[8:]: value for key, value in self.data.items() if key.startswith("weights/")}
        state, spelling = to_our_names(weights, YOLOWorld.formats)
        assert spelling == "authors"
        tower = {f"text.{key}": value for key, value in self.model.text.state_dict().items()}
        self.model.load_state_dict(self.model.fit_state({**state, **tower}))
        self.images, self.texts = self.data["inputs/images"], self.data["inputs/text"]

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.data[f"outputs/{key}"]

    def levels(self, key: str) -> torch.Tensor:
        return torch.cat([self[f"{key}.{level}"].flatten(2).mT for level in range(3)], dim=1)

    def targets(self) -> list[dict[str, torch.Tensor]]:
        rows = self.data["inputs/targets"]
        mine = [rows[rows[:, 0] == image] for image in range(len(self.images))]
        return [{"boxes": row[:, 2:], "labels": row[:, 1].long()} for row in mine]


@pytest.fixture(scope="module", params=[1, 2], ids=["v1", "v2"])
def kept(request) -> Kept:
    return Kept(request.param)


def tiny(name: str = "yolo_world_v2_s", **changes) -> YOLOWorld:
    torch.manual_seed(0)
    config = VARIANTS[name]
    model = YOLOWorld(config.replace(**{**shrink(config), **changes}))
    enliven(model)
    return model.eval()


def letters(texts):
    """A tokenizer of letters, for a vocabulary of 64 whose highest id ends a text."""
    rows = [[*(ord(letter) % 62 + 1 for letter in text[:6]), 63] for text in texts]
    return torch.tensor([row + [63] * (8 - len(row)) for row in rows])


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name):
    with torch.device("meta"):
        model = create_model(name)
    tower = sum(p.numel() for p in model.text.parameters())
    assert (model.num_parameters() - tower, tower) == (PUBLISHED[name], 63_428_096)
    assert model_info(name).num_parameters == PUBLISHED[name] + tower


def test_maps_logits_and_boxes_are_the_authors(kept):
    outputs = kept.model(kept.images, texts=kept.texts)
    maps = kept.model.neck(outputs["features"], kept.texts)
    for level, one in enumerate(maps):
        torch.testing.assert_close(one, kept[f"neck/out.{level}"], rtol=1e-6, atol=1e-6)  # kept in float32
    torch.testing.assert_close(outputs["pred_logits"], kept.levels("head/logits"), rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(outputs["pred_boxes"], kept["decode/boxes_xyxy"], rtol=1e-12, atol=1e-10)


def test_texts_that_only_fill_up_are_silent_as_the_authors(kept):
    outputs = kept.model(kept.images, texts=kept.texts, asked=kept.data["inputs/text_mask"])
    torch.testing.assert_close(outputs["pred_logits"], kept.levels("masked/logits"), rtol=1e-12, atol=1e-10)


def test_losses_are_the_authors(kept):
    """The authors' are times the number of images, and in part of float32."""
    model, targets = kept.model, kept.targets()
    losses = model(kept.images, targets, texts=kept.texts)["losses"]
    for ours, theirs in {"classification": "cls", "box": "bbox", "bins": "dfl"}.items():
        torch.testing.assert_close(2 * losses[ours], kept[f"loss/loss_{theirs}"], rtol=1e-6, atol=0)
    losses = model(kept.images, targets, texts=kept.texts, asked=kept.data["inputs/text_mask"])["losses"]
    torch.testing.assert_close(2 * losses["classification"], kept["loss/loss_cls_with_text_mask"], rtol=1e-6, atol=0)


@pytest.mark.parametrize(("name", "image"), [("a", 0), ("a", 1), ("c", 1)])
def test_objects_are_the_authors(kept, name, image):
    """Their boxes are suppressed and cut at the image's border in pixels of the image as given."""
    rule = next(one for one in kept.told["post"] if one["name"] == name)
    place = kept.told["post_images"][image]
    top, _, left, _ = place["pad_top_bottom_left_right"]
    config = kept.model.config.replace(
        many_labels=rule["multi_label"],
        max_candidates=rule["nms_pre"],
        score_threshold=rule["score_thr"],
        nms_threshold=rule["iou"],
        max_detections=rule["max_per_img"],
    )
    shift = torch.tensor([left, top, left, top], dtype=torch.double)
    boxes = (kept["decode/boxes_xyxy"][image] - shift) / torch.tensor(place["scale_x_y"] * 2)
    found, scores, labels = suppress(kept.levels("head/logits")[image].sigmoid(), boxes, config)
    height, width = place["original_height_width"]
    found = found.clamp(min=0).minimum(found.new_tensor([width, height, width, height]))
    wanted = f"post_{name}/image{image}/"
    assert len(found) == len(kept[wanted + "bboxes"])
    torch.testing.assert_close(scores, kept[wanted + "scores"], rtol=1e-12, atol=1e-14)

    def rows(boxes, scores, labels):  # of equal scores the order is open
        table = zip(scores.tolist(), labels.tolist(), boxes.round(decimals=6).tolist())
        return sorted((round(score, 9), label, box) for score, label, box in table)

    theirs = rows(*(kept[wanted + key] for key in ("bboxes", "scores", "labels")))
    for mine, other in zip(rows(found, scores, labels), theirs, strict=True):
        assert mine[1] == other[1]
        assert mine[2] == pytest.approx(other[2], abs=1e-5)


def test_a_fused_model_is_the_authors_re_parameterized_one():
    kept = Kept(2)
    kept.model.vocabulary = torch.nn.Parameter(kept.data["inputs/rep_text"])
    before = kept.model(kept.images)["pred_logits"]
    fused = kept.model.fuse()
    after = fused(kept.images)["pred_logits"]
    wanted = torch.cat([kept[f"rep_after/head/logits.{level}"].flatten(2).mT for level in range(3)], dim=1)
    torch.testing.assert_close(after, wanted, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-9)
    assert not any("text" in name or "guide.weight" in name for name, _ in fused.named_parameters())


@pytest.mark.parametrize("name", ["yolo_world_v1_s", "yolo_world_v2_m"])
def test_files_in_the_authors_layout_load(name, tmp_path):
    config = VARIANTS[name].replace(**shrink(VARIANTS[name]))
    torch.manual_seed(0)
    theirs = WrittenYOLOWorld(config)
    enliven(theirs)
    state = {key: value.detach() for key, value in authors_names(theirs.state_dict()).items()}
    torch.save({"meta": {"epoch": 100}, "state_dict": state}, tmp_path / "published.pth")
    loaded = YOLOWorld.from_pretrained(tmp_path / "published.pth", **config.to_dict())
    assert loaded.config.num_classes == 0
    images, texts = torch.rand(2, 3, 64, 96), torch.randn(3, config.projection_dim)
    again = in_the_authors_names(loaded)
    assert again.keys() <= state.keys()
    assert all(torch.equal(value, state[key]) for key, value in again.items())
    assert loaded(images, texts=texts)["pred_logits"].isfinite().all()


@pytest.mark.parametrize("name", PUBLISHED)
def test_renames_reach_every_weight_of_the_published_variants(name):
    with torch.device("meta"):
        model = create_model(name)
        theirs = in_the_authors_names(model)
    ours, _ = to_our_names(theirs, YOLOWorld.formats)
    assert ours.keys() == {key for key in model.state_dict() if not key.startswith(("text.", "vocabulary"))}


def test_words_become_the_vocabulary_and_are_saved(tmp_path):
    model = tiny().set_classes(["cat", "sofa/couch"], letters)
    assert (model.config.num_classes, model.class_names) == (2, ("cat", "sofa/couch"))
    images = torch.rand(1, 3, 64, 64)
    texts = model.encode_text(letters(["cat", "sofa"]))
    torch.testing.assert_close(model(images)["pred_logits"], model(images, texts=texts)["pred_logits"])
    model.save_pretrained(tmp_path)
    again = YOLOWorld.from_pretrained(tmp_path)
    assert again.class_names == ("cat", "sofa/couch")
    assert torch.equal(again(images)["pred_logits"], model(images)["pred_logits"])
    model.set_classes(["dog"], letters)
    assert model(images)["pred_logits"].shape[-1] == 1


def test_neither_the_order_of_texts_nor_one_that_stands_twice_matters():
    model, images = tiny().double(), torch.rand(1, 3, 64, 64).double()
    texts = torch.randn(3, model.config.projection_dim).double()
    logits = model(images, texts=texts)["pred_logits"]
    turned = model(images, texts=texts[[2, 0, 1, 0]])["pred_logits"]
    torch.testing.assert_close(turned, logits[..., [2, 0, 1, 0]])
    other = model(images, texts=torch.cat([texts, -texts]))["pred_logits"][..., :3]
    assert (other - logits).abs().max() > 1e-6  # but a further text changes the maps


def test_each_image_may_have_its_own_texts():
    model, images = tiny("yolo_world_v1_s"), torch.rand(2, 3, 64, 64)
    texts = torch.randn(2, 3, model.config.projection_dim)
    together = model(images, texts=texts)["pred_logits"]
    for place in (0, 1):
        alone = model(images[place : place + 1], texts=texts[place])["pred_logits"]
        torch.testing.assert_close(together[place : place + 1], alone, rtol=1e-5, atol=1e-5)


def test_a_vocabulary_of_lvis_runs():
    model = tiny()
    outputs = model(torch.rand(1, 3, 64, 64), texts=torch.randn(1203, model.config.projection_dim))
    assert outputs["pred_logits"].shape == (1, 84, 1203)
    assert len(outputs["scores"][0]) == model.config.max_detections


def test_it_learns_one_picture():
    """Objects of two words, trained for a moment, are found again by the right words."""
    model = tiny(num_classes=2, score_threshold=0.3).train()
    images = torch.full((1, 3, 64, 64), 0.5)
    images[:, 0, 8:40, 8:40], images[:, 1, 36:60, 30:60] = 1.0, 0.0
    boxes = torch.tensor([[8.0, 8, 40, 40], [30, 36, 60, 60]])
    targets = [{"boxes": boxes, "labels": torch.tensor([0, 1])}]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        sum(model(images, targets)["losses"].values()).backward()
        optimizer.step()
    found = model(images)  # by the statistics of this picture
    best = [int((found["labels"][0] == label).nonzero()[0]) for label in (0, 1)]  # best first
    torch.testing.assert_close(found["boxes"][0][best], boxes, rtol=0, atol=6.0)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda model, images: model(images), "There are no words to look for: call model.set_classes"),
        (lambda model, images: model(images, texts=torch.ones(3, 5)), r"texts are \(3, 5\); they are \(k, 24\)"),
        (lambda model, images: model(images, texts=torch.ones(3, 2, 24)), "texts of 3 images and 1 images"),
        (
            lambda model, images: model(images, texts=torch.ones(2, 24), asked=torch.ones(1, 3)),
            r"asked is \(1, 3\); it has a row for each of 1 images and a column for each of 2 texts",
        ),
        (
            lambda model, images: model.set_classes(["a"], lambda _: [[99, 3]]),
            "ids from 3 to 99, and the model knows 64",
        ),
        (lambda model, images: model.set_classes(None, letters), "class_names are None; give a list of words"),
        (lambda model, images: model.set_classes([], letters), r"class_names are \[\]; give a list of words"),
        (lambda model, images: model.set_classes("cat", letters), "class_names are 'cat'; give a list of words"),
        (lambda model, images: model.set_classes(["cat", " "], letters), "A word is empty: 'cat', ' '"),
        (lambda model, images: model.set_classes(["cat", "cat"], letters), "'cat' stand twice among the words"),
        (
            lambda model, images: model(images, [{"boxes": torch.ones(0, 4), "labels": torch.ones(0).long()}] * 2),
            "There are no words",
        ),
        (lambda model, images: model.fuse(), "There are no words"),
    ],
)
def test_mistakes_are_answered(act, message):
    with pytest.raises(ValueError, match=message):
        act(tiny(), torch.rand(1, 3, 64, 64))


def test_a_fused_model_reads_no_words_and_v1_cannot_be_fused():
    with pytest.raises(ValueError, match="texts of YOLO-World v1 look at the image, and cannot be fixed"):
        tiny("yolo_world_v1_s", num_classes=2).fuse()
    with pytest.raises(ValueError, match="was fused for its words and reads no others"):
        tiny(num_classes=2).fuse().set_classes(["cat"], letters)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"neck_num_heads": (3, 4, 8)}, "neck_num_heads has 3 for stride 8; they must divide half of its 128 channels"),
        ({"dims": (32, 64, 126, 256, 512)}, "dims are .*; each must be a multiple of 4"),
        ({"num_classes": -1}, "num_classes is -1; it must be at least 0"),
        ({"nms_threshold": 1.5}, "nms_threshold 1.5; both lie in 0 to 1"),
        ({"pooling_num_heads": 7}, "pooling_dim 256 is not a multiple of 7 heads"),
    ],
)
def test_impossible_configurations_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        YOLOWorldConfig(**fields)


def test_a_re_parameterized_file_is_refused_by_its_keys(tmp_path):
    config = VARIANTS["yolo_world_v2_s"].replace(**shrink(VARIANTS["yolo_world_v2_s"]))
    state = authors_names(WrittenYOLOWorld(config).state_dict())
    gate = "neck.top_down_layers.0.attn_block"
    state = {key: value for key, value in state.items() if not key.startswith(f"{gate}.guide_fc")}
    state[f"{gate}.guide_convs.0.weight"] = torch.ones(5, 6, 1, 1)
    torch.save({"state_dict": state}, tmp_path / "rep.pth")
    with pytest.raises(WeightsError, match="guide"):
        YOLOWorld.from_pretrained(tmp_path / "rep.pth", **config.to_dict())


def test_they_are_listed():
    assert list_models("yolo_world*") == sorted(PUBLISHED)
