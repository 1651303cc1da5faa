"""Answers in text: how light is the picture?"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nexus.core.module import NexusModule
from nexus.data import Sample
from nexus.data.facets import Conversations, Turn
from nexus.tasks.protocol import Task
from nexus.tasks.report import Report
from nexus.tasks.session import Stateless
from toys.common import SIDE, Making, Said, ToyConfig, split_rng

QUESTION = "How light is it?"
LENGTH, LETTERS = 5, " abcdefghijklmnopqrstuvwxyz"


def tokens(text):
    """The letters of a text as numbers, (5,)."""
    return torch.tensor([LETTERS.index(letter) for letter in text.ljust(LENGTH)])


class Data:
    """Even pictures with a question and its answer."""

    name, in_channels = "toy-answers", 3

    def __init__(self, split: str = "train"):
        self.values = split_rng(split).integers(0, 256, 64).astype(np.uint8)
        answers = ["light" if value > 127 else "dark" for value in self.values]
        self.conversations = [(Turn("user", QUESTION), Turn("assistant", answer)) for answer in answers]

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return Sample(np.full((SIDE, SIDE, 3), self.values[index]), 0, f"{self.name}[{index}]")


class Writer(NexusModule):
    """Writes all letters at once; what is asked it takes as read."""

    config: ToyConfig
    task = "toy-answers"

    def __init__(self, config):
        super().__init__(config)
        self.letters = nn.Linear(1, LENGTH * len(LETTERS))

    def forward(self, images):
        light = images.mean(dim=(1, 2, 3))[:, None]
        return {"letters": self.letters(light).view(-1, LENGTH, len(LETTERS))}


def texts_of(outputs):
    """The texts that are written."""
    return ["".join(LETTERS[i] for i in row).strip() for row in outputs["letters"].argmax(dim=2).tolist()]


class ExactMatch:
    """Share of answers that are right to the letter."""

    def __init__(self):
        self.right = []

    def update(self, outputs, batch):
        self.right += [said == true for said, true in zip(texts_of(outputs), batch["answers"])]

    def synchronize(self):
        pass

    def compute(self):
        return {"exact_match": sum(self.right) / len(self.right)}

    def report(self, dataset):
        return Report(data=dataset.name, task="toy-answers", num_images=len(self.right), metrics=self.compute())


class Conversation(Stateless):
    """The one question that was trained."""

    def __init__(self, task, model, question):
        super().__init__(task, model)
        if question != QUESTION:
            raise ValueError(f"The model answers {QUESTION!r} alone, not {question!r}.")


@dataclass(frozen=True)
class Answers(Task):
    """Cross-entropy of every letter."""

    class_names: tuple[str, ...] = ()
    name = "toy-answers"
    headline = "exact_match"

    def check_data(self, dataset):
        if not isinstance(dataset, Conversations):
            raise ValueError(f"{dataset.name} has no conversations.")

    def transforms(self, preprocessing, augment):
        def more(data, indices):
            answers = [data.conversations[index][-1].text for index in indices]
            return {"answers": answers, "tokens": torch.stack([tokens(answer) for answer in answers])}

        made = Making(preprocessing, more)
        return made, made

    def losses(self, model, batch):
        outputs = self.predict(model, batch)
        return outputs, {"letters": F.cross_entropy(outputs["letters"].flatten(0, 1), batch["tokens"].flatten())}

    def predict(self, model, batch):
        return model(batch["images"])

    def metrics(self):
        return ExactMatch()

    def session(self, model, prompts=None):
        return Conversation(self, model, QUESTION if prompts is None else prompts)

    def read_prompts(self, texts):
        return " ".join(texts)

    def results(self, outputs, infos):
        return [Said(info.path, text, info.image) for info, text in zip(infos, texts_of(outputs))]

    def draw(self, image, result):
        return result.draw()


TASK = Answers
Model = Writer
