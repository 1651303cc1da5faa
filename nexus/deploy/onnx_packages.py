"""The packages of the extra "onnx", which are imported where they are used."""

import importlib
from types import ModuleType


def import_onnx(name: str = "onnxruntime") -> ModuleType:
    """Returns a package of the extra "onnx".

    Raises:
        ImportError: It is not installed; the message says what brings it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(f"ONNX files need {name}: pip install 'nexus-vision[onnx]'.", name=name) from None
