"""Faster R-CNN against torchvision's, and what it owes by itself."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from nexus.layers.frozen_norm import FrozenBatchNorm2d
from nexus.models.cv.rcnn import FasterRCNN
from nexus.models.cv.rcnn.roi_heads import pool_regions
from nexus.models.registry import create_model
from nexus.ops.boxes import iou

spec = importlib.util.spec_from_file_location("rcnn_oracle", Path(__file__).with_name("rcnn_oracle.py"))
oracle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(oracle)


def pair(torchvision, monkeypatch, *, v2: bool, norm: str = "frozen"):
    from torchvision.models.detection import faster_rcnn

    oracle.differentiable_pooling(monkeypatch, torchvision)
    parts = oracle.normalized_parts() if v2 else {}
    theirs = oracle.build(faster_rcnn.FasterRCNN, norm, **parts)
    settings = {
        "backbone_norm": norm,
        "pyramid_norm": v2,
        "rpn": {**oracle.OUR_SMALL_RPN, "num_convs": 2 if v2 else 1},
        "box_head": {"hidden_dim": oracle.WIDTH, "num_convs": 4 if v2 else 0, "num_layers": 1 if v2 else 2},
    }
    ours = FasterRCNN({**oracle.OUR_SMALL, **settings})
    oracle.enliven(theirs)
    oracle.same_weights(ours, theirs)
    return ours, theirs


@pytest.mark.parametrize("v2", [False, True])
def test_predictions_equal_torchvision(torchvision, monkeypatch, v2):
    ours, theirs = pair(torchvision, monkeypatch, v2=v2)
    oracle.compare_prediction(ours, theirs)


@pytest.mark.parametrize(("v2", "norm"), [(False, "frozen"), (True, "batch")])
def test_losses_and_gradients_equal_torchvision(torchvision, monkeypatch, v2, norm):
    ours, theirs = pair(torchvision, monkeypatch, v2=v2, norm=norm)
    oracle.compare_training(ours, theirs, oracle.LOSSES, oracle.scene()[1])


TINY = {
    "backbone": "resnet18",
    "num_classes": 3,
    "pyramid_dim": 16,
    "rpn": {"num_candidates": (60, 40), "num_proposals": (40, 20), "num_samples": 16},
    "box_head": {"hidden_dim": 12},
    "sampler": {"num_samples": 16},
    "detect": {"min_score": 0.0, "max_detections": 10},
}


def published(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


def test_parameter_counts():
    assert published("fasterrcnn_resnet50_fpn").num_parameters() == 41_808_406
    assert published("fasterrcnn_resnet50_fpn", backbone_norm="frozen").num_parameters() == 41_755_286
    assert published("fasterrcnn_resnet50_fpn_v2").num_parameters() == 43_712_278


def old_names(state):
    """The spelling of torchvision's first files, before its 0.13."""
    renamed = {}
    for key, value in state.items():
        key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for blocks in ("inner_blocks", "layer_blocks"):
            for level in range(4):
                key = key.replace(f"{blocks}.{level}.0.", f"{blocks}.{level}.")
        renamed[key] = value
    return renamed


