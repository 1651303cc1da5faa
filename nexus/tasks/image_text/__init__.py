"""Images and texts: which text belongs to which image."""

from nexus.tasks.image_text.retrieval import RetrievalMetrics, retrieval_recall
from nexus.tasks.image_text.task import ImageTextTask

__all__ = ["ImageTextTask", "RetrievalMetrics", "retrieval_recall"]
