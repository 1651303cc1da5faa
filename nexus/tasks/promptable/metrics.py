"""How well masks fit after so many clicks, gathered batch by batch on every process."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nexus.data.detection.scene import Scene
from nexus.tasks.distributed import gather_over_processes
from nexus.tasks.promptable.report import PromptableEvaluation
from nexus.tasks.promptable.rounds import Clicked, mean_ious
from nexus.tasks.promptable.segments import Segment, Segments

if TYPE_CHECKING:
    from nexus.data import Dataset


class PromptMetrics:
    """The mean over all objects of the IoU after 1, 3 and 5 clicks (`mIoU_1`, ...), and of a box's mask (`mIoU_box`);
    of a model that answers boxes alone, of the latter.

    Args:
        name: Of the task.
        class_names: Of the data's objects, for the figures of each.
    """

    def __init__(self, name: str, class_names: Sequence[str] = ()) -> None:
        self.name, self.class_names = name, tuple(class_names)
        self.seen: list[tuple[int, Scene, list[Clicked]]] = []

    def update(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """Adds a batch with its `scenes` and `index`, and `clicked`, what became of the objects of each image."""
        self.seen += zip(batch["index"].tolist(), batch["scenes"], outputs["clicked"], strict=True)

    def synchronize(self) -> None:
        """Merges what all processes saw."""
        self.seen = gather_over_processes(self.seen)
        self.seen.sort(key=lambda one: one[0])

    def compute(self) -> dict[str, float]:
        """Returns the means, from 0 to 1.

        Raises:
            ValueError: No object was seen.
        """
        objects = [one for _, _, clicked in self.seen for one in clicked]
        if not objects:
            raise ValueError("There is nothing to measure: not one object with a mask was seen. Is the data set empty?")
        return mean_ious(objects)

    def report(self, dataset: "Dataset") -> PromptableEvaluation:
        """Returns the figures with what became of each object."""
        return PromptableEvaluation(
            data=dataset.name,
            task=self.name,
            class_names=self.class_names,
            num_images=len(self.seen),
            metrics=self.compute(),
            clicked=[clicked for _, _, clicked in self.seen],
            results=[_last(scene, clicked) for _, scene, clicked in self.seen],
        )


def _last(scene: Scene, clicked: Sequence[Clicked]) -> Segments:
    """The last masks, in the order of the objects."""
    segments = [Segment(one.last, one.score, number) for number, one in enumerate(clicked)]
    return Segments(scene.path, *scene.size, tuple(segments))