@pytest.mark.parametrize("spelling", [dict, old_names])
def test_published_files_load_in_both_spellings(torchvision, tmp_path, spelling):
    from torchvision.models.detection._utils import overwrite_eps
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.models.detection.faster_rcnn import FasterRCNN as Theirs

    theirs = Theirs(resnet_fpn_backbone(backbone_name="resnet50", weights=None), 91)
    file = tmp_path / "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"
    torch.save(spelling(theirs.state_dict()), file)
    ours = FasterRCNN.from_pretrained(file)
    assert ours.config.backbone_norm == "frozen"
    assert ours.num_parameters() == sum(p.numel() for p in theirs.parameters()) == 41_755_286
    norms = [m for m in ours.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert len(norms) == 53
    assert {norm.eps for norm in norms} == {0.0}
    assert torch.equal(ours.rpn.head.convs[0][0].weight, theirs.rpn.head.conv[0][0].weight)
    overwrite_eps(theirs, 0.0)  # as torchvision does for this file
    with torch.no_grad():
        image = torch.randn(1, 3, 64, 64).double()
        for level, wanted in zip(ours.double().backbone(image), theirs.double().backbone(image).values()):
            torch.testing.assert_close(level, wanted, rtol=1e-9, atol=1e-9)


def test_another_number_of_classes_keeps_all_but_the_outputs(tmp_path):
    torch.manual_seed(0)
    model = FasterRCNN(TINY)
    model.save_pretrained(tmp_path)
    other = FasterRCNN.from_pretrained(tmp_path, num_classes=5)
    assert other.second_stage.head.scores.out_features == 6
    assert torch.equal(other.second_stage.head.layers[0].weight, model.second_stage.head.layers[0].weight)
    again = FasterRCNN.from_pretrained(tmp_path)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_seeds_code_runs():
    detector = FasterRCNN({"in_channels": 3, "num_classes": 80, "backbone": "resnet50"})
    outputs = detector(torch.randn(1, 3, 64, 64))
    boxes, scores = outputs["boxes"], outputs["scores"]
    assert len(boxes) == len(scores) == len(outputs["labels"]) == 1
    assert boxes[0].shape == (len(scores[0]), 4)
    assert len(outputs["features"]) == 5


@pytest.mark.parametrize(("channels", "classes"), [(1, 1), (8, 3), (3, 500)])
def test_channels_and_classes_train_and_predict(channels, classes):
    torch.manual_seed(0)
    model = FasterRCNN({**TINY, "in_channels": channels, "num_classes": classes})
    images = [torch.randn(channels, 64, 40), torch.randn(channels, 33, 70)]
    targets = [
        {"boxes": torch.tensor([[3.0, 3, 4, 4], [0, 0, 40, 64]]), "labels": torch.tensor([classes - 1, 0])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
    ]
    losses = model(images, targets)["losses"]
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    outputs = model.eval()(images)
    for boxes, labels, image in zip(outputs["boxes"], outputs["labels"], images):
        assert (boxes >= 0).all()
        assert (boxes[:, 2] <= image.shape[2]).all()
        assert (boxes[:, 3] <= image.shape[1]).all()
        assert ((labels >= 0) & (labels < classes)).all()


def test_a_batch_of_empty_images_trains():
    torch.manual_seed(0)
    model = FasterRCNN(TINY)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    losses = model(torch.zeros(2, 3, 64, 64), [empty, empty])["losses"]
    sum(losses.values()).backward()
    assert losses["box"] == losses["rpn_box"] == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_images_of_a_batch_do_not_mix_and_padding_is_told():
    torch.manual_seed(0)
    model = FasterRCNN(TINY).double().eval()
    images = [torch.randn(3, 64, 64).double(), torch.randn(3, 40, 60).double()]
    padded = torch.zeros(2, 3, 64, 64).double()
    padded[0], padded[1, :, :40, :60] = images
    together, told = model(images), model(padded, image_sizes=[(64, 64), (40, 60)])
    for place, image in enumerate(images):
        alone = model(image[None])
        for outputs, at in ((told, place), (alone, 0)):
            torch.testing.assert_close(outputs["boxes"][at], together["boxes"][place])
            torch.testing.assert_close(outputs["scores"][at], together["scores"][place])


def test_the_names_in_the_error_give_maps():
    from nexus.models.cv.rcnn.pyramid import THAT_WORK, backbone_maps
    from nexus.models.registry import list_models

    patterns = [word for word in THAT_WORK.rstrip(".").replace(",", "").split() if "*" in word]
    assert len(patterns) == 4
    for pattern in patterns:
        found = list_models(pattern)
        for name in (found[0], found[-1]):
            assert backbone_maps(name, 3).tokens == name.startswith("vit_")


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "efficientnet_b0"])
def test_other_backbones_train_and_predict(name):
    torch.manual_seed(0)
    model = FasterRCNN({**TINY, "backbone": name})
    images = [torch.randn(3, 64, 96), torch.randn(3, 96, 64)]
    target = {"boxes": torch.tensor([[3.0, 3, 50, 60]]), "labels": torch.tensor([1])}
    sum(model(images, [target, target])["losses"].values()).backward()
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.values())
    left_out = [key for key in dict(model.named_parameters()) if key not in trained]
    assert len(left_out) < 6  # what stands between the last map and the classifier
    outputs = model.eval()(images)
    assert [tuple(level.shape[-2:]) for level in outputs["features"]] == [(24, 24), (12, 12), (6, 6), (3, 3), (2, 2)]
    assert len(outputs["boxes"]) == 2


def test_a_mapping_makes_a_slim_backbone(tmp_path):
    model = FasterRCNN({**TINY, "backbone": {"name": "resnet18", "hidden_dim": 8, "num_layers": [1, 1, 1, 1]}})
    assert model.backbone.maps.dims == (8, 16, 32, 64)
    assert model.backbone.body.config.num_layers == (1, 1, 1, 1)
    model.save_pretrained(tmp_path)
    again = FasterRCNN.from_pretrained(tmp_path)
    assert again.config.backbone == model.config.backbone
    image = [torch.randn(3, 64, 96)]
    torch.testing.assert_close(again.eval()(image)["proposals"], model.eval()(image)["proposals"])


def test_evaluation_with_targets_gives_losses_and_boxes():
    torch.manual_seed(0)
    model = FasterRCNN(TINY)
    target = {"boxes": torch.tensor([[3.0, 3, 30, 40]]), "labels": torch.tensor([1])}
    images = torch.randn(1, 3, 64, 64)
    assert "boxes" not in model(images, [target])
    assert {"boxes", "losses"} <= model.eval()(images, [target]).keys()


