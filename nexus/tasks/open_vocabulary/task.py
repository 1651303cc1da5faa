"""Detection of whatever words name: the words are classes of a data set, or come with the images as prompts.

Dims: b batch, c channels, h w pixels, n objects.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from nexus.core.config import nearest
from nexus.data.facets import class_names_of
from nexus.tasks.detection import Detections, DetectionTask
from nexus.tasks.open_vocabulary.phrases import CaptionPrompt, Place
from nexus.tasks.open_vocabulary.session import (
    CaptionSession,
    WordsSession,
    encode_captions,
    find_words,
    sizes_in,
)
from nexus.tasks.open_vocabulary.vocabulary import (
    STOP,
    Caption,
    Words,
    bring_words,
    checked_names,
    grounding,
    load_words,
)
from nexus.tasks.session import Session
from nexus.tasks.views import ImageInfo

if TYPE_CHECKING:
    from nexus.data import Dataset


@dataclass(frozen=True)
class OpenVocabularyTask(DetectionTask):
    """A detector's losses and figures, with the names of classes as words.

    Attributes:
        words: The model's tokenizer, once it is needed.
        tokenizer: Where it is; see `load_words`.
        caption: What was asked, where the classes are phrases of it.
        class_places: Then where their words stand in it.
    """

    words: Words | None = None
    tokenizer: str | Path | None = None
    caption: str = ""
    class_places: tuple[tuple[Place, ...], ...] = ()

    name = "open-vocabulary-detection"

    @classmethod
    def for_model(
        cls, model: nn.Module, class_names: Sequence[str] = (), *, tokenizer: str | Path | None = None
    ) -> Self:
        """Returns the task that asks `model`, with the tokenizer that is there."""
        return cls(tuple(class_names) or grounding(model).class_names, tokenizer=tokenizer)

    @classmethod
    def for_data(cls, model: nn.Module, dataset: "Dataset", *, tokenizer: str | Path | None = None) -> Self:
        """Returns the task that measures the model: the data's classes are the words, whatever it was trained on."""
        words = load_words(grounding(model), tokenizer)
        cls(class_names_of(dataset)).check_data(dataset)
        return cls(checked_names(class_names_of(dataset), words), words=words)

    @classmethod
    def for_run(cls, model: nn.Module, dataset: "Dataset", recipe: Any) -> Self:
        """Returns the task that trains the model, which is given its tokenizer.

        Raises:
            ValueError: The data has no objects, or the tokenizer does not fit.
        """
        names = class_names_of(dataset)
        cls(names).check_data(dataset)
        words = bring_words(grounding(model), recipe.data.tokenizer, names)
        return cls(checked_names(names, words), words=words)

    def losses(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns the model's outputs and its losses.

        Every image is asked for all classes. Where one caption cannot hold them, it is asked for its own, and for
        others that are drawn at random, as many as there is room for; more of its own are an error.
        """
        words, images = self._words(), batch["images"]
        captions = words.captions(self.class_names)
        targets = batch["targets"]
        if len(captions) > 1:
            captions = [self._drawn(words, target["labels"].tolist()) for target in targets]
            targets = [_renumbered(target, one) for target, one in zip(targets, captions)]
        tokens, spans = _stacked(captions, words.pad_id, images.device)
        outputs = model(images, tokens, targets, spans=spans, image_sizes=batch["image_sizes"])
        return outputs, outputs["losses"]

    def _drawn(self, words: Words, labels: Sequence[int]) -> Caption:
        """Returns a caption with an image's own classes, and others at random, in any order."""
        own = sorted(set(labels))
        others = random.sample(sorted(set(range(len(self.class_names))) - set(own)), len(self.class_names) - len(own))
        caption = words.fitting(self.class_names, [*own, *others])
        if not set(own) <= set(caption.labels.tolist()):
            raise ValueError(
                f"An image has {len(own)} classes, and a caption of the model holds {len(caption.labels)} of them;"
                " shorten their names."
            )
        held = caption.labels.tolist()
        return words.fitting(self.class_names, random.sample(held, len(held)))

    def predict(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Returns `boxes`, `scores` and `labels` of each image, and with them the `image_sizes` that boxes are in.

        Raises:
            ValueError: There are no words to look for.
        """
        detector = grounding(model)
        task = self._asking(detector)
        encoded = encode_captions(detector, task._words().captions(task.class_names))
        return find_words(detector, encoded, batch["images"], sizes_in(batch))

    def session(self, model: nn.Module, prompts: Any = None) -> Session:
        """Returns the model, asked for words.

        Args:
            model: In evaluation mode.
            prompts: Classes (`["cat", "red car"]`); a caption (`"a cat beside a red car."`), whose phrases are what is
                found; or a mapping with `caption`, `box_threshold`, `text_threshold` and `combined`. None: the model's
                own classes.

        Raises:
            ValueError: There are no words, or these cannot be asked.
        """
        detector = grounding(model)
        if isinstance(prompts, str | Mapping):
            return CaptionSession(self, detector, self._loaded(detector), caption_prompt(prompts))
        task = self if prompts is None else replace(self, class_names=tuple(prompts))
        task = task._asking(detector)
        return WordsSession(task, detector, task._words())

    def read_prompts(self, texts: Sequence[str]) -> Any:
        """Returns classes, or the caption, where the one text has the "." that ends a phrase."""
        return texts[0] if len(texts) == 1 and STOP in texts[0] else list(texts)

    def results(self, outputs: Mapping[str, Any], infos: Sequence[ImageInfo]) -> list[Detections]:
        """Returns what was found in each image, in pixels of the image as given."""
        found = super().results(outputs, infos)
        return [replace(one, caption=self.caption, class_places=self.class_places) for one in found]

    def _asking(self, model: nn.Module) -> "OpenVocabularyTask":
        """Returns the task with words that the model can be asked for."""
        if not self.class_names:
            raise ValueError(
                f"{type(model).__name__} finds what words name, and there is none: prompts=['cat', 'red car'], or a"
                " caption, prompts='a cat beside a red car.'; nexus predict --classes 'cat, red car' or --caption."
            )
        words = self._loaded(model)
        return replace(self, class_names=checked_names(self.class_names, words), words=words)

    def _loaded(self, model: nn.Module) -> Words:
        return self.words or load_words(grounding(model), self.tokenizer)

    def _words(self) -> Words:
        assert self.words is not None, "for_run, for_data and _asking bring the tokenizer"
        return self.words


def caption_prompt(prompts: str | Mapping[str, Any]) -> CaptionPrompt:
    """Returns what a caption is asked with.

    Raises:
        ValueError: A setting is unknown, or out of its bounds.
    """
    given: dict[str, Any] = {"caption": prompts} if isinstance(prompts, str) else dict(prompts)
    known = [field.name for field in fields(CaptionPrompt)]
    for key in given:
        if key not in known:
            raise ValueError(f"There is no prompt {key!r}. {nearest(str(key), known)}")
    if not isinstance(given.get("caption"), str):
        raise ValueError(f"The caption is {given.get('caption')!r}; it is a text, such as 'a cat. a red car.'")
    return CaptionPrompt(**given)


def _renumbered(target: Mapping[str, Tensor], caption: Caption) -> dict[str, Tensor]:
    """Returns a target whose labels are rows of the caption's spans."""
    rows = {label: row for row, label in enumerate(caption.labels.tolist())}
    labels = target["labels"]
    return {**target, "labels": labels.new_tensor([rows[label] for label in labels.tolist()])}


def _stacked(captions: Sequence[Caption], pad_id: int, device: torch.device) -> tuple[Tensor, list[Tensor]]:
    """Returns the ids of captions, filled up to the longest, and the spans of each."""
    longest = max(one.tokens.shape[1] for one in captions)
    room = [(0, longest - one.tokens.shape[1]) for one in captions]
    tokens = [nn.functional.pad(one.tokens, more, value=pad_id) for one, more in zip(captions, room)]
    spans = [nn.functional.pad(one.spans, more).to(device) for one, more in zip(captions, room)]
    return torch.cat(tokens).to(device), spans
