"""The names that other libraries give to the same weights, and the way from theirs to ours."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

State = dict[str, Tensor]


@dataclass(frozen=True)
class Format:
    """One way in which the weights of a model are written, recognised by its keys.

    Attributes:
        name: Where it comes from, for messages: "timm", "torchvision", "hub", "jax".
        detect: A regular expression that some key of this format matches, and no key of another.
        rename: Regular expressions and replacements, applied to every key in order (see `rename_keys`).
        convert: What renaming cannot say, called with the renamed weights: joining q, k and v, transposing.
    """

    name: str
    detect: str
    rename: Mapping[str, str | None] = field(default_factory=dict)
    convert: Callable[[State], State] | None = None

    def matches(self, keys: Iterable[str]) -> bool:
        """Returns whether weights with these keys are in this format."""
        pattern = re.compile(self.detect)
        return any(pattern.search(key) for key in keys)

    def to_ours(self, state: Mapping[str, Tensor]) -> State:
        """Returns the weights under our names."""
        state = rename_keys(state, self.rename)
        return self.convert(state) if self.convert else state


def to_our_names(state: Mapping[str, Tensor], formats: Sequence[Format]) -> tuple[State, str]:
    """Returns the weights under our names, and the name of the first format that matches ("nexus" if none does)."""
    for candidate in formats:
        if candidate.matches(state):
            return candidate.to_ours(state), candidate.name
    return dict(state), "nexus"


def rename_keys(state: Mapping[str, Tensor], renames: Mapping[str, str | None]) -> State:
    """Returns `state` with every key rewritten by the regular expressions, in order.

    Args:
        state: Weights by name.
        renames: From pattern to replacement (`re.sub`), or to None to drop the keys that match.

    Raises:
        ValueError: Two keys end up with the same name.
    """
    renamed: State = {}
    for key, value in state.items():
        name = _rename(key, renames)
        if name is None:
            continue
        if name in renamed:
            raise ValueError(f"Two weights would be called {name!r}; one of them is {key!r}.")
        renamed[name] = value
    return renamed


def _rename(name: str, renames: Mapping[str, str | None]) -> str | None:
    for pattern, replacement in renames.items():
        if replacement is None:
            if re.search(pattern, name):
                return None
        else:
            name = re.sub(pattern, replacement, name)
    return name


def join_keys(state: Mapping[str, Tensor], parts: Sequence[str], joined: str) -> State:
    """Returns `state` with weights that differ in one name put together along their rows.

    `join_keys(state, ("q", "k", "v"), "qkv")` makes `attn.qkv.weight` of `attn.q.weight`, `attn.k.weight` and
    `attn.v.weight`. The parts stand in the given order; groups that lack a part are left as they are.
    """
    result = dict(state)
    first = re.compile(rf"(^|.*\.){re.escape(parts[0])}(\..*|$)")
    for key in state:
        found = first.fullmatch(key)
        if not found:
            continue
        names = [f"{found[1]}{part}{found[2]}" for part in parts]
        if all(name in state for name in names):
            result[f"{found[1]}{joined}{found[2]}"] = torch.cat([result.pop(name) for name in names])
    return result


def adapt_input_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Returns a first convolution's weight (o, c, h, w) for another number of channels.

    One channel: the sum over the old ones, so that a grey image gives what it gave as RGB. More: the old ones
    repeated in turn and scaled by old / new, so that activations keep their size (as timm does).
    """
    old = weight.shape[1]
    if in_channels == old:
        return weight
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeats = -(-in_channels // old)
    return weight.repeat(1, repeats, 1, 1)[:, :in_channels] * (old / in_channels)
