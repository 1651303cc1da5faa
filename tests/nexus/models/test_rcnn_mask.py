"""Mask R-CNN against torchvision's."""

import importlib.util
from pathlib import Path

import pytest
import torch

from nexus.core.formats import to_our_names
from nexus.models.cv.rcnn import MaskRCNN
from nexus.models.registry import create_model

spec = importlib.util.spec_from_file_location("rcnn_oracle", Path(__file__).with_name("rcnn_oracle.py"))
oracle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(oracle)


def pair(torchvision, monkeypatch, *, v2: bool):
    from torchvision.models.detection import mask_rcnn

    oracle.differentiable_pooling(monkeypatch, torchvision)
    theirs = oracle.build(mask_rcnn.MaskRCNN, "frozen", **oracle.mask_parts(v2))
    settings = {
        "backbone_norm": "frozen",
        "rpn": oracle.OUR_SMALL_RPN,
        "box_head": {"hidden_dim": oracle.WIDTH},
        "mask_head": {"num_convs": 2, "hidden_dim": 16, "norm": v2},
    }
    ours = MaskRCNN({**oracle.OUR_SMALL, **settings})
    oracle.enliven(theirs)
    oracle.same_weights(ours, theirs)
    return ours, theirs


def test_predictions_equal_torchvision(torchvision, monkeypatch):
    ours, theirs = pair(torchvision, monkeypatch, v2=True)
    found = oracle.compare_prediction(ours, theirs, "masks")
    assert [mask.shape for mask in found["masks"]] == [(9, 64, 96), (9, 80, 64)]
    assert found["mask_crops"][0].shape == (9, 28, 28)


def test_losses_and_gradients_equal_torchvision(torchvision, monkeypatch):
    ours, theirs = pair(torchvision, monkeypatch, v2=False)
    oracle.compare_training(ours, theirs, {**oracle.LOSSES, "mask": "loss_mask"}, oracle.with_discs(*oracle.scene()))


def test_parameter_counts():
    with torch.device("meta"):
        assert create_model("maskrcnn_resnet50_fpn").num_parameters() == 44_454_513
        assert create_model("maskrcnn_resnet50_fpn", backbone_norm="frozen").num_parameters() == 44_401_393
        assert create_model("maskrcnn_resnet50_fpn_v2").num_parameters() == 46_359_409


@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"])
def test_published_names_and_shapes_fit(torchvision, name):
    from torchvision.models import detection

    with torch.device("meta"):
        theirs = getattr(detection, name)(weights=None, weights_backbone=None)
        ours = create_model(name)
    state = theirs.state_dict()
    if not name.endswith("v2"):  # the spelling of the first files
        for index in range(4):
            for kind in ("weight", "bias"):
                state[f"roi_heads.mask_head.mask_fcn{index + 1}.{kind}"] = state.pop(
                    f"roi_heads.mask_head.{index}.0.{kind}"
                )
    renamed, _ = to_our_names(state, ours.formats)
    assert {key: value.shape for key, value in renamed.items()} == {k: v.shape for k, v in ours.state_dict().items()}


def test_images_without_objects_train_and_without_detections_predict():
    torch.manual_seed(0)
    settings = {
        "backbone_norm": "frozen",
        "rpn": oracle.OUR_SMALL_RPN,
        "box_head": {"hidden_dim": 8},
        "pyramid_dim": 16,
    }
    model = MaskRCNN({**oracle.OUR_SMALL, **settings, "mask_head": {"hidden_dim": 8}})
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "masks": torch.zeros(0, 64, 64)}
    losses = model(torch.randn(1, 3, 64, 64), [empty])["losses"]
    assert losses["mask"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        model.second_stage.head.scores.bias[0] = 100.0  # everything is background
    outputs = model.eval()(torch.randn(1, 3, 64, 64))
    assert outputs["masks"][0].shape == (0, 64, 64)
    assert outputs["boxes"][0].shape == (0, 4)


def test_errors():
    model = MaskRCNN(
        {**oracle.OUR_SMALL, "pyramid_dim": 16, "box_head": {"hidden_dim": 8}, "mask_head": {"hidden_dim": 8}}
    )
    target = {"boxes": torch.tensor([[0.0, 0, 64, 64]]), "labels": torch.tensor([0])}
    with pytest.raises(ValueError, match="Target 0 lacks masks"):
        model(torch.randn(1, 3, 64, 64), [target])
    with pytest.raises(ValueError, match="Target 0 has 1 boxes and 2 masks"):
        model(torch.randn(1, 3, 64, 64), [{**target, "masks": torch.zeros(2, 64, 64)}])
    with pytest.raises(
        ValueError, match=r"masks of a target have the shape \(1, 1, 64, 64\); they must be \(n, h, w\)"
    ):
        model(torch.randn(1, 3, 64, 64), [{**target, "masks": torch.zeros(1, 1, 64, 64)}])


def test_boxes_keep_their_precision_in_bfloat16():
    """Maps are computed in 16 bits; anchors, deltas, boxes and masks are not, or boxes would move by pixels."""
    torch.manual_seed(0)
    model = MaskRCNN(
        {**oracle.OUR_SMALL, "pyramid_dim": 16, "box_head": {"hidden_dim": 8}, "mask_head": {"hidden_dim": 8}}
    )
    target = {"boxes": torch.tensor([[3.0, 3, 40, 50]]), "labels": torch.tensor([1]), "masks": torch.ones(1, 64, 64)}
    image = torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(image, [target])["losses"]
        with torch.no_grad():
            outputs = model.eval()(image)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(outputs[key][0].dtype == torch.float32 for key in ("boxes", "scores", "masks", "proposals"))
    with torch.no_grad():
        outputs = model.bfloat16()(image.bfloat16())
    assert outputs["features"][0].dtype == torch.bfloat16
    assert outputs["boxes"][0].dtype == torch.float32
