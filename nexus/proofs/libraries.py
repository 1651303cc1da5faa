"""The libraries that models are compared with: none of them is needed to use the zoo."""

import importlib
from types import ModuleType

from nexus.core.torchvision import import_torchvision

DISTRIBUTIONS = {"sklearn": "scikit-learn", "skimage": "scikit-image", "faster_coco_eval": "faster-coco-eval"}
"""What pip installs for a package, where it has another name."""


class OracleMissing(ImportError):
    """A library that a proof compares with cannot be imported; the message says why."""


def import_library(name: str) -> ModuleType:
    """Returns a module of a library that something is compared with, such as "timm" or "sklearn.metrics".

    A torchvision whose compiled operators do not fit the installed torch, such as one for CUDA beside a torch for the
    CPU, is imported without them: the networks that we compare with need none.

    Raises:
        OracleMissing: It is not installed, or does not import.
    """
    package = name.partition(".")[0]
    try:
        if package in ("timm", "torchvision", "transformers"):
            import_torchvision(needed=package != "transformers")
        return importlib.import_module("mlx.core" if name == "mlx" else name)  # `mlx` alone imports without its library
    except (ImportError, OSError) as error:
        install = DISTRIBUTIONS.get(package, package)
        raise OracleMissing(f"{name} cannot be imported ({error}): pip install {install}", name=package) from error
