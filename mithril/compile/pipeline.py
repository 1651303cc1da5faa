"""The stages of compiling, in order: logical model, physical graph, passes, source, running model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mithril.codegen.module import generate
from mithril.compile.folding import fold_batch_norms, fold_constants
from mithril.compile.running import PhysicalModel
from mithril.errors import KeyMismatchError, nearest
from mithril.logical.model import Model
from mithril.physical.graph import Graph, verify
from mithril.physical.infer import Inference
from mithril.physical.passes import optimise, remove_dead, remove_duplicates

if TYPE_CHECKING:
    from mithril.backends.base import Backend


@dataclass
class Options:
    """What the caller of `compile` says of keys and mode."""

    shapes: dict[str, Any]
    data_keys: set[str]
    constant_keys: dict[str, Any]
    trainable_keys: set[str]
    discard_keys: set[str]
    inference: bool


def build(
    model: Model, backend: Backend, options: Options, jit: bool | None, file_path: str | Path | None
) -> PhysicalModel:
    """Run all stages."""
    shapes = {k: s for k, s in options.shapes.items() if k not in options.constant_keys}
    graph = Inference(model, backend.dtype, shapes, not options.inference, options.constant_keys).run()
    _assign_kinds(graph, options)
    _discard(graph, options.discard_keys)
    folding = [partial(fold, backend=backend) for fold in (fold_constants, fold_batch_norms)]
    graph = optimise(verify(graph), [remove_dead, *folding, remove_duplicates, remove_dead])
    source = generate(graph, backend)

    def freeze(values: dict[str, Any]) -> PhysicalModel:
        fixed = replace(
            options, constant_keys={**options.constant_keys, **values}, trainable_keys=set(), inference=True
        )
        return build(model, backend, fixed, jit, None)

    return PhysicalModel(graph, backend, source, jit, file_path, not options.inference, freeze)


def _assign_kinds(graph: Graph, options: Options) -> None:
    """Say of every input whether it is data, parameter, constant or state."""
    free = {key for key, value in graph.inputs.items() if value.kind != "constant"}
    for what in ("data_keys", "trainable_keys", "shapes", "constant_keys"):
        unknown = sorted(set(getattr(options, what)) - (free | options.constant_keys.keys() & graph.inputs.keys()))
        if unknown:
            notes = [f"'{k}':{nearest(k, free)}" for k in unknown]
            listed = _listed(unknown)
            raise KeyMismatchError(f"{what} has {listed}, which {graph.name} does not have as an input.", notes)
    data, trainable = options.data_keys, options.trainable_keys
    both = sorted(data & trainable)
    if both:
        raise KeyMismatchError(f"{_listed(both)} cannot be in data_keys and in trainable_keys.")
    for value in graph.inputs.values():
        if value.kind in ("state", "constant"):
            continue
        undeclared = value.kind == "input" and value.name not in trainable
        is_data = value.name in data if data else undeclared
        learned = value.name in trainable if trainable else not value.buffer
        value.kind = "input" if is_data else "parameter"
        value.trainable = not is_data and value.dtype.is_floating and learned


def _discard(graph: Graph, keys: set[str]) -> None:
    for key in sorted(keys):
        if key not in graph.outputs:
            raise KeyMismatchError(f"discard_keys has '{key}', which is no output.{nearest(key, graph.outputs)}")
        del graph.outputs[key]
    if not graph.outputs:
        raise KeyMismatchError(f"{graph.name} has no outputs left to compute.")


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{n}'" for n in names)
