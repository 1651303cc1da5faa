"""Promptable segmentation: an image is asked about by points, boxes and masks, and answers with masks.

Dims: b images, c channels, h w pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

from torch import nn

from nexus.core.preprocessing import Preprocessing
from nexus.data.detection.batches import DetectionTransform
from nexus.data.detection.scene import Object, Scene
from nexus.data.facets import Annotated
from nexus.data.transforms import AugmentConfig
from nexus.models.cv.sam import SAM
from nexus.tasks.promptable.asking import prompts_of, read_texts
from nexus.tasks.promptable.encoded import Encoded, Frame, SamClicker
from nexus.tasks.promptable.metrics import PromptMetrics
from nexus.tasks.promptable.picture import filled_up
from nexus.tasks.promptable.rounds import click_through
from nexus.tasks.promptable.segments import Segments
from nexus.tasks.promptable.session import PromptSession
from nexus.tasks.protocol import Task

if TYPE_CHECKING:
    from PIL.Image import Image

    from nexus.data import Dataset


@dataclass(frozen=True)
class PromptableTask(Task):
    """Points, boxes and masks in, masks out.

    Attributes:
        class_names: Of the objects that it is measured on, for the figures of each; what a mask shows has no name.
    """

    class_names: tuple[str, ...] = ()

    name = "promptable-segmentation"
    headline = "mIoU_1"

    @classmethod
    def for_data(cls, model: nn.Module, dataset: "Dataset", *, tokenizer: str | Path | None = None) -> Self:
        """Returns the task that measures `model` on a data set.

        Raises:
            ValueError: The data set has no masks.
        """
        task = super().for_data(model, dataset, tokenizer=tokenizer)
        task.check_data(dataset)
        return task

    @classmethod
    def for_run(cls, model: nn.Module, dataset: "Dataset", recipe: Any) -> NoReturn:
        """Raises ValueError: these models are asked and measured here, not trained."""
        raise ValueError(f"A model for {cls.name} cannot be trained here.")

    def check_data(self, dataset: "Dataset") -> None:
        """Raises ValueError unless the data set has objects, and each of them a mask; crowds do not count."""
        if not isinstance(dataset, Annotated):
            raise ValueError(
                f"The data set {dataset.name!r} has no objects in its images; a model for {self.name} needs their"
                " masks, as in 'digit-scenes' or 'coco:PATH'."
            )
        objects = [(scene, one) for scene in dataset.annotations.scenes for one in scene.objects if not one.crowd]
        if not objects:
            raise ValueError(
                f"The data set {dataset.name!r} has no object in any of its {len(dataset)} images; see what"
                " `nexus data check` says of it."
            )
        self._check_masks(dataset.name, objects)

    def _check_masks(self, name: str, objects: Sequence[tuple[Scene, Object]]) -> None:
        without = [scene.path for scene, one in objects if one.mask is None]
        if len(without) == len(objects):
            raise ValueError(
                f"The data set {name!r} has boxes and no masks; a model for {self.name} learns from the objects'"
                " outlines, and is measured by them: draw them, or use data that has them."
            )
        if without:
            raise ValueError(
                f"{len(without)} of the {len(objects)} objects of the data set {name!r} have no mask, the first of them"
                f" in {without[0]}; draw it, or leave these objects out."
            )

    def transforms(
        self, preprocessing: Preprocessing | None, augment: AugmentConfig | None
    ) -> tuple[DetectionTransform, DetectionTransform]:
        """Returns what makes batches of images with their objects."""
        if preprocessing is None:
            raise ValueError(f"A model for {self.name} needs images, and nothing says how they become its input.")
        return DetectionTransform(preprocessing, augment or AugmentConfig()), DetectionTransform(preprocessing)

    def predict(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Asks about the objects of the batch's `scenes` click by click.

        Returns `clicked`, what became of the objects of each image; see `click_through`.
        """
        sam = cast("SAM", model)
        images = filled_up(batch["images"], sam.config.image_size)
        embeddings = sam.image_encoder(images)
        sides = (images.shape[2], images.shape[3])
        looked = zip(embeddings.split(1), batch["image_sizes"], batch["scenes"], strict=True)
        clicked = [
            click_through(sam, Encoded(embedding, Frame(sides, size, scene.size)), scene)
            for embedding, size, scene in looked
        ]
        return {"clicked": clicked}

    def metrics(self) -> PromptMetrics:
        """Returns fresh figures."""
        return PromptMetrics(self.name, self.class_names)

    def session(self, model: nn.Module, prompts: Any = None) -> PromptSession:
        """Returns the model ready to be asked.

        Args:
            model: A `nexus.models.cv.SAM`.
            prompts: For all images, or a list with one for each: a mapping of `points` (n, 2), their `labels` (n,) (1
                of the object, 0 not), `boxes` (4,), `masks` (h, w), with a dimension in front for several prompts, in
                pixels of the image as given; or "everything", or `Everything`. A single point may mean several things:
                the best of three masks is returned, all with `multimask=True` in the mapping. Without prompts it can
                be measured (`outputs`), and answers nothing.

        Raises:
            ValueError: They are none of these.
        """
        questions = None if prompts is None else prompts_of(prompts)
        return PromptSession(self, cast("SAM", model), questions)

    def clicker(self, model: nn.Module) -> SamClicker:
        """Returns the model ready to encode images once and to answer clicks on them."""
        return SamClicker(model)  # pyrefly: ignore[bad-argument-type]

    def read_prompts(self, texts: Sequence[str]) -> Any:
        """Returns the one prompt that a command line writes; see `read_texts`."""
        return read_texts(texts)

    def draw(self, image: "Image", result: Segments) -> "Image":
        """Returns the image with the masks drawn on it."""
        return result.draw_on(image)
