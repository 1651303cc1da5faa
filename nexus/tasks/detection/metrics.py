"""COCO's figures of a detector, gathered batch by batch on every process."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nexus.data.detection.coco import numbered
from nexus.data.detection.scene import Scene
from nexus.data.facets import Annotated
from nexus.tasks.detection.coco_figures import CocoFigures, Found, Kind, coco_figures
from nexus.tasks.detection.detections import Detections
from nexus.tasks.detection.outputs import found_in
from nexus.tasks.detection.report import DetectionEvaluation, named_figures
from nexus.tasks.distributed import gather_over_processes

if TYPE_CHECKING:
    from nexus.data import Dataset


class DetectionMetrics:
    """COCO's figures of boxes, and of masks (`mask_AP`, ...) and keypoints where the model gives them.

    Scenes with what was found in them are gathered from all processes, in the order of the data set.
    """

    def __init__(self, name: str, class_names: Sequence[str], keypoint_sigmas: Sequence[float] | None = None) -> None:
        self.name = name
        self.class_names, self.keypoint_sigmas = tuple(class_names), keypoint_sigmas
        self.seen: list[tuple[int, Scene, Found]] = []

    def update(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """Adds a batch with its `scenes` and `index`."""
        for place, (index, scene) in enumerate(zip(batch["index"].tolist(), batch["scenes"], strict=True)):
            self.seen.append((index, scene, found_in(outputs, place, scene.size)))

    def synchronize(self) -> None:
        """Merges what all processes saw."""
        self.seen = gather_over_processes(self.seen)
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
        count = len(self.class_names) or 1 + max((one.label for scene in scenes for one in scene.objects), default=0)
        return [coco_figures(scenes, found, count, kind, sigmas=self.keypoint_sigmas) for kind in self.kinds()]

    def compute(self) -> dict[str, float]:
        """Returns the figures that there was something to measure for.

        Raises:
            ValueError: Nothing was seen, or a score is not finite.
        """
        return {name: value for name, value in named_figures(self.figures()).items() if value is not None}

    def report(self, dataset: "Dataset") -> DetectionEvaluation:
        """Returns all figures; those that nothing was there to measure for are None."""
        figures = tuple(self.figures())
        return DetectionEvaluation(
            data=dataset.name,
            task=self.name,
            class_names=self.class_names,
            num_images=len(self.seen),
            metrics=named_figures(figures),
            figures=figures,
            truth=[scene for _, scene, _ in self.seen],
            results=self._results(dataset),
        )

    def _results(self, dataset: "Dataset") -> list[Detections]:
        """What was found in each image, with the numbers of the data set."""
        known, ids = {}, ()
        if isinstance(dataset, Annotated):
            known = {scene.path: number for number, scene in numbered(dataset.annotations.scenes)}
            ids = dataset.annotations.class_ids
        names = self.class_names or tuple(map(str, range(len(ids))))
        return [
            Detections(scene.path, *scene.size, found, names, image_id=known.get(scene.path), class_ids=ids)
            for _, scene, found in self.seen
        ]
