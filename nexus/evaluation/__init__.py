"""Figures of a model over a data set."""

from typing import Any

from nexus.evaluation.evaluate import evaluate
from nexus.evaluation.features import Features, LinearProbe, Probe, extract_features, knn_scores, probe
from nexus.evaluation.surfaces import SurfaceDistances, dice, surface_distances
from nexus.evaluation.volumes import compare_masks
from nexus.ops.contours import ClipScores, clip_scores, contour_accuracy, region_similarity
from nexus.tasks.report import Report
from nexus.tasks.table import offered

__all__ = [
    "ClipScores",
    "Features",
    "LinearProbe",
    "Probe",
    "Report",
    "SurfaceDistances",
    "clip_scores",
    "compare_masks",
    "contour_accuracy",
    "dice",
    "evaluate",
    "extract_features",
    "knn_scores",
    "probe",
    "region_similarity",
    "surface_distances",
]


def __getattr__(name: str) -> Any:
    """Returns what a kind of model offers to evaluation alone, such as `evaluate_coco`."""
    return offered(name)
