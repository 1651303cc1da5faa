"""torchvision's R-CNNs, small, without the resizing and normalization that they do inside."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nexus.core.formats import to_our_names
from nexus.models.cv.rcnn.rcnn import RCNN
from nexus.ops.roi import roi_align

WIDTH = 32
SMALL: dict[str, Any] = {
    "rpn_pre_nms_top_n_train": 100,
    "rpn_pre_nms_top_n_test": 60,
    "rpn_post_nms_top_n_train": 50,
    "rpn_post_nms_top_n_test": 20,
    "rpn_batch_size_per_image": 32,
    "box_batch_size_per_image": 24,
    "box_score_thresh": 0.01,
    "box_detections_per_img": 9,
}
OUR_SMALL: dict[str, Any] = {
    "backbone": "resnet18",
    "num_classes": 4,
    "sampler": {"num_samples": 24},
    "detect": {"min_score": 0.01, "max_detections": 9},
}
OUR_SMALL_RPN: dict[str, Any] = {"num_candidates": (100, 60), "num_proposals": (50, 20), "num_samples": 32}


LOSSES = {
    "rpn_objectness": "loss_objectness",
    "rpn_box": "loss_rpn_box_reg",
    "classification": "loss_classifier",
    "box": "loss_box_reg",
}


def build(detector: Callable[..., nn.Module], norm: str, **parts: Any) -> nn.Module:
    """Returns a detector of torchvision with ResNet-18 that takes our images as they are."""
    from torchvision.models.detection import faster_rcnn
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.models.resnet import resnet18
    from torchvision.ops.misc import FrozenBatchNorm2d

    body = resnet18(weights=None, norm_layer=FrozenBatchNorm2d if norm == "frozen" else nn.BatchNorm2d)
    backbone = _resnet_fpn_extractor(body, 5, norm_layer=parts.pop("pyramid_norm", None))
    if "box_head" not in parts:
        parts["box_head"] = faster_rcnn.TwoMLPHead(256 * 7**2, WIDTH)
    predictor = faster_rcnn.FastRCNNPredictor(WIDTH, 5)
    sizes = {"min_size": 64, "max_size": 96, "image_mean": [0.0] * 3, "image_std": [1.0] * 3, "_skip_resize": True}
    return detector(backbone, None, box_predictor=predictor, **{**sizes, **SMALL, **parts})


def differentiable_pooling(monkeypatch: pytest.MonkeyPatch, torchvision: ModuleType) -> None:
    """Gives torchvision our region pooling, which the tests of nexus.ops prove.

    The shim's has no gradient, and reads the border of the map for samples outside where the compiled one reads 0.
    """
    import torchvision.models.detection.roi_heads as heads
    import torchvision.ops.poolers as poolers

    def pool(features: Tensor, rois: Tensor, output_size: Any, spatial_scale: float = 1.0, sampling_ratio: int = -1):
        size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        options = {"spatial_scale": spatial_scale, "sampling_ratio": max(sampling_ratio, 0), "aligned": False}
        return roi_align(features, rois[:, 1:], rois[:, 0].long(), size, **options)

    monkeypatch.setattr(poolers, "roi_align", pool)
    monkeypatch.setattr(heads, "roi_align", lambda f, rois, size, scale: pool(f, rois, size, scale))


def enliven(model: nn.Module) -> None:
    """Draws weights that make detections differ: statistics, biases, and heads that move and doubt their boxes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0, generator=generator)
            elif name.endswith("running_mean") or (name.endswith(".bias") and value.ndim):
                value.normal_(std=0.1, generator=generator)
            elif any(part in name for part in ("cls_logits", "bbox_pred", "cls_score")) and "weight" in name:
                value.normal_(std=0.03, generator=generator)


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


def their_targets(targets: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Counts labels from 1, as torchvision does."""
    return [{**target, "labels": target["labels"] + 1} for target in targets]


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
