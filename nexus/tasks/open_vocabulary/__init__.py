"""Detection of whatever words name."""

from nexus.tasks.open_vocabulary.phrases import CaptionPrompt
from nexus.tasks.open_vocabulary.task import OpenVocabularyTask

TASK = OpenVocabularyTask

__all__ = ["TASK", "CaptionPrompt", "OpenVocabularyTask"]
