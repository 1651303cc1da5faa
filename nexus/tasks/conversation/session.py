"""A model of images and texts that is asked: one question about each image, or a conversation."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nexus.data import load_image
from nexus.data.conversations import Talk
from nexus.data.facets import IMAGE_PLACE, Turn
from nexus.models.cv.internvl import InternVL
from nexus.tasks.conversation.answer import Answer
from nexus.tasks.conversation.measuring import Judged
from nexus.tasks.conversation.reading import Read, Reader
from nexus.tasks.source import evaluating
from nexus.tasks.views import View
from nexus.visualization.pictures import to_picture

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_NEW_TOKENS = 1024
SPARE = 32
"""Tokens by which an answer that is measured may be longer than the wanted one: then it is wrong, and is cut."""


class Writing:
    """How answers are written.

    Attributes:
        max_new_tokens: Most tokens of an answer.
        temperature: 0 always takes the likeliest word; above 0 words are drawn.
        top_p: Of drawn words, those that have this share of the chance together.
    """

    def __init__(self, max_new_tokens: int = MAX_NEW_TOKENS, temperature: float = 0.0, top_p: float = 1.0) -> None:
        if max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
            raise ValueError(
                f"max_new_tokens is {max_new_tokens}, temperature {temperature} and top_p {top_p}; they are at least 1,"
                " at least 0, and above 0 to 1."
            )
        self.max_new_tokens, self.temperature, self.top_p = max_new_tokens, temperature, top_p

    def settings(self) -> dict[str, Any]:
        """Returns the arguments of `InternVL.generate`."""
        return {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature, "top_p": self.top_p}


class QuestionSession:
    """Each image is asked what is asked of all, or of it; several at once are one batch.

    Without questions it can be measured: data brings its own.
    """

    def __init__(
        self, model: InternVL, reader: Reader, questions: str | Sequence[str] | None, writing: Writing
    ) -> None:
        self.model, self.reader, self.questions, self.writing = model, reader, questions, writing

    def push(self, view: View) -> Answer:
        """Returns the answer for one image."""
        return self.push_all([view])[0]

    def push_all(self, views: Sequence[View]) -> list[Answer]:
        """Returns the answers for images, written side by side."""
        asked = [self._question(view.number) for view in views]
        images = [[picture_of(view.info.path if view.info.image is None else view.info.image)] for view in views]
        with evaluating(self.model):
            read = self.reader([[Turn("user", text)] for text in asked], images)
            written = write(self.model, read, self.reader.stop, self.writing)
        texts = [self.reader.text(row) for row in written]
        return [
            Answer(view.info.path, question, text, view.info.image)
            for view, question, text in zip(views, asked, texts, strict=True)
        ]

    def outputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Returns `judged`: each question of the batch's `talks` answered, after what the data says came before it."""
        return {"judged": [self._judged(talk) for talk in batch["talks"]]}

    def _judged(self, talk: Talk) -> list[Judged]:
        """One talk, a question at a time, each with the images that were shown so far."""
        pictures, judged = [picture_of(image) for image in talk.images], []
        placed = any(IMAGE_PLACE in turn.text for turn in talk.turns)
        for at in range(1, len(talk.turns), 2):
            turns, wanted = list(talk.turns[:at]), talk.turns[at].text
            shown = pictures[: sum(turn.text.count(IMAGE_PLACE) for turn in turns)] if placed else pictures
            most = len(self.reader.tokenizer(wanted)["input_ids"]) + SPARE
            with evaluating(self.model):
                (ids,) = write(self.model, self.reader([turns], [shown]), self.reader.stop, Writing(most))
            judged.append(Judged(talk.path, turns[-1].text, self.reader.text(ids), wanted))
        return judged

    def _question(self, number: int) -> str:
        if self.questions is None:
            raise no_question(None)
        if isinstance(self.questions, str):
            return self.questions
        if number >= len(self.questions):
            raise ValueError(f"There are {len(self.questions)} questions and more images; give one for each, or one.")
        return self.questions[number]


class Chat:
    """A conversation about images: `chat = Chat(model, images=["photo.jpg"]); chat.ask("How many cats?")`.

    Attributes:
        turns: What was said.
    """

    def __init__(
        self,
        model: InternVL,
        images: Sequence[Any] = (),
        *,
        tokenizer: Any = None,
        system: str | None = None,
        writing: Writing | None = None,
    ) -> None:
        """Begins a conversation.

        Args:
            model: In evaluation mode.
            images: What it is about, in order: files, arrays, images.
            tokenizer: A folder or a repository; None is the model's own.
            system: What the model is told first; None is what it was trained with.
            writing: How answers are written.

        Raises:
            ValueError: An image cannot be read, or there is no tokenizer that fits.
        """
        self.model, self.system, self.writing = model, system, writing or Writing()
        self.reader = Reader(model, tokenizer)
        self.images = [picture_of(image) for image in images]
        self.turns: list[Turn] = []

    def ask(self, question: str, *, on_text: Callable[[str], None] | None = None) -> str:
        """Returns the answer, and remembers both.

        Args:
            question: `<image>` is the place of an image; without any the images stand before the first question.
            on_text: Is called with the pieces of the answer as they are written.

        Raises:
            ValueError: Nothing is asked, or places and images differ in number.
        """
        if not question.strip():
            raise ValueError("Nothing is asked; give a question.")
        text = question
        if not self.turns and len(self.images) > 1 and "<image>" not in question:
            text = "".join(f"Image-{k}: <image>\n" for k in range(1, len(self.images) + 1)) + question
        turns = [*self.turns, Turn("user", text)]
        with evaluating(self.model):
            read = self.reader([turns], [self.images], self.system)
            streamer = None if on_text is None else _streamer(self.reader.tokenizer, on_text)
            (ids,) = write(self.model, read, self.reader.stop, self.writing, streamer)
        answer = self.reader.text(ids)
        self.turns = [*turns, Turn("assistant", answer)]
        return answer


def write(model: InternVL, read: Read, stop: list[int], writing: Writing, streamer: Any = None) -> torch.Tensor:
    """Returns the ids that the model writes after what it read."""
    return model.generate(
        read.images, read.tokens, read.places, attention_mask=read.mask, stop=stop, streamer=streamer,
        **writing.settings(),
    )  # fmt: skip


def picture_of(source: Any) -> "Image":
    """Returns an image of mode "RGB"."""
    loaded = load_image(source)
    picture = loaded if hasattr(loaded, "convert") else to_picture(loaded)
    return picture.convert("RGB")  # pyrefly: ignore[missing-attribute]


def _streamer(tokenizer: Any, on_text: Callable[[str], None]) -> Any:
    from transformers import TextStreamer

    class Pieces(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            if text:
                on_text(text)

    return Pieces(tokenizer, skip_prompt=False, skip_special_tokens=True)


def no_question(prompts: Any) -> ValueError:
    """Returns what to raise where nothing is asked."""
    return ValueError(
        f"prompts are {prompts!r:.80}; ask a question, prompts='How many cats are there?', or nexus predict"
        " --prompt 'How many cats are there?'."
    )


def as_model(model: nn.Module) -> InternVL:
    """Returns the model, which must be an InternVL."""
    if not isinstance(model, InternVL):
        raise ValueError(f"A {type(model).__name__} holds no conversations; InternVL does.")
    return model
