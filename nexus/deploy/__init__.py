"""From trained models to what runs elsewhere. Each name is loaded when it is first used."""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "BackendModel": "nexus.deploy.backends",
    "to_backend": "nexus.deploy.backends",
    "OnnxModel": "nexus.deploy.onnx_model",
    "OnnxVideo": "nexus.deploy.onnx_video",
    "ExportError": "nexus.deploy.onnx_files",
    "Stage": "nexus.deploy.onnx_files",
    "export_onnx": "nexus.deploy.onnx_files",
}

__all__ = ["BackendModel", "ExportError", "OnnxModel", "OnnxVideo", "Stage", "export_onnx", "to_backend"]

if TYPE_CHECKING:
    from nexus.deploy.backends import BackendModel, to_backend
    from nexus.deploy.onnx_files import ExportError, Stage, export_onnx
    from nexus.deploy.onnx_model import OnnxModel
    from nexus.deploy.onnx_video import OnnxVideo


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nexus.deploy' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
