"""What an evaluation of a detector says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nexus.tasks.detection.coco_figures import CocoFigures
from nexus.tasks.report import Report

PREFIXES = {"bbox": "", "segm": "mask_", "keypoints": "keypoint_"}
"""What the figures of each kind are called: `AP` of boxes, `mask_AP`, `keypoint_AP`."""


def named_figures(figures: Sequence[CocoFigures]) -> dict[str, float | None]:
    """Returns all figures by name; None means that nothing was there to measure."""
    return {PREFIXES[one.kind] + name: value for one in figures for name, value in one.figures.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionEvaluation(Report):
    """A detector's figures on a data set.

    Attributes:
        figures: COCO's figures of boxes, and of masks and keypoints where the model gives them.
    """

    figures: tuple[CocoFigures, ...]

    @property
    def per_class(self) -> Sequence[Mapping[str, Any]]:
        """`AP` of each class, of each kind."""
        return [
            {"name": name, **{f"{PREFIXES[one.kind]}AP": one.per_class[label] for one in self.figures}}
            for label, name in enumerate(self.class_names)
        ]
