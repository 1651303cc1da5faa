"""Cascade R-CNN: sizes and names of mmdetection's files, and what the paper says of the heads in a row."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from nexus.core.formats import to_our_names
from nexus.models.cv.rcnn import CascadeRCNN, CascadeRCNNConfig
from nexus.models.cv.rcnn.cascade_rcnn import MASKS
from nexus.models.cv.rcnn.roi_heads import pool_regions
from nexus.models.registry import create_model
from nexus.ops.boxes import iou

spec = importlib.util.spec_from_file_location("rcnn_oracle", Path(__file__).with_name("rcnn_oracle.py"))
oracle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(oracle)

TINY = {
    "backbone": "resnet18",
    "num_classes": 3,
    "pyramid_dim": 16,
    "rpn": {
        "num_candidates": (60, 40),
        "num_proposals": (40, 20),
        "num_samples": 16,
        "strides": (4, 8, 16, 32, 64),
        "rounded_anchors": False,
    },
    "box_head": {"hidden_dim": 12, "class_agnostic": True, "pool": {"sampling_ratio": 0, "aligned": True}},
    "sampler": {"num_samples": 16},
    "detect": {"min_score": 0.0, "max_detections": 10},
}
MASKED = {**TINY, "mask_head": MASKS.replace(hidden_dim=8, num_convs=1)}


def test_parameter_counts_all_and_trainable():
    expected = {
        "cascadercnn_resnet50_fpn": (69_394_766, 69_169_422),
        "cascadercnn_resnet101_fpn": (88_386_894, 88_161_550),
        "cascademaskrcnn_resnet50_fpn": (77_324_606, 77_099_262),
    }
    for name, counts in expected.items():
        with torch.device("meta"):
            model = create_model(name)
        assert (model.num_parameters(), model.num_parameters(trainable=True)) == counts


def mmdetection_names(state):
    """Our weights in mmdetection's spelling, written from the names in its files; its background comes last."""
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        match parts:
            case ["backbone", "body", *rest]:
                name = ["backbone", *rest]
            case ["backbone", "fpn", kind, level, "0", what]:
                name = ["neck", {"lateral": "lateral_convs", "output": "fpn_convs"}[kind], level, "conv", what]
            case ["rpn", "head", "convs", "0", "0", what]:
                name = ["rpn_head", "rpn_conv", what]
            case ["rpn", "head", kind, what]:
                name = ["rpn_head", {"objectness": "rpn_cls", "deltas": "rpn_reg"}[kind], what]
            case ["second_stage", "heads", stage, "layers", place, what]:
                name = ["roi_head", "bbox_head", stage, "shared_fcs", str(int(place) // 2), what]
            case ["second_stage", "heads", stage, kind, what]:
                name = ["roi_head", "bbox_head", stage, {"scores": "fc_cls", "deltas": "fc_reg"}[kind], what]
                value = torch.cat([value[1:], value[:1]]) if kind == "scores" else value
            case ["branches", "masks", "heads", stage, "convs", place, "0", what]:
                name = ["roi_head", "mask_head", stage, "convs", place, "conv", what]
            case ["branches", "masks", "heads", stage, kind, what]:
                name = ["roi_head", "mask_head", stage, {"upsample": "upsample", "logits": "conv_logits"}[kind], what]
        renamed[".".join(name)] = value
    return renamed


def test_files_of_mmdetection_load(tmp_path):
    torch.manual_seed(0)
    model = CascadeRCNN(MASKED)
    theirs = mmdetection_names(model.state_dict())
    assert "roi_head.bbox_head.2.fc_cls.weight" in theirs
    assert "neck.fpn_convs.3.conv.bias" in theirs
    torch.save({"meta": {"mmdet_version": "2.0", "CLASSES": ("a", "b", "c")}, "state_dict": theirs}, tmp_path / "c.pth")
    model.save_pretrained(tmp_path / "config")
    (tmp_path / "config" / "model.safetensors").unlink()
    (tmp_path / "c.pth").rename(tmp_path / "config" / "pytorch_model.bin")
    loaded = CascadeRCNN.from_pretrained(tmp_path / "config").state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in model.state_dict().items())


def test_renames_reach_every_weight_of_the_published_variant():
    with torch.device("meta"):
        model = create_model("cascademaskrcnn_resnet50_fpn")
    renamed, spelling = to_our_names(mmdetection_names(model.state_dict()), model.formats)
    assert spelling == "mmdetection"
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in model.state_dict().items()}


def lively(config):
    torch.manual_seed(0)
    model = CascadeRCNN(config).double().eval()
    with torch.no_grad():
        for head in model.second_stage.heads:
            head.deltas.weight.normal_(std=1.0)
            head.scores.weight.normal_(std=1.0)
    return model


@torch.no_grad()
def test_heads_refine_in_turn_and_vote_together():
    """Sec. 4.1: each head reads the boxes of the one before it; classes are decided by all of them."""
    model = lively(TINY)
    images = [torch.randn(3, 64, 64).double()]
    outputs = model(images)
    boxes, total = outputs["proposals"][0], 0
    for head, scale in zip(model.second_stage.heads, (0.1, 0.05, 0.033)):
        logits, deltas = head(pool_regions(outputs["features"], [boxes], head.config.pool))
        total = total + logits
        wh = boxes[:, 2:] - boxes[:, :2]
        shift, stretch = deltas[:, 0, :2] * scale, deltas[:, 0, 2:] * (0.067 if scale == 0.033 else 2 * scale)
        centre, size = (
            boxes[:, :2] + wh / 2 + shift * wh,
            wh * stretch.clamp(-4.135166556742356, 4.135166556742356).exp(),
        )
        boxes = torch.cat([centre - size / 2, centre + size / 2], 1).clamp(0, 64)
    scores = F.softmax(total / 3, 1)[:, 1:]
    for box, score, label in zip(outputs["boxes"][0], outputs["scores"][0], outputs["labels"][0]):
        region = (boxes - box).abs().sum(1).argmin()
        torch.testing.assert_close(boxes[region], box)
        torch.testing.assert_close(scores[region, label], score)


