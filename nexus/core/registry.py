"""Names of model variants, and a card for each: what it is, how it was trained, where its weights are."""

import fnmatch
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from nexus.core.config import Config, nearest
from nexus.core.module import NexusModule
from nexus.core.preprocessing import Preprocessing


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A published result: `Metric(name="imagenet-1k top-1", value=76.13, source="torchvision metadata")`."""

    name: str
    value: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One published weight file of a variant.

    Attributes:
        tag: Tells several files of one variant apart: `resnet50.tv2_in1k`.
        url: Where the file is, `https://...` or `hf-hub:org/repo` (with `#file` for a file that is not the default).
        sha256: The digest, or its first digits where only those are published; empty if none is.
        licence: Of the weights, as their authors state it.
        preprocessing: The preprocessing that the weights were evaluated with.
        changes: Fields in which the configuration differs from the card's, such as `num_classes`.
        metrics: Published results of this file.
        class_names: Names of the outputs in order; empty where they are not told.
    """

    tag: str
    url: str
    sha256: str = ""
    licence: str = "unknown"
    preprocessing: Preprocessing = Preprocessing()
    changes: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What is known of a variant.

    Attributes:
        name: The registered name.
        model_class: The class that builds it.
        config: Its configuration.
        task: "classification", "detection", "segmentation", ...
        num_parameters: The published number of parameters.
        weights: Published files; the first is the default.
        paper: Address of the paper.
        good_for: Keys of the selection matrices that it answers, such as "image-classification", with the suffix
            ":alternative" where it is the second choice (see `nexus.core.selection`).
        throughput: Published images per second, for ordering only; None if unknown.
    """

    name: str
    model_class: type[NexusModule]
    config: Config
    task: str = "classification"
    num_parameters: int | None = None
    weights: tuple[Weights, ...] = ()
    paper: str = ""
    good_for: tuple[str, ...] = ()
    throughput: float | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """The default weights' preprocessing, or the library's default at the configuration's size."""
        if self.weights:
            return self.weights[0].preprocessing
        size = getattr(self.config, "image_size", 224)
        return Preprocessing(image_size=(size, size) if isinstance(size, int) else tuple(size))

    def find_weights(self, tag: str | None = None) -> Weights:
        """Returns the weights with this tag, or the default ones.

        Raises:
            ValueError: The variant has no weights, or none with this tag.
        """
        if not self.weights:
            raise ValueError(f"{self.name} has no published weights; train it, or load a file of your own.")
        for weights in self.weights:
            if tag in (None, weights.tag):
                return weights
        tags = [weights.tag for weights in self.weights]
        raise ValueError(f"{self.name} has no weights {tag!r}. {nearest(str(tag), tags)}")


_CARDS: dict[str, ModelCard] = {}


def register(*cards: ModelCard) -> None:
    """Makes variants known by their names. A name can be registered once."""
    for card in cards:
        if card.name in _CARDS:
            raise ValueError(f"The model name {card.name!r} is registered twice.")
        _CARDS[card.name] = card


def _fill() -> None:
    """Imports the zoo, whose files register their cards: the one place where the core reaches to its right."""
    importlib.import_module("nexus.models.cv")


def all_cards() -> list[ModelCard]:
    """Returns the card of every variant, in the order of registration."""
    _fill()
    return list(_CARDS.values())


def model_info(name: str) -> ModelCard:
    """Returns the card of a variant; a tag after the last dot is ignored.

    Raises:
        ValueError: The name is unknown; the nearest one is named.
    """
    _fill()
    base = name.partition(".")[0]
    if base not in _CARDS:
        near = get_close_matches(base, _CARDS, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else "`nexus models` (nexus.list_models) names them all."
        raise ValueError(f"There is no model {base!r}. {hint}")
    return _CARDS[base]


def list_models(pattern: str = "*", *, task: str | None = None, pretrained: bool = False) -> list[str]:
    """Returns the registered names that match a shell pattern, in alphabetical order.

    Args:
        pattern: `"vit_*"`.
        task: Only models of this task, such as "detection".
        pretrained: Only models that have published weights.
    """
    _fill()
    named = [_CARDS[name] for name in sorted(_CARDS) if fnmatch.fnmatch(name, pattern)]
    return [card.name for card in named if task in (None, card.task) and (card.weights or not pretrained)]


def create_model(name: str, *, pretrained: bool = False, **changes: Any) -> NexusModule:
    """Returns the variant called `name`, with fresh weights unless `pretrained`.

    Args:
        name: A registered name, `resnet50`, or with the tag of its weights, `resnet50.tv2_in1k`. With `pretrained`
            also a file, a folder or a repository, as `NexusModule.from_pretrained` reads them.
        pretrained: Load the published weights (the default ones unless the name has a tag).
        **changes: Fields of the configuration to change: `num_classes=10`, `in_channels=1`, `image_size=96`.

    Raises:
        ValueError: The name or a field is unknown; the nearest one is named.
    """
    if "/" in name or ":" in name:
        if not pretrained:
            raise ValueError(f"{name!r} is not a registered name; create_model reads it with pretrained=True.")
        return NexusModule.from_pretrained(name, **changes)
    card = model_info(name)
    if pretrained:
        return card.model_class.from_pretrained(name, **changes)
    model = card.model_class(card.config.replace(**changes) if changes else card.config)
    model.card = card
    model.preprocessing = card.preprocessing.fitted(changes)
    return model
