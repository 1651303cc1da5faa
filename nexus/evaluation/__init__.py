"""Figures of a model over a data set."""

from nexus.evaluation.classification import Answer, ClassScores, Evaluation
from nexus.evaluation.evaluate import evaluate
from nexus.evaluation.features import Features, LinearProbe, Probe, extract_features, knn_scores, probe

__all__ = [
    "Answer",
    "ClassScores",
    "Evaluation",
    "Features",
    "LinearProbe",
    "Probe",
    "evaluate",
    "extract_features",
    "knn_scores",
    "probe",
]
