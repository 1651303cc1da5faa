"""Conversation: a question about an image in, an answer in words out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

from nexus.core.preprocessing import Preprocessing
from nexus.data.conversations import ConversationTransform
from nexus.data.transforms import AugmentConfig
from nexus.tasks.conversation.answer import Answer
from nexus.tasks.conversation.measuring import ConversationMetrics
from nexus.tasks.conversation.reading import Reader
from nexus.tasks.conversation.session import QuestionSession, Writing, as_model, no_question
from nexus.tasks.protocol import Task

if TYPE_CHECKING:
    from PIL.Image import Image

    from nexus.data import Dataset


@dataclass(frozen=True)
class ConversationTask(Task):
    """Questions and answers.

    Attributes:
        class_names: There are none.
        tokenizer: A folder or a repository; None is the model's own.
        writing: How answers are written.
    """

    class_names: tuple[str, ...] = ()
    tokenizer: str | Path | None = None
    writing: Writing = Writing()

    name = "conversation"
    headline = "exact_match"

    @classmethod
    def for_model(
        cls, model: nn.Module, class_names: Sequence[str] = (), *, tokenizer: str | Path | None = None
    ) -> Self:
        """Returns the task that asks `model`."""
        return cls(tokenizer=tokenizer)

    @classmethod
    def for_data(cls, model: nn.Module, dataset: "Dataset", *, tokenizer: str | Path | None = None) -> Self:
        """Returns the task that measures `model` on conversations.

        Raises:
            ValueError: The data set has none.
        """
        ConversationTransform().check_dataset(dataset)
        return cls(tokenizer=tokenizer)

    @classmethod
    def for_run(cls, model: nn.Module, dataset: "Dataset", recipe: Any) -> Self:
        """Raises ValueError: these models are not trained yet."""
        raise ValueError("A model for conversation is not trained here yet; its losses are `model(..., labels=)`.")

    def transforms(
        self, preprocessing: Preprocessing | None, augment: AugmentConfig | None
    ) -> tuple[ConversationTransform, ConversationTransform]:
        """Returns what makes batches of conversations; their images are cut into tiles where they are read."""
        return ConversationTransform(), ConversationTransform()

    def losses(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns the model's outputs and its loss of the next words."""
        outputs = model(batch["images"], batch["tokens"], batch["places"], labels=batch["labels"])
        return outputs, outputs["losses"]

    def metrics(self) -> ConversationMetrics:
        """Returns fresh figures."""
        return ConversationMetrics(self.name)

    def session(self, model: nn.Module, prompts: Any = None) -> QuestionSession:
        """Returns the model ready to be shown images.

        Args:
            model: An InternVL.
            prompts: A question for all images, or a list with one for each. Without any it can be measured
                (`outputs`), and answers nothing.

        Raises:
            ValueError: These are no questions, or there is no tokenizer that fits.
        """
        questions = [prompts] if isinstance(prompts, str) else prompts
        good = isinstance(questions, list | tuple) and all(isinstance(one, str) and one.strip() for one in questions)
        if prompts is not None and not (questions and good):
            raise no_question(prompts)
        pair = as_model(model)
        return QuestionSession(pair, Reader(pair, self.tokenizer), prompts, self.writing)

    def read_prompts(self, texts: Sequence[str]) -> str:
        """Returns the question that a command line writes; several are one question of several lines."""
        return "\n".join(texts)

    def draw(self, image: "Image", result: Answer) -> "Image":
        """Returns the image with question and answer under it."""
        return result.draw_on(image)
