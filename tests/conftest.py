"""Shared by every test: where the reference documents are, and the oracles that need torchvision."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference documents beside the checkout, or a skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the reference documents are not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def torchvision() -> ModuleType:
    """torchvision, imported through the shim where its compiled operators do not fit the CPU build of torch."""
    shim = SHARED / "oracles" / "tvshim.py"
    if shim.is_file():
        spec = importlib.util.spec_from_file_location("tvshim", shim)
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    try:
        return pytest.importorskip("torchvision", exc_type=ImportError)
    except RuntimeError as reason:  # its compiled operators were built for another torch
        pytest.skip(f"torchvision does not import beside this torch: {reason}")


@pytest.fixture(scope="session")
def timm(torchvision) -> ModuleType:
    """timm, which imports torchvision."""
    return pytest.importorskip("timm")


@pytest.fixture(scope="session")
def transformers(torchvision) -> ModuleType:
    """transformers; after torchvision, because it looks whether that imports."""
    return pytest.importorskip("transformers")
