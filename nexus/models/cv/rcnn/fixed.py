"""The R-CNN family on tensors of fixed size: boxes of all images in one tensor, and how many of each image count.

How many boxes survive suppression depends on their values: `backbone` and `rpn` can be exported as graphs, the stages
after them run as they are.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from nexus.core.parts import PartSpec
from nexus.layers.detector_input import Size
from nexus.models.cv.rcnn.parts import Branch, Detections
from nexus.models.cv.rcnn.pyramid import STRIDES
from nexus.models.cv.rcnn.rpn import RPNOutput, propose

if TYPE_CHECKING:
    from nexus.models.cv.rcnn.rcnn import RCNN

LEVELS = ("p2", "p3", "p4", "p5", "p6")
FOUND = ("boxes", "scores", "labels")


def part_specs(branches: Sequence[str]) -> dict[str, PartSpec]:
    """Returns the parts of a detector with branches of these names."""
    specs = {
        "backbone": PartSpec(_backbone, ("images",), ("backbone",)),
        "rpn": PartSpec(_rpn, LEVELS, ("rpn",)),
        "proposals": PartSpec(
            _proposals, ("objectness", "deltas", "anchors", "level_sizes", "image_sizes"), (), graph=False
        ),
        "second_stage": PartSpec(
            _second_stage, (*LEVELS, "proposals", "proposal_count", "image_sizes"), ("second_stage",), graph=False
        ),
    }
    if branches:
        inputs = (*LEVELS, *FOUND, "count", "image_sizes")
        specs["branches"] = PartSpec(_branches, inputs, ("branches",), graph=False)
    return specs


def _backbone(model: "RCNN", images: Tensor) -> Mapping[str, Tensor]:
    return dict(zip(LEVELS, model.backbone(images)))


def _rpn(model: "RCNN", *levels: Tensor) -> Mapping[str, Tensor]:
    height, width = levels[0].shape[-2:]
    output = model.rpn(levels, (height * STRIDES[0], width * STRIDES[0]))
    sizes = torch.tensor(output.level_sizes)
    return {
        "objectness": output.objectness,
        "deltas": output.deltas,
        "anchors": output.anchors,
        "level_sizes": sizes,
    }


def _proposals(
    model: "RCNN", objectness: Tensor, deltas: Tensor, anchors: Tensor, level_sizes: Tensor, image_sizes: Tensor
) -> Mapping[str, Tensor]:
    output = RPNOutput(objectness, deltas, anchors, level_sizes.tolist())
    boxes = propose(model.config.rpn, output, as_sizes(image_sizes), for_training=False)
    return {"proposals": stacked(boxes), "proposal_count": counts(boxes)}


def _second_stage(model: "RCNN", *inputs: Tensor) -> Mapping[str, Tensor]:
    *levels, proposals, count, image_sizes = inputs
    found = model.second_stage.detect(levels, parted(proposals, count), as_sizes(image_sizes))
    columns = {name: [getattr(one, name) for one in found] for name in FOUND}
    return {**{name: stacked(parts) for name, parts in columns.items()}, "count": counts(columns["scores"])}


def _branches(model: "RCNN", *inputs: Tensor) -> Mapping[str, Tensor]:
    *levels, boxes, scores, labels, count, image_sizes = inputs
    detections = [Detections(*one) for one in zip(*(parted(part, count) for part in (boxes, scores, labels)))]
    outputs: dict[str, Tensor] = {}
    for branch in model.branches.values():
        assert isinstance(branch, Branch)
        found = branch.predict(levels, detections, as_sizes(image_sizes))
        outputs |= {name: stacked(parts) for name, parts in found.items()}
    return outputs


def as_sizes(image_sizes: Tensor) -> list[Size]:
    """Returns (height, width) of each image."""
    return [(height, width) for height, width in image_sizes.tolist()]


def counts(parts: Sequence[Tensor]) -> Tensor:
    """Returns how many entries each image has."""
    return torch.tensor([len(part) for part in parts], device=parts[0].device)


def parted(padded: Tensor, count: Tensor) -> list[Tensor]:
    """Returns the entries of each image that count."""
    return [part[:number] for part, number in zip(padded, count.tolist())]


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Returns one tensor of what each image has, with zeros after the end of each."""
    shape = [max(sides) for sides in zip(*(part.shape for part in parts))]
    missing = [[side for n, m in zip(part.shape, shape) for side in (m - n, 0)][::-1] for part in parts]
    return torch.stack([F.pad(part, pad) for part, pad in zip(parts, missing)])
