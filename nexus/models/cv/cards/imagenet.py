"""Names of ImageNet's classes, as the outputs of published classifiers count them.

`imagenet.txt.gz` has a line for each of the 21,844 synsets of WordNet that some list has: its number, the lists that it
belongs to (a: the 21,841 of the release of fall 2011, b: the 11,821 of timm, c: the 11,221 of "ImageNet-21K Pretraining
for the Masses", d: the 21,843 of Google), its words, and the short name of those 1,000 that are ImageNet-1k. In every
list they stand in the order of their numbers. Numbers, words and subsets are those that timm lists
(`timm.data.ImageNetInfo`), short names torchvision's; the file is read when a name is asked for.
"""

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, overload

from nexus.core.card import Weights
from nexus.core.config import Config


@cache
def _rows() -> tuple[tuple[str, str, str, str], ...]:
    """Returns number, lists, words and short name of every synset."""
    text = gzip.decompress(Path(__file__).with_name("imagenet.txt.gz").read_bytes()).decode()
    rows = (line.split("\t") + [""] for line in text.splitlines())
    return tuple((number, lists, words, short) for number, lists, words, short, *_ in rows)


@cache
def synsets(count: int) -> tuple[str, ...]:
    """Returns the numbers of the classes, such as "n01440764", of the list that has `count` of them."""
    return tuple(row[0] for row in _rows() if _belongs(row, count))


@cache
def names(count: int) -> tuple[str, ...]:
    """Returns the names of the classes of the list of that length: short ones of the 1,000, else all their words."""
    return tuple(row[3] if count == 1000 else row[2] for row in _rows() if _belongs(row, count))


LISTS = {21_841: "a", 11_821: "b", 11_221: "c", 21_843: "d"}
COUNTS = (1000, *LISTS)


def _belongs(row: tuple[str, str, str, str], count: int) -> bool:
    return bool(row[3]) if count == 1000 else LISTS[count] in row[1]


@dataclass(frozen=True)
class ClassNames(Sequence[str]):
    """The names of the ImageNet list with `length` classes, read when one is asked for."""

    length: int

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: Any) -> Any:
        return names(self.length)[index]

    def __iter__(self) -> Iterator[str]:
        return iter(names(self.length))


def named(config: Config, weights: Sequence[Weights]) -> tuple[Weights, ...]:
    """Returns weights of classifiers with the names of their classes: the number of outputs tells the list."""
    rows = []
    for one in weights:
        count = getattr(config.replace(**one.changes), "num_classes", 0)
        rows.append(replace(one, class_names=ClassNames(count)) if count in COUNTS else one)
    return tuple(rows)
