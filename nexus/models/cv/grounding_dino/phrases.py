"""Phrases of a caption: which tokens see each other, and where each stands in its own phrase.

Liu et al., "Grounding DINO", 2023, Sec. 3.4 ("sub-sentence level text feature"). https://arxiv.org/abs/2303.05499

Dims: t captions, n tokens, k classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Phrases(NamedTuple):
    """How captions are divided.

    Attributes:
        number: Of the phrase that a token is in, from 0; what no separator ends is numbered -1.
        together: Which tokens see each other: those of one phrase, its separator among them. Others see themselves.
        places: Of a token in its phrase, from 0.
    """

    number: Int[Tensor, "t n"]
    together: Bool[Tensor, "t n n"]
    places: Int[Tensor, "t n"]


def divide(tokens: Int[Tensor, "t n"], separators: Sequence[int]) -> Phrases:
    """Returns the phrases of captions: each reaches to its separator, which belongs to it.

    A separator in the last column ends nothing and stands alone, as in the authors' code: the [SEP] of the longest
    caption of a batch.
    """
    count = tokens.shape[1]
    ends = torch.isin(tokens, tokens.new_tensor(separators))
    ends[:, -1] = False
    index = torch.arange(count, device=tokens.device).expand_as(tokens)
    number = ends.cumsum(1) - ends.long()
    number = torch.where(number < ends.sum(1, keepdim=True), number, -1)
    together = (number[:, :, None] == number[:, None]) & (number >= 0)[:, :, None]
    together = together | torch.eye(count, dtype=torch.bool, device=tokens.device)
    first = torch.where(ends, index + 1, 0).cummax(1).values.roll(1, 1)
    first[:, 0] = 0
    return Phrases(number, together, torch.where(number >= 0, index - first, 0))


def phrase_spans(tokens: Int[Tensor, "t n"], separators: Sequence[int], pad_id: int) -> list[Bool[Tensor, "k n"]]:
    """Returns for each caption which tokens its phrases consist of, without separators; empty phrases are left out."""
    number = divide(tokens, separators).number
    words = ~torch.isin(tokens, tokens.new_tensor([*separators, pad_id])) & (number >= 0)
    spans = []
    for row, inside in zip(number, words):
        numbers = row[inside].unique()
        spans.append((row == numbers[:, None]) & inside)
    return spans


def class_chances(logits: Float[Tensor, "q n"], spans: Bool[Tensor, "k n"]) -> Float[Tensor, "q k"]:
    """Returns how likely each query is of each class: the mean over the class's tokens, as the authors evaluate."""
    shares = spans.to(logits.dtype)
    return logits.sigmoid() @ (shares / shares.sum(1, keepdim=True).clamp(min=1)).T
