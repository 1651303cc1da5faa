"""The weights inside a pickled model object, read as data: the classes of its authors are neither needed nor run.

Some projects publish `torch.save(model)` instead of its state dict; YOLOv10's release is an example. Such a file names
classes, which are replaced here by bare holders of attributes. A file that names anything that could act is refused.
"""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from nexus.core.torchscript import InertModule, InertReader

CLASSES_OF = ("torch.nn.modules.", "ultralytics.", "models.")
"""Packages whose classes become holders of attributes."""
HOLDERS = ("ema", "model")
"""Where a training checkpoint keeps the model, the averaged one first."""
_VALUES: dict[tuple[str, str], Any] = {
    ("torch", "Size"): tuple,
    ("torch.nn.parameter", "Parameter"): InertModule,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}


def read_pickled_module(path: Path) -> dict[str, Tensor] | None:
    """Returns the state dict of the model object in a file of `torch.save`; None if there is no such object.

    Raises:
        pickle.UnpicklingError: The file names something other than modules and plain data.
        ValueError, KeyError, OSError: It is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        record = next((name for name in archive.namelist() if name.endswith("/data.pkl")), "data.pkl")
        with archive.open(record) as file:
            root = _Reader(file, archive, record.removesuffix("data.pkl")).load()
    places = [root.get(key) for key in HOLDERS] if isinstance(root, Mapping) else [root]
    module = next((one for one in places if isinstance(one, InertModule) and "_modules" in vars(one)), None)
    return None if module is None else dict(_state(module, ""))


def _state(module: InertModule, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yields what `nn.Module.state_dict` would: parameters, persistent buffers, then the parts."""
    values = vars(module)
    passing = values.get("_non_persistent_buffers_set", ())
    own = {**values.get("_parameters", {}), **values.get("_buffers", {})}
    for name, value in own.items():
        if isinstance(value, Tensor) and name not in passing:
            yield prefix + name, value
    for name, part in values.get("_modules", {}).items():
        if isinstance(part, InertModule):
            yield from _state(part, f"{prefix}{name}.")


class _Reader(InertReader):
    """Unpickles modules of known projects as holders; what `InertReader` refuses stays refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith(CLASSES_OF):
            return InertModule
        if (module, name) in _VALUES:
            return _VALUES[module, name]
        return super().find_class(module, name)
