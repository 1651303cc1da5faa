"""Backends: arrays, devices, meshes, compilation and gradients on PyTorch, JAX, MLX and NumPy.

Importing this package loads no framework; a backend's is loaded when it is made.
"""

from typing import TYPE_CHECKING

from mithril.errors import BackendError

if TYPE_CHECKING:
    from mithril.backends.base import Backend
    from mithril.backends.jax.backend import JaxBackend
    from mithril.backends.mlx.backend import MlxBackend
    from mithril.backends.numpy.backend import NumpyBackend
    from mithril.backends.torch.backend import TorchBackend

_PLACES = {
    "Backend": ("base", "numpy"),
    "TorchBackend": ("torch.backend", "torch"),
    "JaxBackend": ("jax.backend", "jax"),
    "MlxBackend": ("mlx.backend", "'mlx[cpu]'"),
    "NumpyBackend": ("numpy.backend", "numpy"),
}
"""Where each class is, and what to install for it."""

__all__ = ["Backend", "JaxBackend", "MlxBackend", "NumpyBackend", "TorchBackend"]


def __getattr__(name: str) -> type:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, package = _PLACES[name]
    try:
        return getattr(import_module(f"{__name__}.{module}"), name)
    except (ImportError, OSError) as error:
        raise BackendError(f"{name} cannot be used here: {error}. Install it with: pip install {package}") from error
