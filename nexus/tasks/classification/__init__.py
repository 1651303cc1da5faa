"""Classification: one class per image."""

from nexus.tasks.classification.prediction import Guess, Prediction
from nexus.tasks.classification.report import Answer, ClassScores, Evaluation
from nexus.tasks.classification.task import ClassificationTask

TASK = ClassificationTask
OFFERS = {"Answer": Answer, "ClassScores": ClassScores, "Evaluation": Evaluation}
"""What evaluation has of this kind alone."""

__all__ = ["TASK", "Answer", "ClassScores", "ClassificationTask", "Evaluation", "Guess", "Prediction"]
