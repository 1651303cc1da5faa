"""J and F of objects that were followed, gathered clip by clip on every process."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nexus.tasks.distributed import gather_over_processes
from nexus.tasks.video_segmentation.following import Followed, mean_scores
from nexus.tasks.video_segmentation.report import VideoEvaluation

if TYPE_CHECKING:
    from nexus.data import Dataset


class VideoMetrics:
    """The means over all objects of J and F, and of both (`J&F`).

    Args:
        name: Of the task.
        class_names: Of the data's objects, for the figures of each.
        settings: What the figures hold for.
    """

    def __init__(self, name: str, class_names: Sequence[str], settings: Mapping[str, Any]) -> None:
        self.name, self.class_names, self.settings = name, tuple(class_names), dict(settings)
        self.seen: list[tuple[int, str, list[Followed]]] = []

    def update(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """Adds a batch with its `clips` and `index`, and `followed`, what became of the objects of each clip."""
        paths = [clip.path for clip in batch["clips"]]
        self.seen += zip(batch["index"].tolist(), paths, outputs["followed"], strict=True)

    def synchronize(self) -> None:
        """Merges what all processes saw."""
        self.seen = gather_over_processes(self.seen)
        self.seen.sort(key=lambda one: one[0])

    def compute(self) -> dict[str, float]:
        """Returns the means, from 0 to 1.

        Raises:
            ValueError: No object was seen in a frame that counts.
        """
        objects = [one for _, _, followed in self.seen for one in followed]
        if not objects:
            raise ValueError(
                "There is nothing to measure: no object has an annotated frame after the one that shows it first and"
                " before the last. Do the clips have masks in all frames?"
            )
        return mean_scores(objects)

    def report(self, dataset: "Dataset") -> VideoEvaluation:
        """Returns the figures with what became of each object."""
        return VideoEvaluation(
            data=dataset.name,
            task=self.name,
            class_names=self.class_names,
            num_images=len(self.seen),
            metrics=self.compute(),
            settings=dict(self.settings),
            paths=[path for _, path, _ in self.seen],
            followed=[followed for _, _, followed in self.seen],
        )
