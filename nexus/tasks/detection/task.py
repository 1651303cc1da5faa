"""Detection: boxes with classes, and masks or keypoints where the model has them.

Dims: b batch, c channels, h w pixels, n objects, j keypoints, s side of a small mask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from nexus.tasks.detection.detections import Detections
from nexus.tasks.detection.metrics import DetectionMetrics
from nexus.tasks.detection.outputs import found_in
from nexus.tasks.protocol import ImageInfo

if TYPE_CHECKING:
    from PIL.Image import Image

    from nexus.data import Dataset


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

    def metrics(self) -> DetectionMetrics:
        """Returns fresh figures."""
        return DetectionMetrics(self.class_names, self.keypoint_sigmas)

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