def test_both_stages_export():
    """All but the choice of proposals and detections, whose number depends on the image."""
    torch.manual_seed(0)
    model = FasterRCNN(TINY).eval()

    class Stages(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, image, boxes):
            levels = self.model.backbone(image)
            first = self.model.rpn(levels, (64, 96))
            head = self.model.second_stage.head
            return first.objectness, first.deltas, *head(pool_regions(levels, [boxes], head.config.pool))

    sizes = torch.tensor([[0.0, 0, 9, 9], [5, 5, 60, 50], [0, 0, 96, 64]])
    arguments = torch.randn(1, 3, 64, 96), torch.cat([sizes, sizes * 8])
    program = torch.export.export(Stages(), arguments)
    for found, wanted in zip(program.module()(*arguments), Stages()(*arguments)):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_simple_scene_is_learnt():
    """White squares on black: the whole pipeline, from anchors to suppression, agrees on where things are.

    How many steps it takes hangs on the processor's rounding, so it trains until the squares are found.
    """
    torch.manual_seed(0)
    small = {**TINY["rpn"], "num_samples": 32, "anchor_sizes": ((8,), (16,), (32,), (64,), (128,))}
    wide = {"pyramid_dim": 32, "box_head": {"hidden_dim": 64}, "sampler": {"num_samples": 32}}
    model = FasterRCNN({**TINY, **wide, "num_classes": 1, "rpn": small})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    image = torch.zeros(2, 3, 64, 64)
    image[0, :, 8:40, 16:48], image[1, :, 24:56, 4:36] = 2, 2
    boxes = torch.tensor([[16.0, 8, 48, 40], [4, 24, 36, 56]])
    targets = [{"boxes": box[None], "labels": torch.tensor([0])} for box in boxes]

    def agreement():
        with torch.no_grad():
            outputs = model(image)
        return min(float(iou(box, found[0])) if len(found) else 0.0 for box, found in zip(boxes, outputs["boxes"]))

    for step in range(1, 201):
        optimizer.zero_grad()
        sum(model(image, targets)["losses"].values()).backward()
        optimizer.step()
        if step % 10 == 0 and agreement() > 0.7:
            return
    pytest.fail(f"after 200 steps the worst box overlaps its square by {agreement():.2f} alone")


def test_errors():
    model = FasterRCNN(TINY)
    image = torch.zeros(1, 3, 64, 64)
    box = {"boxes": torch.tensor([[1.0, 1, 9, 9]]), "labels": torch.tensor([0])}
    with pytest.raises(ValueError, match="There are 2 targets for 1 images; each image needs one"):
        model(image, [box, box])
    with pytest.raises(ValueError, match="Target 0 lacks labels"):
        model(image, [{"boxes": box["boxes"]}])
    with pytest.raises(ValueError, match=r"Box 0 of target 0 is \[1.0, 1.0, 1.0, 9.0\]; it has no width or height"):
        model(image, [{**box, "boxes": torch.tensor([[1.0, 1, 1, 9]])}])
    with pytest.raises(ValueError, match="run from 3 to 3; with num_classes=3 they must lie in 0 to 2"):
        model(image, [{**box, "labels": torch.tensor([3])}])
    with pytest.raises(ValueError, match="images is an empty list; the model needs at least one image"):
        model([])
    with pytest.raises(ValueError, match="images have 1 channels; this model was built with in_channels=3"):
        model([torch.zeros(1, 64, 64)])
    with pytest.raises(ValueError, match="num_classes is 0; a detector needs at least 1"):
        FasterRCNN({"num_classes": 0})
    with pytest.raises(ValueError, match="Did you mean 'resnet50'"):
        FasterRCNN({"backbone": "resnet51"})
    with pytest.raises(ValueError, match="gives feature maps of the strides"):
        FasterRCNN({"backbone": "vit_base_patch32_224"})
    with pytest.raises(ValueError, match=r"mixer_b16_224 cannot be the backbone .* Maps come from resnet\*, swin_\*"):
        FasterRCNN({"backbone": "mixer_b16_224"})
    with pytest.raises(ValueError, match=r"backbone is \{'hidden_dim': 8\}; it needs a name"):
        FasterRCNN({"backbone": {"hidden_dim": 8}})
    with pytest.raises(ValueError, match="backbone sets num_classes to 3; leave it out"):
        FasterRCNN({"backbone": {"name": "resnet18", "num_classes": 3}})
    with pytest.raises(ValueError, match="Did you mean 'hidden_dim'"):
        FasterRCNN({"backbone": {"name": "resnet18", "hiden_dim": 3}})
    with torch.no_grad():
        model.second_stage.head.scores.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="Class scores are NaN; the weights or the image hold values"):
        model.eval()(image)
