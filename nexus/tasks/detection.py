"""Detection: boxes with classes, and masks or keypoints where the model has them.

Dims: b batch, c channels, h w pixels, n objects, j keypoints, s side of a small mask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nexus.data.detection.rle import RLE, encode
from nexus.data.detection.scene import Scene
from nexus.ops.masks import paste_masks
from nexus.tasks.coco_figures import CocoFigures, Found, Kind, coco_figures
from nexus.tasks.detections import Detections
from nexus.tasks.protocol import ImageInfo

if TYPE_CHECKING:
    from PIL.Image import Image

    from nexus.data import Dataset

MASK_THRESHOLD = 0.5
PASTED_AT_ONCE = 1 << 26
"""Values of full-size masks in memory at once, 256 MiB."""


@dataclass(frozen=True)
class DetectionTask:
    """The losses that a detector makes itself, and COCO's figures.

    Attributes:
        class_names: Names of the classes, in the order of the model's labels. Without names they are called "0", ...
        keypoint_sigmas: How far off each keypoint may be, as a share of the object's size; None means COCO's 17.
    """

    class_names: tuple[str, ...] = ()
    keypoint_sigmas: tuple[float, ...] | None = None

    name = "detection"
    headline = "AP"

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(self.class_names))

    def check_data(self, dataset: "Dataset") -> None:
        """Raises ValueError if the data set has no annotated objects, or one whose label has no class."""
        if not hasattr(dataset, "annotations"):
            raise ValueError(
                f"The data set {dataset.name!r} has no objects in its images; a detector needs boxes, as in"
                " 'digit-scenes' or 'coco:PATH'."
            )
        labels, count = np.asarray(dataset.labels), len(self.class_names or dataset.class_names)
        if len(labels) == 0:
            raise ValueError(f"The data set {dataset.name!r} has no object in any of its {len(dataset)} images.")
        if labels.min() < 0 or labels.max() >= count:
            raise ValueError(
                f"The data set {dataset.name!r} has labels from {labels.min()} to {labels.max()}, and the model has"
                f" {count} classes, 0 to {count - 1}. Create the model with num_classes={labels.max() + 1}."
            )

    def losses(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns the model's outputs and its losses; `targets` of the batch are those of `DetectionTransform`."""
        images: Float[Tensor, "b c h w"] = batch["images"]
        targets = [{key: value.to(images.device) for key, value in target.items()} for target in batch["targets"]]
        outputs = model(images, targets, image_sizes=batch["image_sizes"])
        return outputs, outputs["losses"]

    def predict(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the model's outputs, and with them the `image_sizes` that its boxes are in.

        Raises:
            ValueError: The model gives no boxes.
        """
        images = batch["images"]
        sizes = batch.get("image_sizes") or [(images.shape[2], images.shape[3])] * len(images)
        outputs = model(images, image_sizes=sizes)
        missing = {"boxes", "scores", "labels"} - outputs.keys()
        if missing:
            raise ValueError(f"{type(model).__name__} gives no {', '.join(sorted(missing))}; a detector gives them.")
        return {**outputs, "image_sizes": sizes}

    def metrics(self) -> "DetectionMetrics":
        """Returns fresh figures."""
        return DetectionMetrics(self)

    def results(self, outputs: Mapping[str, Any], infos: Sequence[ImageInfo]) -> list[Detections]:
        """Returns what was found in each image, in pixels of the image as given.

        Raises:
            ValueError: Boxes or scores of an image are not finite; the message names it.
        """
        names = self.class_names
        if not names:
            highest = max((int(labels.max()) for labels in outputs["labels"] if len(labels)), default=-1)
            names = tuple(map(str, range(highest + 1)))
        everything = [found_in(outputs, place, (info.height, info.width)) for place, info in enumerate(infos)]
        for info, found in zip(infos, everything):
            if not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
                raise ValueError(
                    f"The model gives NaN or infinity for {info.path}."
                    " Its weights are broken, or its training diverged."
                )
        return [
            Detections(info.path, info.height, info.width, found, names, info.image)
            for info, found in zip(infos, everything, strict=True)
        ]

    def draw(self, image: "Image", result: Detections) -> "Image":
        """Returns the image with the found objects drawn on it."""
        return result.draw_on(image)


def found_in(outputs: Mapping[str, Any], place: int, size: tuple[int, int]) -> Found:
    """What was found in one image of a batch, scaled to the image as given.

    Args:
        outputs: Of `DetectionTask.predict`.
        place: Of the image in the batch.
        size: (height, width) of the image as given.
    """
    height, width = outputs["image_sizes"][place]
    factors = outputs["boxes"][place].new_tensor([size[1] / width, size[0] / height], dtype=torch.float64)
    boxes: Float[Tensor, "n 4"] = outputs["boxes"][place].detach().double() * factors.repeat(2)
    masks = keypoints = None
    if "mask_crops" in outputs:
        masks = pasted(outputs["mask_crops"][place].float(), boxes.float(), size)
    elif "masks" in outputs:
        masks = stretched(outputs["masks"][place].float(), size)
    if "keypoints" in outputs:
        points = outputs["keypoints"][place].detach().double()
        keypoints = (points * torch.cat([factors, factors.new_ones(1)])).cpu().numpy()
    scores, labels = outputs["scores"][place].double().cpu().numpy(), outputs["labels"][place].cpu().numpy()
    return Found(boxes.cpu().numpy(), scores, labels, masks, keypoints)


def pasted(crops: Float[Tensor, "n s s"], boxes: Float[Tensor, "n 4"], size: tuple[int, int]) -> tuple[RLE, ...]:
    """The small masks of boxes as runs in an image of `size`, some at a time."""
    step = max(1, PASTED_AT_ONCE // (size[0] * size[1]))
    runs: list[RLE] = []
    for part, part_boxes in zip(crops.split(step), boxes.split(step)):
        inside = paste_masks(part, part_boxes, size) >= MASK_THRESHOLD
        runs += [encode(mask) for mask in inside.cpu().numpy()]
    return tuple(runs)


def stretched(masks: Float[Tensor, "n h w"], size: tuple[int, int]) -> tuple[RLE, ...]:
    """Masks of the model's input as runs in an image of `size`."""
    if len(masks) and tuple(masks.shape[-2:]) != size:
        masks = F.interpolate(masks[:, None], size, mode="bilinear", antialias=True)[:, 0]
    return tuple(encode(mask) for mask in (masks >= MASK_THRESHOLD).cpu().numpy())


class DetectionMetrics:
    """COCO's figures of boxes, and of masks (`mask_AP`, ...) and keypoints where the model gives them.

    Scenes with what was found in them are gathered from all processes, in the order of the data set.
    """

    def __init__(self, task: DetectionTask) -> None:
        self.task = task
        self.seen: list[tuple[int, Scene, Found]] = []

    def update(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """Adds a batch with its `scenes` and `index`."""
        for place, (index, scene) in enumerate(zip(batch["index"].tolist(), batch["scenes"], strict=True)):
            self.seen.append((index, scene, found_in(outputs, place, scene.size)))

    def synchronize(self) -> None:
        """Merges what all processes saw."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            shares: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(shares, self.seen)
            self.seen = [one for share in shares for one in share]
        self.seen.sort(key=lambda one: one[0])

    def kinds(self) -> list[Kind]:
        """What can be measured: what both the detections and all objects have."""
        if not self.seen:
            raise ValueError("There is nothing to measure: not one image was seen. Is the data set empty?")
        first = self.seen[0][2]
        objects = [one for _, scene, _ in self.seen for one in scene.objects]
        kinds: list[Kind] = ["bbox"]
        if first.masks is not None and all(one.mask is not None for one in objects):
            kinds.append("segm")
        if first.keypoints is not None and any(one.keypoints is not None for one in objects):
            kinds.append("keypoints")
        return kinds

    def figures(self) -> list[CocoFigures]:
        """Returns everything that COCO measures, one entry for each kind.

        Raises:
            ValueError: Nothing was seen, or a score is not finite.
        """
        scenes, found = [scene for _, scene, _ in self.seen], [one for _, _, one in self.seen]
        count = len(self.task.class_names) or 1 + max(
            (one.label for scene in scenes for one in scene.objects), default=0
        )
        return [coco_figures(scenes, found, count, kind, sigmas=self.task.keypoint_sigmas) for kind in self.kinds()]

    def compute(self) -> dict[str, float]:
        """Returns the figures that there was something to measure for.

        Raises:
            ValueError: Nothing was seen, or a score is not finite.
        """
        prefixes = {"bbox": "", "segm": "mask_", "keypoints": "keypoint_"}
        return {
            prefixes[one.kind] + name: value
            for one in self.figures()
            for name, value in one.figures.items()
            if value is not None
        }
