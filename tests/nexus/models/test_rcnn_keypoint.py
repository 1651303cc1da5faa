"""Keypoint R-CNN against torchvision's."""

import importlib.util
from pathlib import Path

import pytest
import torch

from nexus.core.formats import to_our_names
from nexus.models.cv.rcnn import KeypointRCNN
from nexus.models.cv.rcnn.keypoint_rcnn import find_keypoints, keypoint_places
from nexus.models.registry import create_model

spec = importlib.util.spec_from_file_location("rcnn_oracle", Path(__file__).with_name("rcnn_oracle.py"))
oracle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(oracle)


def pair(torchvision, monkeypatch):
    from torchvision.models.detection import keypoint_rcnn

    oracle.differentiable_pooling(monkeypatch, torchvision)
    theirs = oracle.build(keypoint_rcnn.KeypointRCNN, "frozen", **oracle.keypoint_parts())
    settings = {
        "backbone_norm": "frozen",
        "rpn": oracle.OUR_SMALL_RPN,
        "box_head": {"hidden_dim": oracle.WIDTH},
        "keypoint_head": {"num_convs": 2, "hidden_dim": 16, "num_keypoints": 6},
    }
    ours = KeypointRCNN({**oracle.OUR_SMALL, **settings})
    oracle.enliven(theirs)
    oracle.same_weights(ours, theirs)
    return ours, theirs


def test_predictions_equal_torchvision(torchvision, monkeypatch):
    from torchvision.models.detection import roi_heads

    exact = roi_heads.heatmaps_to_keypoints  # it writes its results into float32
    ours, theirs = pair(torchvision, monkeypatch)
    monkeypatch.setattr(roi_heads, "heatmaps_to_keypoints", lambda maps, rois: exact(maps.float(), rois.float()))
    found = oracle.compare_prediction(ours, theirs)
    images, _ = oracle.scene()
    with torch.no_grad():
        wanted = theirs(images)
    for place, image in enumerate(wanted):
        torch.testing.assert_close(found["keypoints"][place].float(), image["keypoints"][..., :2], rtol=1e-4, atol=1e-3)
        scores = found["keypoint_scores"][place].float()
        torch.testing.assert_close(scores, image["keypoints_scores"], rtol=1e-4, atol=1e-4)


def test_losses_and_gradients_equal_torchvision(torchvision, monkeypatch):
    ours, theirs = pair(torchvision, monkeypatch)
    oracle.compare_training(
        ours, theirs, {**oracle.LOSSES, "keypoint": "loss_keypoint"}, oracle.with_poses(oracle.scene()[1])
    )


def test_parameter_counts():
    with torch.device("meta"):
        assert create_model("keypointrcnn_resnet50_fpn").num_parameters() == 59_190_378
        assert create_model("keypointrcnn_resnet50_fpn", backbone_norm="frozen").num_parameters() == 59_137_258


def test_published_names_and_shapes_fit(torchvision):
    from torchvision.models import detection

    with torch.device("meta"):
        theirs = detection.keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None)
        ours = create_model("keypointrcnn_resnet50_fpn")
    renamed, _ = to_our_names(theirs.state_dict(), ours.formats)
    assert {key: value.shape for key, value in renamed.items()} == {k: v.shape for k, v in ours.state_dict().items()}


def test_a_keypoint_is_found_where_it_was_put():
    boxes = torch.tensor([[10.0, 20, 66, 76], [5, 5, 33, 33]])
    keypoints = torch.tensor([[[17.5, 40.5, 1], [60.5, 70.5, 1]], [[6.25, 30.25, 1], [20.75, 10.75, 1]]])
    places, counts = keypoint_places(keypoints, boxes, 56)
    assert counts.all()
    heatmaps = torch.full((2, 2, 56 * 56), -5.0).scatter(2, places[..., None], 5.0).unflatten(2, (56, 56))
    points, scores = find_keypoints(heatmaps, boxes)
    assert (points - keypoints[..., :2]).abs().max() <= 0.5
    assert scores[0].tolist() == [5, 5]  # the first box has as many pixels as its heatmap has places


def test_unseen_keypoints_do_not_train():
    torch.manual_seed(0)
    small = {"pyramid_dim": 16, "box_head": {"hidden_dim": 8}, "keypoint_head": {"hidden_dim": 8, "num_keypoints": 2}}
    model = KeypointRCNN({**oracle.OUR_SMALL, **small, "num_classes": 1})
    target = {"boxes": torch.tensor([[3.0, 3, 60, 60]]), "labels": torch.tensor([0]), "keypoints": torch.zeros(1, 2, 3)}
    losses = model(torch.randn(1, 3, 64, 64), [target])["losses"]
    assert losses["keypoint"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with pytest.raises(ValueError, match=r"have the shape \(1, 3, 3\); they must be \(n, 2, 3\)"):
        model(torch.randn(1, 3, 64, 64), [{**target, "keypoints": torch.zeros(1, 3, 3)}])
    with pytest.raises(ValueError, match="num_keypoints is 0; it must be at least 1"):
        KeypointRCNN({"keypoint_head": {"num_keypoints": 0}})
