"""Words become captions: as many in one as the model reads, each a phrase of its own.

Dims: k classes, n tokens.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from nexus.core.module import NexusModule
from nexus.models.cv.grounding_dino import GroundingDINO
from nexus.tasks.image_text.tokenizers import UNKNOWN, find_tokenizer, tokenizer_files, word_tokenizer

STOP = "."
"""Ends a phrase."""


class Caption(NamedTuple):
    """Some classes in one caption.

    Attributes:
        tokens: Its ids.
        spans: Which tokens each class consists of.
        labels: The numbers of the classes among all.
    """

    tokens: Int[Tensor, "1 n"]
    spans: Bool[Tensor, "k n"]
    labels: Int[Tensor, " k"]


class Words:
    """From words to ids, with the tokenizer of a model.

    Args:
        model: Says how long its captions are and which ids end a phrase.
        tokenizer: Of transformers.
        name: Where it comes from.

    Raises:
        ValueError: The tokenizer is that of another model.
    """

    def __init__(self, model: GroundingDINO, tokenizer: Any, name: str) -> None:
        config = model.config
        self.tokenizer, self.most, self.pad_id = tokenizer, config.max_text_len, config.pad_id
        self.separators = config.separator_ids
        if len(tokenizer) > config.vocab_size:
            raise ValueError(
                f"The tokenizer {name!r} has {len(tokenizer)} ids and the model knows {config.vocab_size}: it is that"
                f" of another model. A model that starts from nothing may have vocab_size={len(tokenizer)}."
            )
        self.stop = tokenizer.convert_tokens_to_ids(STOP)
        self.start, self.end = tokenizer.cls_token_id, _first(tokenizer.sep_token_id, tokenizer.eos_token_id)
        wanted = {number for number in (self.start, self.end, self.stop) if number is not None}
        if self.stop == tokenizer.unk_token_id or not wanted <= set(self.separators):
            raise ValueError(
                f"The tokenizer {name!r} ends phrases with the ids {sorted(wanted)}, and the model with"
                f" {sorted(self.separators)} (separator_ids): it is that of another model."
            )

    def ids(self, text: str) -> list[int]:
        """Returns the ids of a text alone, in small letters."""
        return self.tokenizer(text.lower(), add_special_tokens=False).input_ids

    def knows(self, text: str) -> bool:
        """Whether none of the words is strange."""
        return bool(ids := self.ids(text)) and self.tokenizer.unk_token_id not in ids

    def captions(self, names: Sequence[str], labels: Iterable[int] | None = None) -> list[Caption]:
        """Returns captions that hold the classes, or those with these numbers, in order; as few as possible."""
        captions, held = [], []
        room = self.most - len(self._framed([]))
        for label in range(len(names)) if labels is None else labels:
            ids = self.ids(names[label])
            if held and sum(len(one) + 1 for _, one in held) + len(ids) + 1 > room:
                captions.append(self._caption(held))
                held = []
            held.append((label, ids))
        return [*captions, self._caption(held)] if held else captions

    def fitting(self, names: Sequence[str], labels: Iterable[int]) -> Caption:
        """Returns the caption that holds the first of the classes with these numbers, as many as it can."""
        return self.captions(names, labels)[0]

    def _caption(self, held: Sequence[tuple[int, list[int]]]) -> Caption:
        ids: list[int] = []
        places = []
        for _, one in held:
            places.append((len(ids), len(ids) + len(one)))
            ids += [*one, self.stop]
        tokens = torch.tensor([self._framed(ids)])
        first = 0 if self.start is None else 1
        spans = torch.zeros(len(held), tokens.shape[1], dtype=torch.bool)
        for span, (begin, end) in zip(spans, places):
            span[first + begin : first + end] = True
        return Caption(tokens, spans, torch.tensor([label for label, _ in held]))

    def _framed(self, ids: list[int]) -> list[int]:
        return [one for one in (self.start, *ids, self.end) if one is not None]


def _first(*numbers: int | None) -> int | None:
    return next((number for number in numbers if number is not None), None)


def load_words(model: GroundingDINO, source: str | Path | None = None) -> Words:
    """Returns the tokenizer of a model: of a folder or repository, or saved with it, or of its card.

    Raises:
        ValueError: The tokenizer cannot be had, or is that of another model.
        ImportError: transformers is not installed.
    """
    return Words(model, *find_tokenizer(model, source))


def bring_words(model: GroundingDINO, source: str | None, names: Sequence[str]) -> Words:
    """Gives a model that is to be trained its tokenizer, which is saved with it; returns it.

    Args:
        model: Keeps it among its `files`.
        source: See `load_words`; or "words": one that knows the words of `names` alone.
        names: The classes that the model is trained on.

    Raises:
        ValueError: The tokenizer cannot be had, or is that of another model.
    """
    name = source or "of its card"
    if source == "words":
        tokenizer = word_tokenizer([*names, STOP])
    else:
        tokenizer, name = find_tokenizer(model, source)
    words = Words(model, tokenizer, name)
    model.files = tokenizer_files(tokenizer)
    return words


def checked_names(names: Any, words: Words) -> tuple[str, ...]:
    """Returns classes without the spaces around them.

    Raises:
        ValueError: They are not words, one is empty, occurs twice, is longer than a caption, ends a phrase in its
            middle, or was never seen.
    """
    if isinstance(names, str) or not all(isinstance(word, str) for word in names):
        raise ValueError(f"Classes are {names!r}; name them in a list, such as ['cat', 'red car'].")
    found = tuple(name.strip() for name in names)
    if not found or not all(found):
        raise ValueError(f"A class has no name: {', '.join(map(repr, found)) or 'the list is empty'}.")
    small = [name.lower() for name in found]
    for name in found:
        ids = words.ids(name)
        if small.count(name.lower()) > 1:
            raise ValueError(f"The class {name!r} is named twice; each word is asked once.")
        if set(ids) & set(words.separators):
            raise ValueError(
                f"The class {name!r} has a '.' or '?', which end a phrase; write it without, or a caption."
            )
        if len(words.captions([name])[0].tokens[0]) > words.most:
            raise ValueError(f"The class {name[:40]!r} has {len(ids)} tokens; a caption of the model has {words.most}.")
    strange = [name for name in found if not words.knows(name)]
    if strange:
        raise ValueError(
            f"The model never saw the words {', '.join(map(repr, strange))}; name classes with words that its tokenizer"
            f" knows without {UNKNOWN}."
        )
    return found


def grounding(model: NexusModule | Any) -> GroundingDINO:
    """Returns the model, which is a Grounding DINO.

    Raises:
        ValueError: It is another.
    """
    inner = getattr(model, "module", model)  # DDP's is inside
    if not isinstance(inner, GroundingDINO):
        raise ValueError(f"Words are found by a Grounding DINO, not by a {type(inner).__name__}.")
    return inner
