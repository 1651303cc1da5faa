"""The libraries that models are compared with: none of them is needed to use the zoo."""

import importlib
import sys
from types import ModuleType


class OracleMissing(ImportError):
    """A library that a proof compares with cannot be imported; the message says why."""


def import_library(name: str) -> ModuleType:
    """Returns the module of a reference library: "timm", "torchvision" or "transformers".

    A torchvision whose compiled operators do not fit the installed torch, such as one for CUDA beside a torch for the
    CPU, is imported without them: the networks that we compare with need none.

    Raises:
        OracleMissing: It is not installed, or does not import.
    """
    try:
        if name in ("timm", "torchvision", "transformers"):
            _import_torchvision()
        return importlib.import_module(name)
    except ImportError as error:
        if name == "transformers" and error.name == "torchvision":
            return _import_alone(name)
        raise OracleMissing(f"{name} cannot be imported ({error}): pip install {name}") from error


def _import_alone(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise OracleMissing(f"{name} cannot be imported ({error}): pip install {name}") from error


def _import_torchvision() -> ModuleType:
    """Imports torchvision; where its operators do not load, without the module that describes them to the compiler."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:  # "operator torchvision::nms does not exist"
        for module in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
            del sys.modules[module]
        unneeded = "torchvision._meta_registrations"
        sys.modules[unneeded] = ModuleType(unneeded)
        return importlib.import_module("torchvision")
