"""Classes are words: which of the words is the picture's colour?"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nexus.core.module import NexusModule
from nexus.data import Sample
from nexus.tasks.classification.metrics import AnswerMetrics
from nexus.tasks.protocol import Task
from nexus.tasks.question import Method
from nexus.tasks.session import Stateless
from nexus.visualization.pictures import to_picture
from toys.common import SIDE, Making, Said, ToyConfig, split_rng

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class Data:
    """Pictures of one colour, a little off."""

    name, in_channels, class_names = "toy-words", 3, tuple(COLOURS)

    def __init__(self, split: str = "train"):
        rng = split_rng(split)
        self.labels = rng.integers(0, 3, 60)
        colours = np.array([*COLOURS.values()])[self.labels] * 0.8 + rng.integers(0, 40, (60, 3))
        self.images = np.broadcast_to(colours[:, None, None], (60, SIDE, SIDE, 3)).astype(np.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return Sample(self.images[index], int(self.labels[index]), f"{self.name}[{index}]")


def letters(words):
    """Counts of the letters a to z in each word, (k, 26)."""
    return torch.tensor([[word.count(chr(97 + i)) for i in range(26)] for word in words], dtype=torch.float32)


class Namer(NexusModule):
    """Two towers: a colour, and a word's letters."""

    config: ToyConfig
    task = "toy-words"

    def __init__(self, config):
        super().__init__(config)
        self.image, self.text = nn.Linear(3, 8), nn.Linear(26, 8)

    def forward(self, images, words):
        return {"logits": self.image(images.mean(dim=(2, 3))) @ self.text(words).T}


class WordSession(Stateless):
    """Embeds the words once."""

    def __init__(self, task, model, words):
        super().__init__(task, model)
        self.words = letters(words)

    def outputs(self, batch):
        return self.model(batch["images"], self.words)


@dataclass(frozen=True)
class Words(Task):
    """Cross-entropy among the words of the data."""

    class_names: tuple[str, ...] = ()
    name = "toy-words"
    headline = "top1"

    def check_data(self, dataset):
        if not self.class_names:
            raise ValueError(f"{dataset.name} has no words.")

    def transforms(self, preprocessing, augment):
        words = letters(self.class_names)
        made = Making(preprocessing, lambda data, i: {"labels": torch.tensor(data.labels[i]), "words": words})
        return made, made

    def losses(self, model, batch):
        outputs = self.predict(model, batch)
        return outputs, {"words": F.cross_entropy(outputs["logits"], batch["labels"])}

    def predict(self, model, batch):
        return model(batch["images"], batch["words"])

    def metrics(self):
        return AnswerMetrics(self.name, self.class_names)

    def session(self, model, prompts=None):
        words = prompts or self.class_names
        return WordSession(Words(tuple(words)), model, words)

    def results(self, outputs, infos):
        found = outputs["logits"].argmax(dim=1).tolist()
        return [Said(info.path, self.class_names[label], info.image) for info, label in zip(infos, found)]

    def draw(self, image, result):
        return result.draw()

    def explanations(self) -> Mapping[str, Method]:
        return {"gradcam": lambda question: to_picture(question.pixels[0], question.model.preprocessing)}

    def answer(self, question):
        return f"The words are {', '.join(self.class_names)}."


TASK = Words
Model = Namer
