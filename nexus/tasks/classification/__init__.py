"""Classification: one class per image."""

from nexus.tasks.classification.prediction import Guess, Prediction
from nexus.tasks.classification.report import Answer, ClassScores, Evaluation
from nexus.tasks.classification.task import ClassificationTask

__all__ = ["Answer", "ClassScores", "ClassificationTask", "Evaluation", "Guess", "Prediction"]
