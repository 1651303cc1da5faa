"""Modules of the user: `--import my_package` or `--import my_models.py` runs one, and what it registers is known."""

import importlib
import importlib.util
import sys
from pathlib import Path


def import_module(name: str) -> None:
    """Imports a module by its name, from here or from where Python looks, or a file by its path.

    Raises:
        ValueError: There is none of this name.
    """
    if name.endswith(".py"):
        _import_file(Path(name))
        return
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise  # the module is there, and imports something that is not
        raise ValueError(
            f"--import is {name!r}, and there is no such module here or where Python looks; a file is named with its"
            " ending, my_models.py."
        ) from None


def _import_file(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"--import is {str(path)!r}, and there is no such file.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
