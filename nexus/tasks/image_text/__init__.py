"""Images and texts: which text belongs to which image."""

from nexus.tasks.image_text.report import RetrievalEvaluation
from nexus.tasks.image_text.retrieval import RetrievalMetrics, retrieval_recall
from nexus.tasks.image_text.task import ImageTextTask

TASK = ImageTextTask
OFFERS = {"RetrievalEvaluation": RetrievalEvaluation}
"""What evaluation has of this kind alone."""

__all__ = ["TASK", "ImageTextTask", "RetrievalEvaluation", "RetrievalMetrics", "retrieval_recall"]
