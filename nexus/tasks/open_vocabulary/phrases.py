"""Phrases of a caption that boxes answer to, and where they stand in it.

Dims: q queries, n tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nexus.models.cv.grounding_dino.phrases import divide
from nexus.tasks.open_vocabulary.vocabulary import STOP, Words

Place = tuple[int, int]


@dataclass(frozen=True)
class CaptionPrompt:
    """A caption, and which of its words answer.

    Attributes:
        caption: Phrases end with "." or "?".
        box_threshold: Boxes whose likeliest word is at most so likely are left out.
        text_threshold: A box answers to its words that are likelier.
        combined: As the authors' code: also to words of other phrases than that of the likeliest one.
    """

    caption: str
    box_threshold: float = 0.0
    text_threshold: float = 0.25
    combined: bool = False

    def __post_init__(self) -> None:
        for name in ("box_threshold", "text_threshold"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"{name} is {value!r}; it must lie in 0 to 1.")


class Asked(NamedTuple):
    """A caption as the model reads it.

    Attributes:
        text: In small letters, with a "." at its end.
        tokens: Its ids.
        places: Of each token in the text: its first character and the one after the last.
        word: Of each token the number of its word; pieces of one word share it, None is no word.
        number: Of each token's phrase, -1 where none is.
        inside: Which tokens are words of phrases, no separators.
    """

    text: str
    tokens: Int[Tensor, "1 n"]
    places: list[Place]
    word: list[int | None]
    number: Int[Tensor, " n"]
    inside: Bool[Tensor, " n"]


def read_caption(caption: str, words: Words) -> Asked:
    """Returns a caption as the model reads it.

    Raises:
        ValueError: It names nothing, or has more tokens than the model reads, or words that it never saw.
    """
    text = caption.lower().strip()
    text = text if text.endswith(STOP) else text + STOP
    read = words.tokenizer(text, return_offsets_mapping=True)
    ids = read["input_ids"]
    if len(ids) > words.most:
        raise ValueError(
            f"The caption has {len(ids)} tokens, and the model reads {words.most}; ask in parts, or name classes, which"
            " are asked in parts by themselves."
        )
    tokens = torch.tensor([ids])
    number = divide(tokens, words.separators).number[0]
    inside = ~torch.isin(tokens[0], torch.tensor([*words.separators, words.pad_id])) & (number >= 0)
    if not inside.any():
        raise ValueError(f"The caption {caption[:40]!r} names nothing; write what to look for: 'a cat. a red car.'")
    if words.tokenizer.unk_token_id in ids:
        strange = [text[a:b] for (a, b), one in zip(read["offset_mapping"], ids) if one == words.tokenizer.unk_token_id]
        raise ValueError(f"The model never saw the words {', '.join(map(repr, strange))}; use words of its tokenizer.")
    return Asked(text, tokens, [tuple(one) for one in read["offset_mapping"]], read.word_ids(0), number, inside)


def answering(
    chances: Float[Tensor, "q n"], asked: Asked, text_threshold: float, *, combined: bool = False
) -> Bool[Tensor, "q n"]:
    """Returns the tokens that each box answers to: the likeliest one, and others of its phrase above the threshold."""
    inside = asked.inside.to(chances.device)
    chances = chances * inside
    likely = chances > text_threshold
    if combined:
        return likely
    best = chances.argmax(dim=1, keepdim=True)
    number = asked.number.to(chances.device)
    likely = likely & (number == number[best[:, 0]][:, None])
    return likely.scatter(1, best, True) & inside


def places_of(tokens: Sequence[int], asked: Asked) -> tuple[Place, ...]:
    """Returns where tokens stand in the caption: whole words, and one place for words that follow each other."""
    numbers = {asked.word[token] for token in tokens}
    whole = [
        token for token in range(len(asked.word)) if asked.word[token] is not None and asked.word[token] in numbers
    ]
    places: list[Place] = []
    for before, token in zip([-2, *whole], whole):
        start, end = asked.places[token]
        if before == token - 1 and places:
            places[-1] = (places[-1][0], end)
        else:
            places.append((start, end))
    return tuple(places)


def phrase_at(places: Sequence[Place], text: str) -> str:
    """Returns the words at these places."""
    return " ".join(text[start:end] for start, end in places)
