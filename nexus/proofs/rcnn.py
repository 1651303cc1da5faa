"""References of the R-CNN family: torchvision's, small, without the resizing and normalization that they do inside.

Two images of different sizes, of which the second has no object, are detected in and trained on, by the same draws.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from nexus.models.cv.rcnn.cascade_rcnn import CascadeRCNNConfig
from nexus.models.cv.rcnn.keypoint_rcnn import KeypointRCNNConfig
from nexus.models.cv.rcnn.mask_rcnn import MaskRCNNConfig
from nexus.models.cv.rcnn.rcnn import RCNNConfig
from nexus.ops.nms import batched_nms
from nexus.ops.roi import roi_align
from nexus.proofs.family import Family, Oracle

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
BRANCH_LOSSES = {"mask": "loss_mask", "keypoint": "loss_keypoint"}


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
    plain = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    theirs = detector(backbone, None, box_predictor=predictor, **{**plain, **SMALL, **parts})
    transform: Any = theirs.get_submodule("transform")
    transform.resize = lambda image, target: (image, target)  # it has an option for that in training alone
    return theirs


def normalized_parts() -> dict[str, Any]:
    """Returns the parts of torchvision's second recipe: norms everywhere, a deeper first stage and box head."""
    from torchvision.models.detection import faster_rcnn, rpn

    head = faster_rcnn.FastRCNNConvFCHead((256, 7, 7), [256] * 4, [WIDTH], norm_layer=nn.BatchNorm2d)
    return {"pyramid_norm": nn.BatchNorm2d, "rpn_head": rpn.RPNHead(256, 3, conv_depth=2), "box_head": head}


def mask_parts(norm: bool) -> dict[str, Any]:
    """Returns torchvision's mask head of two convolutions of 16 channels, for 5 classes with the background."""
    from torchvision.models.detection import mask_rcnn

    layer = nn.BatchNorm2d if norm else None
    predictor = mask_rcnn.MaskRCNNPredictor(16, 16, 5)
    return {"mask_head": mask_rcnn.MaskRCNNHeads(256, [16] * 2, 1, norm_layer=layer), "mask_predictor": predictor}


def keypoint_parts() -> dict[str, Any]:
    """Returns torchvision's keypoint head of two convolutions of 16 channels, for 6 keypoints."""
    from torchvision.models.detection import keypoint_rcnn

    predictor = keypoint_rcnn.KeypointRCNNPredictor(16, 6)
    return {"keypoint_head": keypoint_rcnn.KeypointRCNNHeads(256, (16, 16)), "keypoint_predictor": predictor}


def torchvision_rcnn(torchvision: ModuleType, config: RCNNConfig) -> nn.Module:
    """Returns torchvision's detector of a small configuration."""
    from torchvision.models import detection

    parts = normalized_parts() if config.pyramid_norm else {}
    if isinstance(config, MaskRCNNConfig):
        return build(detection.MaskRCNN, config.backbone_norm, **parts, **mask_parts(config.mask_head.norm))
    if isinstance(config, KeypointRCNNConfig):
        return build(detection.KeypointRCNN, config.backbone_norm, **parts, **keypoint_parts())
    return build(detection.FasterRCNN, config.backbone_norm, **parts)


def shrink(config: RCNNConfig) -> Mapping[str, Any]:
    """Returns what makes a variant as small as torchvision's detector here; its recipe stays as it is."""
    changes: dict[str, Any] = {**OUR_SMALL, "backbone_norm": "frozen", "rpn": config.rpn.replace(**OUR_SMALL_RPN)}
    changes["box_head"] = config.box_head.replace(hidden_dim=WIDTH)
    if isinstance(config, MaskRCNNConfig):
        changes["mask_head"] = config.mask_head.replace(num_convs=2, hidden_dim=16)
    if isinstance(config, KeypointRCNNConfig):
        changes["keypoint_head"] = config.keypoint_head.replace(num_convs=2, hidden_dim=16, num_keypoints=6)
    return changes


def our_operators() -> list[tuple[ModuleType, str, Callable[..., Tensor]]]:
    """Returns where torchvision looks for region pooling and suppression, and ours to put there.

    Its own are compiled: beside a torch that they were not built for they do not load. The tests of nexus.ops prove
    ours by themselves.
    """
    import torchvision.models.detection.roi_heads as heads
    import torchvision.ops.boxes as boxes
    import torchvision.ops.poolers as poolers

    def pool(features: Tensor, rois: Any, output_size: Any, spatial_scale: float = 1.0, sampling_ratio: int = -1):
        if not isinstance(rois, Tensor):  # a list for each image
            index = torch.cat([torch.full_like(part[:, :1], place) for place, part in enumerate(rois)])
            rois = torch.cat([index, torch.cat(list(rois))], dim=1)
        size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        options = {"spatial_scale": spatial_scale, "sampling_ratio": max(sampling_ratio, 0), "aligned": False}
        return roi_align(features, rois[:, 1:], rois[:, 0].long(), size, **options)

    return [(poolers, "roi_align", pool), (heads, "roi_align", pool), (boxes, "batched_nms", batched_nms)]


@contextlib.contextmanager
def plain_operators() -> Iterator[None]:
    """Gives torchvision our operators for a while."""
    with contextlib.ExitStack() as stack:
        for place in our_operators():
            stack.enter_context(mock.patch.object(*place))
        yield


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


