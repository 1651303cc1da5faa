"""mithril: compose models as graphs, compile them to readable source for PyTorch, JAX, MLX or NumPy."""

from typing import TYPE_CHECKING, Any

from mithril.compile import compile
from mithril.errors import MithrilError
from mithril.logical.connection import Connection, IOKey
from mithril.logical.model import Model
from mithril.logical.operator import Operator
from mithril.logical.register import register_op
from mithril.types import Dim, DType, Tensor

if TYPE_CHECKING:
    from mithril import models
    from mithril.backends import Backend, JaxBackend, MlxBackend, NumpyBackend, TorchBackend
    from mithril.compile.running import PhysicalModel
    from mithril.training import TrainModel

float16, bfloat16, float32, float64 = DType.float16, DType.bfloat16, DType.float32, DType.float64
int8, int16, int32, int64 = DType.int8, DType.int16, DType.int32, DType.int64
uint8, uint16, uint32, bool = DType.uint8, DType.uint16, DType.uint32, DType.bool

__all__ = [
    "Backend", "Connection", "DType", "Dim", "IOKey", "JaxBackend", "MithrilError", "MlxBackend", "Model",
    "NumpyBackend", "Operator", "PhysicalModel", "Tensor", "TorchBackend", "TrainModel", "bfloat16", "bool",
    "compile", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "models", "register_op", "uint8",
    "uint16", "uint32",
]  # fmt: skip

_LAZY = {
    **dict.fromkeys(("Backend", "JaxBackend", "MlxBackend", "NumpyBackend", "TorchBackend"), "mithril.backends"),
    "PhysicalModel": "mithril.compile.running",
    "TrainModel": "mithril.training",
    "from_torch": "mithril.interop",
}


def __getattr__(name: str) -> Any:
    """Frameworks are loaded by the backends that need them, layers when they are used."""
    from importlib import import_module

    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name == "models":
        return import_module("mithril.models")
    raise AttributeError(f"module 'mithril' has no attribute '{name}'")
