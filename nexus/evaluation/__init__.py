"""Figures of a model over a data set."""

from nexus.evaluation.classification import Answer, ClassScores, Evaluation
from nexus.evaluation.coco import evaluate_coco
from nexus.evaluation.detection import DetectionEvaluation, evaluate_detector
from nexus.evaluation.evaluate import evaluate
from nexus.evaluation.features import Features, LinearProbe, Probe, extract_features, knn_scores, probe
from nexus.evaluation.retrieval import RetrievalEvaluation, evaluate_retrieval

__all__ = [
    "Answer",
    "ClassScores",
    "DetectionEvaluation",
    "Evaluation",
    "Features",
    "LinearProbe",
    "Probe",
    "RetrievalEvaluation",
    "evaluate",
    "evaluate_coco",
    "evaluate_detector",
    "evaluate_retrieval",
    "extract_features",
    "knn_scores",
    "probe",
]