def their_targets(targets: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Counts labels from 1, as torchvision does."""
    return [{**target, "labels": target["labels"] + 1} for target in targets]


def with_discs(images: list[Tensor], targets: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Adds masks: discs in the boxes."""
    done = []
    for image, target in zip(images, targets):
        y, x = torch.meshgrid(torch.arange(image.shape[1]), torch.arange(image.shape[2]), indexing="ij")
        x1, y1, x2, y2 = target["boxes"].T[..., None, None]
        distance = ((x - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((y - (y1 + y2) / 2) / (y2 - y1)) ** 2
        done.append({**target, "masks": (distance < 0.25).to(torch.uint8)})
    return done


def with_poses(targets: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Adds keypoints inside, on the border, outside and not labelled."""
    share = torch.tensor([[0.1, 0.2, 1], [0.5, 0.5, 2], [1, 1, 1], [0, 0.3, 2], [1.4, 0.5, 2], [0.3, 0.6, 0]])
    done = []
    for target in targets:
        boxes = target["boxes"][:, None]
        place = boxes[..., :2] + share[:, :2] * (boxes[..., 2:] - boxes[..., :2])
        points = torch.cat([place, share[:, 2:].expand(len(boxes), -1, -1)], -1).float()
        done.append({**target, "keypoints": points})
    return done


def _scene(images: Tensor, *, masks: bool = True) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Cuts a batch of two images to different sizes; the second one has no objects."""
    height, width = images.shape[2:]
    cut = [images[0, :, : height - 16], images[1, :, :, : width - 32]]
    boxes = images.new_tensor([[5, 8, 40, 44], [30, 20, 60, 60], [50, 2, 61, 15]])
    targets = [
        {"boxes": boxes, "labels": torch.tensor([0, 3, 1])},
        {"boxes": boxes[:0], "labels": torch.zeros(0, dtype=torch.long)},
    ]
    return cut, with_discs(cut, with_poses(targets))


def _flat(detections: list[dict[str, Tensor]]) -> Tensor:
    return torch.cat([value.flatten().to(image["boxes"].dtype) for image in detections for value in image.values()])


def _our_detections(extra: tuple[str, ...], model: Any, images: Tensor) -> Tensor:
    cut, _ = _scene(images)
    outputs = model(cut)
    keys = ("boxes", "scores", "labels", *extra)
    return _flat([{key: outputs[key][place] for key in keys} for place in range(len(cut))])


def _their_detections(extra: tuple[str, ...], model: nn.Module, images: Tensor) -> Tensor:
    cut, _ = _scene(images)
    with plain_operators():
        found = model([image.clone() for image in cut])
    for image in found:
        image["labels"] = image["labels"] - 1
    return _flat([{key: image[key] for key in ("boxes", "scores", "labels", *extra)} for image in found])


def _our_losses(model: Any, images: Tensor) -> Tensor:
    torch.manual_seed(5)
    losses = model.train()(*_scene(images))["losses"]
    return torch.stack([losses[name].to(images.dtype) for name in (LOSSES | BRANCH_LOSSES) if name in losses])


def _their_losses(model: nn.Module, images: Tensor) -> Tensor:
    cut, targets = _scene(images)
    torch.manual_seed(5)
    with plain_operators():
        losses = model.train()([image.clone() for image in cut], their_targets(targets))
    names = (LOSSES | BRANCH_LOSSES).values()
    return torch.stack([losses[name].to(images.dtype) for name in names if name in losses])


def _rcnn(*variants: str, extra: tuple[str, ...] = ()) -> Family:
    given: dict[str, Any] = {
        "library": "torchvision",
        "build": torchvision_rcnn,
        "spelling": "torchvision",
        "randomize": enliven,
        "float32_tolerance": None,  # a rounding decides which of two like boxes is kept
    }
    detections = {"run": partial(_their_detections, extra), "read": partial(_our_detections, extra)}
    return Family(
        variants=variants,
        tiny=shrink,
        image_size=(80, 96),
        other_size=(112, 128),
        oracles=(
            Oracle(**given, **detections, gradients=False, tolerance=1e-8, other_tolerance=1e-8),
            Oracle(
                **given, run=_their_losses, read=_our_losses, tolerance=1e-6, other_size=False
            ),  # its targets of boxes are computed in float32
        ),
        read=partial(_our_detections, extra),
        dynamic=True,
    )


def shrink_cascade(config: CascadeRCNNConfig) -> Mapping[str, Any]:
    """Returns what makes a cascade small."""
    changes: dict[str, Any] = {**OUR_SMALL, "pyramid_dim": 16, "rpn": config.rpn.replace(**OUR_SMALL_RPN)}
    changes["sampler"], changes["detect"] = config.sampler.replace(num_samples=24), OUR_SMALL["detect"]
    changes["box_head"] = config.box_head.replace(hidden_dim=WIDTH)
    return changes | ({"mask_head": config.mask_head.replace(hidden_dim=16)} if config.mask_head else {})


RCNNS = (
    Family(
        variants=("cascade*",),
        tiny=shrink_cascade,
        image_size=(80, 96),
        other_size=(112, 128),
        read=partial(_our_detections, ()),
        dynamic=True,
        elsewhere="`tests/nexus/models/test_rcnn_cascade.py` with kept results of mmdetection 3.3",
    ),
    _rcnn("fasterrcnn_*"),
    _rcnn("maskrcnn_*", extra=("masks",)),
    _rcnn("keypointrcnn_*"),
)
