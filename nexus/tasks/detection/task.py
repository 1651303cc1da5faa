"""Detection: boxes with classes, and masks or keypoints where the model has them.

Dims: b batch, c channels, h w pixels, n objects, j keypoints, s side of a small mask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.preprocessing import Preprocessing
from nexus.data.detection.batches import DetectionTransform
from nexus.data.detection.scene import all_labels
from nexus.data.facets import Annotated, class_names_of
from nexus.data.transforms import AugmentConfig
from nexus.tasks.detection.detections import Detections
from nexus.tasks.detection.explain import METHODS, found_object
from nexus.tasks.detection.merging import merge_tiles
from nexus.tasks.detection.metrics import DetectionMetrics
from nexus.tasks.detection.outputs import found_in
from nexus.tasks.protocol import Task
from nexus.tasks.question import Method, Question
from nexus.tasks.tiles import Window
from nexus.tasks.views import ImageInfo

if TYPE_CHECKING:
    from PIL.Image import Image

    from nexus.data import Dataset


@dataclass(frozen=True)
class DetectionTask(Task):
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

    @classmethod
    def for_data(cls, model: nn.Module, dataset: "Dataset", *, tokenizer: str | Path | None = None) -> Self:
        """Returns the task with the classes of the data, which must be the model's, in the same order."""
        own, names = cls.for_model(model, tokenizer=tokenizer).class_names, class_names_of(dataset)
        cls(names).check_data(dataset)
        if own and own != names:
            pairs = enumerate(zip(own, names))
            first = next((f"class {k} is {a!r} and {b!r}" for k, (a, b) in pairs if a != b), "one has more")
            raise ValueError(
                f"The model has {len(own)} classes and {dataset.name} has {len(names)}, and they differ: {first}."
            )
        return cls(names)

    def check_data(self, dataset: "Dataset") -> None:
        """Raises ValueError if the data set has no annotated objects, or one whose label has no class."""
        if not isinstance(dataset, Annotated):
            raise ValueError(
                f"The data set {dataset.name!r} has no objects in its images; a detector needs boxes, as in"
                " 'digit-scenes' or 'coco:PATH'."
            )
        labels, count = all_labels(dataset.annotations.scenes), len(self.class_names or dataset.class_names)
        if len(labels) == 0:
            raise ValueError(
                f"The data set {dataset.name!r} has no object in any of its {len(dataset)} images; see what"
                " `nexus data check` says of it."
            )
        if labels.min() < 0 or labels.max() >= count:
            raise ValueError(
                f"The data set {dataset.name!r} has labels from {labels.min()} to {labels.max()}, and the model has"
                f" {count} classes, 0 to {count - 1}. Create the model with num_classes={labels.max() + 1}."
            )

    def transforms(
        self, preprocessing: Preprocessing | None, augment: AugmentConfig | None
    ) -> tuple[DetectionTransform, DetectionTransform]:
        """Returns what makes batches of images with their objects."""
        if preprocessing is None:
            raise ValueError("A detector needs images, and nothing says how they become its input.")
        return DetectionTransform(preprocessing, augment or AugmentConfig()), DetectionTransform(preprocessing)

    def losses(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns the model's outputs and its losses; `targets` of the batch are those of `DetectionTransform`."""
        images: Float[Tensor, "b c h w"] = batch["images"]
        outputs = model(images, batch["targets"], image_sizes=batch["image_sizes"])
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
        return DetectionMetrics(self.name, self.class_names, self.keypoint_sigmas)

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

    def merge_tiles(
        self, parts: Sequence[Detections], info: ImageInfo, windows: Sequence[Window], match: float
    ) -> Detections:
        """Returns what was found in an image, of what was found in its windows."""
        return merge_tiles(parts, info, windows, match)

    def explanations(self) -> Mapping[str, Method]:
        """Returns the methods that show what a detector looked at."""
        return METHODS

    def answer(self, question: Question) -> str:
        """Returns in a sentence which object is explained."""
        return found_object(question)
