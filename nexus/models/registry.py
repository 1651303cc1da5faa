"""Names of model variants, and what is created from them. `nexus.models` fills it: each card registers itself."""

import fnmatch
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Literal, overload

from nexus.core.card import ModelCard, task_called
from nexus.core.module import NexusModule
from nexus.models.features import FeatureMaps, check_backbone

_CARDS: dict[str, ModelCard] = {}


def register(*cards: ModelCard) -> None:
    """Makes variants known by their names. A name can be registered once."""
    for card in cards:
        if card.name in _CARDS:
            raise ValueError(f"The model name {card.name!r} is registered twice.")
        _CARDS[card.name] = card


def all_cards() -> list[ModelCard]:
    """Returns the card of every variant, in the order of registration."""
    return list(_CARDS.values())


def split_name(name: str) -> tuple[str, str]:
    """Returns the registered name that `name` begins with, and the tag of its weights: "sam2.1_hiera_tiny", "sav".

    Of a name that is not registered, what stands before its first dot and after it.
    """
    base, tag = name, ""
    while base and base not in _CARDS:
        base, _, last = base.rpartition(".")
        tag = f"{last}.{tag}" if tag else last
    if base:
        return base, tag
    base, _, tag = name.partition(".")
    near = get_close_matches(name, [known for known in _CARDS if "." in known], n=1, cutoff=0.8)
    return (name, "") if near else (base, tag)


def model_info(name: str) -> ModelCard:
    """Returns the card of a variant; the tag of its weights is ignored.

    Raises:
        ValueError: The name is unknown; the nearest one is named.
    """
    base, _ = split_name(name)
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

    Raises:
        ValueError: The pattern is no text.
    """
    if not isinstance(pattern, str):
        raise ValueError(f"The pattern is {pattern!r}; it is text with * for anything, such as 'vit_*'.")
    wanted = None if task is None else task_called(task)
    named = [_CARDS[name] for name in sorted(_CARDS) if fnmatch.fnmatch(name, pattern)]
    return [card.name for card in named if wanted in (None, card.task) and (card.weights or not pretrained)]


@overload
def create_model(
    name: str, *, features_only: Literal[True], pretrained: bool = False, out_indices: Any = None, **changes: Any
) -> FeatureMaps: ...
@overload
def create_model(name: str, *, pretrained: bool = False, **changes: Any) -> NexusModule: ...
def create_model(
    name: str,
    *,
    pretrained: bool = False,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    **changes: Any,
) -> NexusModule | FeatureMaps:
    """Returns the variant called `name`, with fresh weights unless `pretrained`.

    Args:
        name: A registered name, `resnet50`, or with the tag of its weights, `resnet50.tv2_in1k`. With `pretrained`
            also a file, a folder or a repository, as `NexusModule.from_pretrained` reads them.
        pretrained: Load the published weights (the default ones unless the name has a tag).
        features_only: Return a model that gives a list of maps (b, c, h, w) instead, of a classifier without its head.
        out_indices: Which maps: numbers, or how many of the last. See `FeatureMaps`.
        **changes: Fields of the configuration to change: `num_classes=10`, `in_channels=1`, `image_size=96`.

    Raises:
        ValueError: The name or a field is unknown; the nearest one is named.
    """
    if features_only:
        if "/" not in name and ":" not in name:
            check_backbone(model_info(name).model_class)
        if changes.setdefault("num_classes", 0):
            raise ValueError("features_only leaves the head out; leave out num_classes too.")
        return FeatureMaps(_create(name, pretrained, changes), out_indices)
    if out_indices is not None:
        raise ValueError("out_indices chooses maps; it goes with features_only=True.")
    return _create(name, pretrained, changes)


def _reason(error: RuntimeError) -> str:
    asked = re.search(r"allocate (\d+) bytes", str(error))
    if asked:
        return f"one of its tensors would take {int(asked[1]) / 2**30:,.0f} GiB, more memory than there is."
    return str(error).splitlines()[0][:200]


def _create(name: str, pretrained: bool, changes: dict[str, Any]) -> NexusModule:
    if "/" in name or ":" in name:
        if not pretrained:
            raise ValueError(f"{name!r} is not a registered name; create_model reads it with pretrained=True.")
        return NexusModule.from_pretrained(name, **changes)
    card = model_info(name)
    if pretrained:
        return card.model_class.from_pretrained(name, **changes)
    config = card.changed(changes)
    try:
        model = card.model_class(config)
    except RuntimeError as error:  # torch's, of memory
        raise ValueError(f"{name} cannot be built with {changes}: {_reason(error)}") from error
    model.card = card
    model.preprocessing = card.preprocessing.fitted(changes)
    return model
