"""Figures of a model over a data set."""

from nexus.evaluation.classification import Answer, ClassScores, Evaluation
from nexus.evaluation.evaluate import evaluate

__all__ = ["Answer", "ClassScores", "Evaluation", "evaluate"]