def test_later_heads_train_on_better_boxes():
    """Sec. 4.2: a positive box of head i overlaps its object by at least 0.5, 0.6, 0.7."""
    model = lively(TINY).train()
    target = {"boxes": torch.tensor([[4.0, 6, 40, 50], [20, 20, 64, 60]]).double(), "labels": torch.tensor([0, 2])}
    levels = model.backbone(torch.randn(1, 3, 64, 64).double())
    jitter = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).double() * 5
    proposals = [(target["boxes"].repeat(100, 1) + jitter).clamp(0, 64)]
    losses, stages = model.second_stage.losses(levels, proposals, [target], [(64, 64)])
    assert set(losses) == {f"{kind}_{stage}" for kind in ("classification", "box") for stage in (1, 2, 3)}
    for least, (sample,) in zip((0.5, 0.6, 0.7), stages):
        positive = sample.positive()
        assert len(positive.boxes)
        assert (iou(positive.boxes, target["boxes"][positive.objects]) >= least).all()
        assert torch.equal(positive.labels, target["labels"][positive.objects] + 1)


def test_masks_train_and_predict():
    torch.manual_seed(0)
    model = CascadeRCNN({**MASKED, "backbone_norm": "frozen"})
    masks = torch.zeros(1, 64, 64)
    masks[0, 5:40, 8:44] = 1
    full = {"boxes": torch.tensor([[8.0, 5, 44, 40]]), "labels": torch.tensor([1]), "masks": masks}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "masks": torch.zeros(0, 64, 64)}
    losses = model(torch.randn(2, 3, 64, 64), [full, empty])["losses"]
    assert len(losses) == 2 + 3 * 3
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    outputs = model.eval()(torch.randn(2, 3, 64, 64))
    for boxes, masks, crops in zip(outputs["boxes"], outputs["masks"], outputs["mask_crops"]):
        assert masks.shape == (len(boxes), 64, 64)
        assert crops.shape == (len(boxes), 28, 28)
        assert ((masks >= 0) & (masks <= 1 + 1e-6)).all()


def test_errors():
    with pytest.raises(ValueError, match="have the lengths 2, 3 and 3; each needs one value per stage"):
        CascadeRCNN({"stage_ious": (0.5, 0.6)})
    with pytest.raises(ValueError, match="class_agnostic is False; a cascade refines one box for all classes"):
        CascadeRCNN({"box_head": {"hidden_dim": 12}})
    with pytest.raises(ValueError, match="images have 1 channels"):
        CascadeRCNN(TINY)(torch.randn(1, 1, 64, 64))


def test_equals_mmdetection():
    """Against results of mmdetection 3.3 that golden/cascade_rcnn.py wrote, with the same weights and images."""
    folder = Path(__file__).with_name("golden")
    spec = importlib.util.spec_from_file_location("golden_cascade", folder / "cascade_rcnn.py")
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    expected = json.loads((folder / "cascade_rcnn.json").read_text())
    model = CascadeRCNN(
        {
            **TINY,
            "rpn": CascadeRCNNConfig().rpn.replace(num_candidates=(100, 60), num_proposals=(40, 20)),
            "box_head": CascadeRCNNConfig().box_head.replace(hidden_dim=12),
            "sampler": {"num_samples": 4000},  # all of them, so that nothing is drawn
            "detect": {"min_score": 0.01, "max_detections": 9},
            "mask_head": MASKS.replace(num_convs=1, hidden_dim=8),
        }
    )
    model = model.double().eval()
    shapes = {key: value.shape for key, value in mmdetection_names(model.state_dict()).items()}
    state, _ = to_our_names(golden.draw(shapes), model.formats)
    model.load_state_dict(state)
    images, target, proposals = golden.scene()
    with torch.no_grad():
        outputs = model(images)
        given = [proposals, proposals], [target, target]
        losses, stages = model.second_stage.losses(outputs["features"], *given, [(64, 96)] * 2)
        losses |= model.branches["masks"].losses(outputs["features"], stages, given[1])
    for place in range(2):
        for key in ("boxes", "scores"):
            wanted = torch.tensor(expected[key][place], dtype=torch.float64)
            torch.testing.assert_close(outputs[key][place], wanted, rtol=1e-8, atol=1e-8)
        assert outputs["labels"][place].tolist() == expected["labels"][place]
    crops = torch.cat(outputs["mask_crops"])
    for found, key in ((crops.mean((1, 2)), "mask_means"), (crops[:, 9, 17], "mask_centres")):
        torch.testing.assert_close(found, torch.tensor(expected[key], dtype=torch.float64), rtol=1e-8, atol=1e-8)
    theirs = {"classification": "loss_cls", "box": "loss_bbox", "mask": "loss_mask"}
    for name, value in losses.items():
        kind, stage = name.split("_")
        wanted = expected["losses"][f"s{int(stage) - 1}.{theirs[kind]}"]
        assert float(value) == pytest.approx(wanted, rel=1e-6)  # theirs compute targets in float32
    assert len(losses) == len(expected["losses"]) == 9
