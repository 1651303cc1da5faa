"""What a model says about an image, in words."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image as PIL
from PIL.Image import Image

from nexus.core.files import write_whole
from nexus.data import load_image
from nexus.visualization.drawing import caption
from nexus.visualization.pictures import to_picture

LINE = 60
"""Letters in a line under a picture."""


def write_lines(answers: "Sequence[Answer]", path: Path) -> None:
    """Writes JSON lines: an object with `path`, `question` and `answer` for each image."""
    text = "".join(json.dumps(one.to_json(), ensure_ascii=False) + "\n" for one in answers)
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


@dataclass(frozen=True, eq=False)
class Answer:
    """An answer to a question about an image.

    Attributes:
        path: The image.
        question: What was asked.
        text: What the model says.
        image: The image itself, where it was given in memory.
    """

    path: str
    question: str
    text: str
    image: "Image | np.ndarray | None" = field(default=None, repr=False)
    formats: ClassVar[dict[str, Any]] = {".jsonl": write_lines}

    def to_json(self, count: int = 5) -> dict[str, Any]:
        return {"path": self.path, "question": self.question, "answer": self.text}

    def to_rows(self, count: int = 5) -> list[dict[str, Any]]:
        return [{"image": self.path, "answer": self.text}]

    def draw(self) -> Image:
        """Returns the image with question and answer under it."""
        return self.draw_on(load_image(self.path if self.image is None else self.image))

    def draw_on(self, image: Any) -> Image:
        """Returns an image with question and answer under it."""
        picture = image if isinstance(image, PIL.Image) else to_picture(image)
        return caption(picture, "\n".join([*_lines(self.question), *_lines(self.text)]), side=448)


def _lines(text: str) -> list[str]:
    words, lines = text.split(), [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > LINE:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
