"""Promptable segmentation: an image is asked about by points, boxes and masks, and answers with masks.

Dims: b images, c channels, h w pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from nexus.core.preprocessing import Preprocessing
from nexus.data.detection.batches import DetectionTransform
from nexus.data.detection.scene import Object, Scene
from nexus.data.facets import Annotated, class_names_of
from nexus.data.transforms import AugmentConfig
from nexus.models.cv.medsam import MedSAM
from nexus.models.cv.sam import SAM, Targets
from nexus.models.cv.sam.segmenter import Segmenter, images_of
from nexus.ops.clicks import PromptConfig
from nexus.tasks.promptable.asking import prompts_of, read_texts
from nexus.tasks.promptable.encoded import Encoded, Frame, SamClicker
from nexus.tasks.promptable.explain import METHODS, answer_of
from nexus.tasks.promptable.metrics import PromptMetrics
from nexus.tasks.promptable.picture import filled_up
from nexus.tasks.promptable.rounds import click_through
from nexus.tasks.promptable.segments import Segments
from nexus.tasks.promptable.session import PromptSession
from nexus.tasks.protocol import Task
from nexus.tasks.question import Method, Question

if TYPE_CHECKING:
    from PIL.Image import Image

    from nexus.data import Dataset


@dataclass(frozen=True)
class PromptableTask(Task):
    """Points, boxes and masks in, masks out.

    Attributes:
        class_names: Of the objects that it is measured on, for the figures of each; what a mask shows has no name.
        prompting: How objects are asked about in training.
    """

    class_names: tuple[str, ...] = ()
    prompting: PromptConfig = PromptConfig()

    name = "promptable-segmentation"
    settings = ("prompts",)
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
    def for_run(cls, model: nn.Module, dataset: "Dataset", recipe: Any) -> Self:
        """Returns the task that trains `model` by the recipe's `prompts`.

        Raises:
            ValueError: The model is trained otherwise, or the recipe shards weights.
        """
        if isinstance(model, Segmenter) and not isinstance(model, SAM):
            raise ValueError(
                f"Clicks on still images train a SAM; a {type(model).__name__} learns from clips, such as digit-videos."
            )
        if isinstance(model, MedSAM) or not isinstance(model, SAM):
            raise ValueError(
                f"Clicks and corrections train a SAM, not a {type(model).__name__}; load its weights as a SAM"
                " (model.name=sam_vit_base, model.checkpoint=FILE) to go on with them."
            )
        if recipe.training.sharding == "fsdp":  # FSDP gathers weights for `forward`, not to encode an image alone
            raise ValueError("training.sharding is 'fsdp', which a promptable segmenter cannot use; 'none' is DDP.")
        return cls(class_names_of(dataset), recipe.prompts or PromptConfig())

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

    def losses(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns the model's outputs and its losses; `targets` of the batch are those of `DetectionTransform`."""
        sam = cast("SAM", getattr(model, "module", model))  # DDP's is inside
        images = filled_up(batch["images"], sam.config.image_size)
        chosen = [drawn(target["masks"] > 0, self.prompting.max_objects) for target in batch["targets"]]
        masks = [filled_up(one[None], sam.config.image_size)[0] for one in chosen]
        image = torch.cat([torch.full((len(one),), place, device=one.device) for place, one in enumerate(masks)])
        outputs = model(images, targets=Targets(torch.cat(masks), image, self.prompting))
        return outputs, outputs["losses"]

    def predict(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Asks about the objects of the batch's `scenes` click by click.

        Returns `clicked`, what became of the objects of each image; see `click_through`.
        """
        sam = cast("Segmenter", model)
        images = filled_up(batch["images"], sam.config.image_size)
        embeddings = images_of(sam.encode(images))
        sides = (images.shape[2], images.shape[3])
        looked = zip(embeddings, batch["image_sizes"], batch["scenes"], strict=True)
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
            model: A `nexus.models.cv.SAM`, `MedSAM` or `SAM2`.
            prompts: For all images, or a list with one for each: a mapping of `points` (n, 2), their `labels` (n,) (1
                of the object, 0 not), `boxes` (4,), `masks` (h, w), with a dimension in front for several prompts, in
                pixels of the image as given; or "everything", or `Everything`. A single point may mean several things:
                the best of three masks is returned, all with `multimask=True` in the mapping. Without prompts it can
                be measured (`outputs`), and answers nothing.

        Raises:
            ValueError: They are none of these.
        """
        questions = None if prompts is None else prompts_of(prompts)
        return PromptSession(self, cast("Segmenter", model), questions)

    def clicker(self, model: nn.Module) -> SamClicker:
        """Returns the model ready to encode images once and to answer clicks on them."""
        return SamClicker(model)  # pyrefly: ignore[bad-argument-type]

    def read_prompts(self, texts: Sequence[str]) -> Any:
        """Returns the one prompt that a command line writes; see `read_texts`."""
        return read_texts(texts)

    def explanations(self) -> Mapping[str, Method]:
        """Returns the methods that show what the mask decoder looks at."""
        return METHODS

    def answer(self, question: Question) -> str:
        """Returns in a sentence how the prompt of a question is answered."""
        return answer_of(question)

    def draw(self, image: "Image", result: Segments) -> "Image":
        """Returns the image with the masks drawn on it."""
        return result.draw_on(image)


def drawn(masks: Bool[Tensor, "n h w"], most: int) -> Bool[Tensor, "_ h w"]:
    """Returns the masks of an image, or of more than `most` as many at random."""
    return masks if len(masks) <= most else masks[torch.randperm(len(masks), device=masks.device)[:most]]
