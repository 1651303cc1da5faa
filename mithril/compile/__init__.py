"""The one function that knows every stage: logical model, physical graph, passes, source, running model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mithril import ops as _table  # filled by its import
from mithril.codegen.module import generate
from mithril.compile.folding import fold_constants
from mithril.compile.running import PhysicalModel
from mithril.errors import KeyMismatchError, nearest
from mithril.logical.model import Model
from mithril.physical.graph import Graph, verify
from mithril.physical.infer import Inference
from mithril.physical.passes import optimise, remove_dead, remove_duplicates

if TYPE_CHECKING:
    from mithril.backends import Backend


def compile(
    model: Model,
    backend: Backend,
    *,
    shapes: Mapping[str, Any] | None = None,
    data_keys: Iterable[str] = (),
    constant_keys: Mapping[str, Any] | None = None,
    trainable_keys: Iterable[str] = (),
    discard_keys: Iterable[str] = (),
    inference: bool = False,
    jit: bool | None = None,
    file_path: str | Path | None = None,
) -> PhysicalModel:
    """Compile a logical model for a backend.

    Args:
        shapes: by key; sizes may be None or names, which stay open. Shapes of parameters follow from those of the data.
        data_keys: inputs that are data; all others are then parameters. Without it, inputs that were not declared
            trainable are data.
        constant_keys: inputs with values that are fixed now and computed with at compile time.
        trainable_keys: inputs to take gradients of; all floating parameters when empty.
        discard_keys: outputs that are not computed.
        inference: whether operators such as dropout and batch norm run in inference mode; state is then only read.
        jit: whether the framework compiles the source (jax.jit, mx.compile, torch.compile). None: on JAX only.
        file_path: where to write the source; it is run from there.

    Raises:
        MithrilError: shapes, types, or keys that do not fit the model.
    """
    constants = dict(constant_keys or {})
    graph = Inference(model, backend.dtype, _shapes(shapes, constants), not inference, constants).run()
    _assign_kinds(graph, set(data_keys), set(trainable_keys), shapes or {}, constants)
    _discard(graph, set(discard_keys))
    fold = partial(fold_constants, backend=backend)
    graph = optimise(verify(graph), [remove_dead, fold, remove_duplicates, remove_dead])
    source = generate(graph, backend.name, backend.xp, backend.imports)
    return PhysicalModel(graph, backend, source, jit, file_path, not inference)


def _shapes(shapes: Mapping[str, Any] | None, constants: Mapping[str, Any]) -> dict[str, Any]:
    return {k: s for k, s in (shapes or {}).items() if k not in constants}


def _assign_kinds(
    graph: Graph, data: set[str], trainable: set[str], shapes: Mapping[str, Any], constants: Mapping[str, Any]
) -> None:
    """Say of every input whether it is data, parameter, constant or state."""
    for what, keys in (
        ("data_keys", data), ("trainable_keys", trainable), ("shapes", set(shapes)), ("constant_keys", set(constants)),
    ):  # fmt: skip
        unknown = sorted(keys - graph.inputs.keys())
        if unknown:
            notes = [f"'{k}':{nearest(k, graph.inputs)}" for k in unknown]
            raise KeyMismatchError(
                f"{what} has {_listed(unknown)}, which {graph.name} does not have as an input.", notes
            )
    both = sorted(data & trainable)
    if both:
        raise KeyMismatchError(f"{_listed(both)} cannot be in data_keys and in trainable_keys.")
    for value in graph.inputs.values():
        if value.kind in ("state", "constant"):
            continue
        is_data = value.name in data if data else not value.trainable and value.name not in trainable
        value.kind = "input" if is_data else "parameter"
        value.trainable = not is_data and value.dtype.is_floating and (not trainable or value.name in trainable)


def _discard(graph: Graph, keys: set[str]) -> None:
    for key in sorted(keys):
        if key not in graph.outputs:
            raise KeyMismatchError(f"discard_keys has '{key}', which is no output.{nearest(key, graph.outputs)}")
        del graph.outputs[key]
    if not graph.outputs:
        raise KeyMismatchError(f"{graph.name} has no outputs left to compute.")


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{n}'" for n in names)


__all__ = ["PhysicalModel", "compile"]
