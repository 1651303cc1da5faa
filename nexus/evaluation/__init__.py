"""Figures of a model over a data set."""

from nexus.evaluation.detection import DetectionEvaluation, evaluate_detector
from nexus.evaluation.evaluate import evaluate
from nexus.evaluation.features import Features, LinearProbe, Probe, extract_features, knn_scores, probe
from nexus.evaluation.retrieval import RetrievalEvaluation, evaluate_retrieval
from nexus.tasks.classification.report import Answer, ClassScores, Evaluation
from nexus.tasks.detection.coco_results import evaluate_coco

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
