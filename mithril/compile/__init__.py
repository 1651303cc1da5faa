"""The one function that knows every stage; they are loaded when it is first called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mithril.errors import BackendError, MithrilError
from mithril.logical.model import Model

if TYPE_CHECKING:
    from pathlib import Path

    from mithril.backends import Backend
    from mithril.compile.running import PhysicalModel


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
    from mithril.compile.pipeline import Options, build

    if not isinstance(model, Model):
        raise MithrilError(f"{model!r} is not a Model.")
    if shapes is not None and not isinstance(shapes, Mapping):
        raise MithrilError(
            f"shapes is {shapes!r}; give a mapping of keys, such as shapes={{'input': [None, 3, 8, 8]}}."
        )
    if isinstance(backend, str | type) or not hasattr(backend, "xp"):
        raise BackendError(f"{backend!r} is not a backend; pass one such as ml.TorchBackend().")
    data, trainable, discarded = (
        {keys} if isinstance(keys, str) else set(keys) for keys in (data_keys, trainable_keys, discard_keys)
    )
    options = Options(dict(shapes or {}), data, dict(constant_keys or {}), trainable, discarded, inference)
    return build(model, backend, options, jit, file_path)
