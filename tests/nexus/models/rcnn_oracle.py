"""What the tests of the R-CNN family ask of torchvision's detectors, which stand in nexus.proofs."""

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nexus.core.formats import to_our_names
from nexus.models.cv.rcnn.rcnn import RCNN
from nexus.proofs.rcnn import (
    LOSSES,
    OUR_SMALL,
    OUR_SMALL_RPN,
    WIDTH,
    build,
    enliven,
    keypoint_parts,
    mask_parts,
    normalized_parts,
    our_operators,
    their_targets,
    with_discs,
    with_poses,
)

__all__ = [
    "LOSSES",
    "OUR_SMALL",
    "OUR_SMALL_RPN",
    "WIDTH",
    "build",
    "enliven",
    "keypoint_parts",
    "mask_parts",
    "normalized_parts",
    "with_discs",
    "with_poses",
]


def differentiable_pooling(monkeypatch: pytest.MonkeyPatch, torchvision: ModuleType) -> None:
    """Gives torchvision our region pooling, which the tests of nexus.ops prove; the shim's has no gradient."""
    for place in our_operators():
        monkeypatch.setattr(*place)


def same_weights(ours: RCNN, theirs: nn.Module) -> None:
    """Gives our model the reference's weights, through the declared names."""
    state, spelling = to_our_names(theirs.state_dict(), ours.formats)
    assert spelling == "torchvision"
    ours.load_state_dict(state)


def scene(dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Two images of different sizes; the second target is empty."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(3, *size, generator=generator, dtype=dtype) for size in ((64, 96), (80, 64))]
    boxes = torch.tensor([[5, 8, 40, 44], [30, 20, 90, 60], [50, 2, 61, 15]], dtype=dtype)
    full = {"boxes": boxes, "labels": torch.tensor([0, 3, 1])}
    return images, [full, {"boxes": torch.zeros(0, 4, dtype=dtype), "labels": torch.zeros(0, dtype=torch.long)}]


def compare_training(ours: RCNN, theirs: nn.Module, names: dict[str, str], targets: list[dict[str, Tensor]]) -> None:
    """Asserts equal losses, and equal gradients of every parameter, with the same random draws."""
    images, _ = scene()
    ours, theirs = ours.double().train(), theirs.double().train()
    torch.manual_seed(5)
    wanted = theirs([image.clone() for image in images], their_targets(targets))
    torch.manual_seed(5)
    found = ours(images, targets)["losses"]
    assert set(found) == set(names)
    for name, theirs_name in names.items():
        torch.testing.assert_close(
            found[name], wanted[theirs_name].double(), rtol=1e-6, atol=1e-8
        )  # theirs has a part in float32
    sum(wanted.values()).backward()
    sum(found.values()).backward()
    reference = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    gradients, _ = to_our_names(reference, ours.formats)
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-6, atol=1e-9, msg=name)


def compare_prediction(ours: RCNN, theirs: nn.Module, *keys: str) -> dict[str, Any]:
    """Asserts equal detections, and returns ours."""
    images, _ = scene()
    ours, theirs = ours.double().eval(), theirs.double().eval()
    with torch.no_grad():
        wanted = theirs([image.clone() for image in images])
        found = ours(images)
    for place, image in enumerate(wanted):
        assert len(image["boxes"]) == 9
        torch.testing.assert_close(found["boxes"][place], image["boxes"], rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(found["scores"][place], image["scores"], rtol=1e-8, atol=1e-8)
        assert torch.equal(found["labels"][place], image["labels"] - 1)
        for key in keys:
            torch.testing.assert_close(found[key][place], image[key].reshape_as(found[key][place]))
    return found
