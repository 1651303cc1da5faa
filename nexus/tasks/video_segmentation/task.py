"""Video segmentation: objects are pointed at in some frames, and followed through all that come after.

Dims: b clips, t frames, n objects, c channels, h w pixels.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from nexus.core.preprocessing import Preprocessing
from nexus.data import load_dataset
from nexus.data.clips.batches import ClipTransform
from nexus.data.facets import Clips
from nexus.data.transforms import AugmentConfig
from nexus.models.cv.sam2 import SAM2
from nexus.models.cv.sam2.clip_practice import ClipTargets
from nexus.ops.clicks import ClipPromptConfig
from nexus.tasks.protocol import Task
from nexus.tasks.source import evaluating, open_model
from nexus.tasks.video_segmentation.asking import asked_of, is_about_objects, read_texts
from nexus.tasks.video_segmentation.following import PROMPTS, carried, follow
from nexus.tasks.video_segmentation.metrics import VideoMetrics
from nexus.tasks.video_segmentation.report import VideoEvaluation
from nexus.tasks.video_segmentation.session import FollowingSession
from nexus.tasks.video_segmentation.tracks import TrackedFrame

if TYPE_CHECKING:
    from PIL.Image import Image

    from nexus.data import Dataset


@dataclass(frozen=True)
class VideoTask(Task):
    """Points, boxes and masks in some frames in, masks in all frames out.

    Attributes:
        class_names: Of the objects that it is measured on, for the figures of each.
        prompting: How objects are asked about in training.
        prompt: What each object is pointed at by where it is measured: "click", "box" or "mask".
        memory: Without it each frame is asked about anew by the same prompt where it is measured.
    """

    class_names: tuple[str, ...] = ()
    prompting: ClipPromptConfig = ClipPromptConfig()
    prompt: str = "click"
    memory: bool = True

    name = "video-segmentation"
    settings = ("clips",)
    headline = "J&F"

    def __post_init__(self) -> None:
        if self.prompt not in PROMPTS:
            raise ValueError(f"prompt is {self.prompt!r}; objects are pointed at by {', '.join(PROMPTS)}.")

    @classmethod
    def takes(cls, shown: Any) -> bool:
        """Whether data has clips, prompts are about objects of a video, or files are videos."""
        return isinstance(shown, Clips) or is_about_objects(shown)

    @classmethod
    def for_data(cls, model: nn.Module, dataset: "Dataset", *, tokenizer: str | Path | None = None) -> Self:
        """Returns the task that measures `model` on clips.

        Raises:
            ValueError: The data set has none.
        """
        task = super().for_model(model, _names(dataset), tokenizer=tokenizer)
        task.check_data(dataset)
        return task

    @classmethod
    def for_run(cls, model: nn.Module, dataset: "Dataset", recipe: Any) -> Self:
        """Returns the task that trains `model` by the recipe's `clips`.

        Raises:
            ValueError: The model cannot follow objects, or the recipe shards weights.
        """
        if not isinstance(model, SAM2) or model.memory is None:
            raise ValueError(
                f"Clips train a SAM 2 with its memory (video=True), not a {type(model).__name__} without one."
            )
        if recipe.training.sharding == "fsdp":  # FSDP gathers weights for `forward`, not for the stages alone
            raise ValueError("training.sharding is 'fsdp', which clips cannot use; 'none' is DDP.")
        return cls(_names(dataset), recipe.clips or ClipPromptConfig())

    def check_data(self, dataset: "Dataset") -> None:
        """Raises ValueError unless the data set has clips."""
        if not isinstance(dataset, Clips):
            raise ValueError(f"The data set {dataset.name!r} has no clips; take digit-videos or clips:PATH.")
        if not len(dataset):
            raise ValueError(f"The data set {dataset.name!r} is empty.")

    def transforms(
        self, preprocessing: Preprocessing | None, augment: AugmentConfig | None
    ) -> tuple[ClipTransform, ClipTransform]:
        """Returns what makes batches of clips."""
        if preprocessing is None:
            raise ValueError(f"A model for {self.name} needs frames, and nothing says how they become its input.")
        asked = self.prompting
        train = ClipTransform(preprocessing, augment or AugmentConfig(), asked.frames, asked.max_objects, asked.reverse)
        return train, ClipTransform(preprocessing)

    def losses(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns the model's outputs and its losses."""
        objects: Sequence[Tensor] = batch["objects"]
        clip = torch.cat([torch.full((len(one),), at, device=one.device) for at, one in enumerate(objects)])
        targets = ClipTargets(torch.cat(list(objects)), clip, self.prompting)
        outputs = model(batch["images"].flatten(0, 1), targets=targets)
        return outputs, outputs["losses"]

    def predict(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Follows the objects of the batch's `clips`. Returns `followed`, what became of those of each clip."""
        return {"followed": [follow(model, clip, prompt=self.prompt, memory=self.memory) for clip in batch["clips"]]}

    def follow(
        self, model: nn.Module, frames: Iterable["Image | np.ndarray"], mask: Bool[np.ndarray, "h w"]
    ) -> Iterator[Bool[np.ndarray, "h w"]]:
        """Yields an object's mask in each frame after the first, where it is `mask`; see `carried`."""
        return carried(model, frames, mask)

    def metrics(self) -> VideoMetrics:
        """Returns fresh figures."""
        return VideoMetrics(self.name, self.class_names, {"prompt": self.prompt, "memory": self.memory})

    def session(self, model: nn.Module, prompts: Any = None) -> FollowingSession:
        """Returns the model ready to be shown a video, frame by frame.

        Args:
            model: A `nexus.models.cv.SAM2`.
            prompts: By number of an object a mapping of `frame` (from 0) with `points` (n, 2) and their `labels` (n,)
                (1 of the object, 0 not), `boxes` (4,) or `masks` (h, w), in pixels of the frames as given, or a list
                of such mappings. A mapping alone is about object 1. Without prompts it can be measured.

        Raises:
            ValueError: They are none of these.
        """
        return FollowingSession(self, model, None if prompts is None else asked_of(prompts))

    def read_prompts(self, texts: Sequence[str]) -> Any:
        """Returns the prompts that a command line writes; see `read_texts`."""
        return read_texts(texts)

    def draw(self, image: "Image", result: TrackedFrame) -> "Image":
        """Returns the frame with the masks drawn on it."""
        return result.draw_on(image)


def _names(dataset: Any) -> tuple[str, ...]:
    return tuple(getattr(dataset, "class_names", ()))


def follow_clips(
    model: nn.Module | str | Path, data: Any, *, split: str = "val", prompt: str = "click", memory: bool = True
) -> VideoEvaluation:
    """Returns what `nexus.evaluate` does, with objects pointed at otherwise.

    Args:
        model: As `evaluate` takes it.
        data: Clips, or the name of such a data set.
        split: Which part of a data set that is named.
        prompt: What each object is pointed at by in the first frame that shows it: "click", in its middle, "box" or
            "mask".
        memory: Without it nothing is remembered from frame to frame, and the same prompt is asked about each: what a
            model of images would do.
    """
    module = open_model(model)
    dataset = load_dataset(data, split) if isinstance(data, str) else data
    task = replace(VideoTask.for_data(module, dataset), prompt=prompt, memory=memory)
    metrics = task.metrics()
    with evaluating(module):
        for place in range(len(dataset)):
            batch = {"clips": [dataset[place]], "index": torch.tensor([place])}
            metrics.update(task.predict(module, batch), batch)
    return metrics.report(dataset)
