"""Conversation: a question about an image in, an answer in words out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

from nexus.tasks.conversation.answer import Answer
from nexus.tasks.conversation.reading import Reader
from nexus.tasks.conversation.session import QuestionSession, Writing, as_model
from nexus.tasks.protocol import Metrics, Task

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
        """Raises ValueError: these models are not measured yet."""
        raise ValueError("A model for conversation is not measured on a data set yet; ask it with predict or chat.")

    @classmethod
    def for_run(cls, model: nn.Module, dataset: "Dataset", recipe: Any) -> Self:
        """Raises ValueError: these models are not trained yet."""
        raise ValueError("A model for conversation is not trained here yet; its losses are `model(..., labels=)`.")

    def losses(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns the model's outputs and its loss of the next words."""
        outputs = model(batch["images"], batch["tokens"], batch["places"], labels=batch["labels"])
        return outputs, outputs["losses"]

    def metrics(self) -> Metrics:
        """Raises ValueError: these models are not measured yet."""
        raise ValueError("A model for conversation is not measured on a data set yet; ask it with predict or chat.")

    def session(self, model: nn.Module, prompts: Any = None) -> QuestionSession:
        """Returns the model ready to be shown images.

        Args:
            model: An InternVL.
            prompts: A question for all images, or a list with one for each.

        Raises:
            ValueError: There is no question, or no tokenizer that fits.
        """
        questions = [prompts] if isinstance(prompts, str) else prompts
        good = isinstance(questions, list | tuple) and all(isinstance(one, str) and one.strip() for one in questions)
        if not questions or not good:
            raise ValueError(
                f"prompts are {prompts!r:.80}; ask a question, prompts='How many cats are there?', or nexus predict"
                " --prompt 'How many cats are there?'."
            )
        pair = as_model(model)
        return QuestionSession(pair, Reader(pair, self.tokenizer), prompts, self.writing)

    def read_prompts(self, texts: Sequence[str]) -> str:
        """Returns the question that a command line writes; several are one question of several lines."""
        return "\n".join(texts)

    def draw(self, image: "Image", result: Answer) -> "Image":
        """Returns the image with question and answer under it."""
        return result.draw_on(image)
