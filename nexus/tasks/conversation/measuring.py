"""Exact match: how many answers are those of the data to the letter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from nexus.tasks.distributed import gather_over_processes
from nexus.tasks.report import Report

if TYPE_CHECKING:
    from nexus.data import Dataset


class Judged(NamedTuple):
    """A question, what was answered, and what the data says.

    Attributes:
        path: Of the first image.
        question: The turn before the answer.
        answer: Of the model.
        wanted: The answer of the data.
    """

    path: str
    question: str
    answer: str
    wanted: str

    @property
    def right(self) -> bool:
        """Whether both answers are the same but for white space."""
        return self.answer.split() == self.wanted.split()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ConversationEvaluation(Report):
    """How many questions are answered as the data answers them.

    Attributes:
        judged: Each answer.
    """

    judged: Sequence[Judged] = field(default=(), repr=False)

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Returns the figures and the first answers that are wrong."""
        wrong = [one._asdict() for one in self.judged if not one.right][:10]
        return super().tables() | ({"wrong answers": wrong} if wrong else {})

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain values that JSON can hold."""
        return {**super().to_json(), "answers": [{**one._asdict(), "right": one.right} for one in self.judged]}


class ConversationMetrics:
    """The share of answers that are right (`exact_match`), gathered batch by batch on every process.

    Args:
        name: Of the task.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[tuple[int, list[Judged]]] = []

    def update(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """Adds a batch with its `index`, and `judged`, the answers in each conversation."""
        self.seen += zip(batch["index"].tolist(), outputs["judged"], strict=True)

    def synchronize(self) -> None:
        """Merges what all processes saw."""
        self.seen = sorted(gather_over_processes(self.seen), key=lambda one: one[0])

    def compute(self) -> dict[str, float]:
        """Returns the share, from 0 to 1.

        Raises:
            ValueError: Nothing was asked.
        """
        answers = self._answers()
        if not answers:
            raise ValueError("There is nothing to measure: no conversation was seen.")
        return {"exact_match": sum(one.right for one in answers) / len(answers)}

    def report(self, dataset: "Dataset") -> ConversationEvaluation:
        """Returns the share with all answers."""
        return ConversationEvaluation(
            data=dataset.name,
            task=self.name,
            num_images=len(self.seen),
            metrics=self.compute(),
            judged=self._answers(),
        )

    def _answers(self) -> list[Judged]:
        return [answer for _, answers in self.seen for answer in answers]
