"""The weights inside a training checkpoint: found by the names that training programs use, or by the model they fit."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nexus.core.pickles import InertModule
from nexus.core.stored import Damaged, Stored, StoredState, WeightsError
from nexus.core.torch_files import module_state

AVERAGED = ("model_ema", "ema", "ema_model", "ema_state_dict", "state_dict_ema", "ema_model_state_dict")
PLAIN = ("state_dict", "model_state", "model_state_dict", "model", "module", "net", "network", "weights")
PAYLOADS = AVERAGED + PLAIN
"""Names under which training programs keep the weights, the most telling first."""
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""What wrappers of a model put before the names of all its weights."""
BESIDE = ("n_averaged",)
"""What wrappers keep beside the model: torch's AveragedModel counts its updates."""
DEPTH, MAPPINGS, PREFIX_PARTS = 5, 2_000, 4
"""How deep, in how many mappings, and behind how many parts of a name weights are looked for."""


@dataclass(frozen=True)
class Checkpoint:
    """What a weight file holds; the numbers of its tensors are still in the file."""

    path: Path
    content: Any = field(repr=False)

    def weights(self) -> StoredState:
        """Returns the weights where programs keep them, without the prefixes of wrappers.

        Raises:
            WeightsError: There are none.
        """
        found = self.named()
        if not found:
            raise WeightsError(f"{self.path} holds no weights; its content is {_describe(self.content)}.")
        return found

    def named(self) -> StoredState:
        """Returns what `weights` does, or nothing where there are none."""
        payload = self.content
        for _ in range(DEPTH):
            mapping = _mapping(payload)
            tensors = _tensors(mapping)
            inner = [inside for key in PAYLOADS if (inside := _mapping(mapping.get(key)))]
            if not inner or len(tensors) >= len(inner[0]):
                return _without_wrappers(tensors)
            payload = inner[0]
        return {}

    def extent(self) -> tuple[int, int]:
        """Returns how many tensors the file holds, and how many numbers they have that are stored apart."""
        tensors = {id(one): one for _, mapping in self._mappings() for one in _tensors(mapping).values()}
        storages = {id(one.storage): one.storage.count for one in tensors.values()}
        return len(tensors), sum(storages.values())

    def best(self, fit: Callable[[StoredState], int], least: int, known: int) -> StoredState | None:
        """Returns the weights that fit a model best, wherever in the file they are; None if none fit better than known.

        Args:
            fit: Says how many of a model's weights are among those given.
            least: Fewer weights than this are not looked at.
            known: How well those fit that are known already.

        Raises:
            WeightsError: Several places fit equally well and no name tells them apart.
        """
        rated = [(fit(state), label, state) for label, state in self._candidates(least)]
        most = max((score for score, _, _ in rated), default=0)
        if most <= known:
            return None
        best = sorted((_rank(label), label) for score, label, _ in rated if score == most)
        states = {label: state for score, label, state in rated if score == most}
        rank, first = best[0]
        equal = [label for other, label in best if other == rank and not _same(states[label], states[first])]
        if equal:
            raise WeightsError(
                f"{self.path} holds the weights more than once: {first!r} and {equal[0]!r} fit equally well. "
                "Save the state_dict that you want alone."
            )
        return states[first]

    def _candidates(self, least: int) -> Iterator[tuple[str, StoredState]]:
        """Yields every mapping with at least `least` tensors, then what stands behind each prefix that has as many."""
        for label, mapping in self._mappings():
            tensors = _tensors(mapping)
            if len(tensors) < least:
                continue
            yield label, tensors
            prefixes = Counter(prefix for key in tensors for prefix in _prefixes(key))
            for prefix, count in prefixes.items():
                if count >= least:
                    cut = {key.removeprefix(prefix): one for key, one in tensors.items() if key.startswith(prefix)}
                    yield f"{label}.{prefix}".strip("."), cut

    def _mappings(self) -> Iterator[tuple[str, dict[Any, Any]]]:
        """Yields every mapping with its path, once each, level by level."""
        level, seen = [("", _mapping(self.content))], set()
        for _ in range(DEPTH):
            inner = []
            for label, mapping in level:
                if id(mapping) in seen or len(seen) >= MAPPINGS:
                    continue
                seen.add(id(mapping))
                yield label, mapping
                named = [(key, value) for key, value in mapping.items() if isinstance(key, str)]
                inner += [(f"{label}.{key}".strip("."), deeper) for key, value in named if (deeper := _mapping(value))]
            level = inner


def _mapping(value: Any) -> dict[Any, Any]:
    if isinstance(value, InertModule):
        try:
            return module_state(value)
        except Damaged:
            return {}
    return value if isinstance(value, dict) else {}


def _tensors(mapping: dict[Any, Any]) -> StoredState:
    return {key: value for key, value in mapping.items() if isinstance(value, Stored) and isinstance(key, str)}


def _prefixes(key: str) -> list[str]:
    parts = key.split(".", PREFIX_PARTS)[:-1]
    return [".".join(parts[:count]) + "." for count in range(1, len(parts) + 1)]


def _without_wrappers(state: StoredState) -> StoredState:
    for prefix in WRAPPERS:
        inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if inside and all(key.startswith(prefix) or key in BESIDE for key in state):
            return _without_wrappers(inside)
    return state


def _rank(label: str) -> int:
    """Returns how telling the names on the way to weights are; 0 of averaged ones."""
    words = label.split(".")
    return 0 if any(word in AVERAGED for word in words) else 1 if any(word in PLAIN for word in words) else 2


def _same(state: StoredState, other: StoredState) -> bool:
    return {id(value) for value in state.values()} == {id(value) for value in other.values()}


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        names = [repr(key)[:60] for key in list(content)[:8]]
        return f"a mapping with {', '.join(names) or 'nothing in it'}"
    return f"a {type(content).__name__}"
