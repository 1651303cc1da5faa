"""torchvision's compiled operators, where they load beside this build of torch."""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import torch


@cache
def compiled_ops() -> Any | None:
    """Returns the namespace that holds torchvision's `nms`, `roi_align` and `roi_pool`, or None.

    Only the shared library is loaded, once, never the Python package: that would cost a second and fails as a
    whole where the library was built for another torch.
    """
    spec = importlib.util.find_spec("torchvision")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for library in sorted(Path(folder).glob("_C*")):
            try:
                torch.ops.load_library(str(library))
            except (OSError, RuntimeError):
                continue
            return torch.ops.torchvision
    return None
