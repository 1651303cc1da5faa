"""Shared by every test: the libraries that tests compare with, and the reference documents beside the checkout.

A library that is missing fails the tests that need it, by its name. Only who sets NEXUS_SKIP_MISSING_ORACLES=1 has them
skipped: on a platform that has no MLX, say. Tests of the documents beside the checkout are left out where there are none.
"""

import os
from collections.abc import Callable, Generator
from pathlib import Path
from types import ModuleType

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
MAY_SKIP = os.environ.get("NEXUS_SKIP_MISSING_ORACLES") == "1"


def import_library(name: str) -> ModuleType:
    """Imports what the proofs of nexus compare with, when a test asks for it: with them comes torch."""
    from nexus.proofs import libraries

    return libraries.import_library(name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not SHARED.is_dir():
        absent = [item for item in items if "shared" in getattr(item, "fixturenames", ())]
        items[:] = [item for item in items if item not in absent]
        config.hook.pytest_deselected(items=absent)


def _skipping_what_is_missing(item: pytest.Item) -> Generator[None, object, object]:
    """Runs a phase of a test. Where that is allowed, a library that cannot be imported is a skip and not a failure."""
    try:
        for mark in item.iter_markers("needs"):
            import_library(*mark.args)
        return (yield)
    except Exception as error:
        if MAY_SKIP and (missing := _missing(error)):
            pytest.skip(str(missing))
        raise


def _missing(error: BaseException | None) -> ImportError | None:
    """Returns the import of somebody else's library that an error comes from, if it does."""
    while error is not None:
        if isinstance(error, ImportError) and (error.name or "").partition(".")[0] not in ("nexus", "mithril", ""):
            return error
        error = error.__cause__
    return None


pytest_runtest_setup = pytest.hookimpl(wrapper=True)(_skipping_what_is_missing)
pytest_runtest_call = pytest.hookimpl(wrapper=True)(_skipping_what_is_missing)


@pytest.fixture(scope="session")
def may_skip() -> bool:
    """Whether the user lets tests skip what needs a missing library."""
    return MAY_SKIP


@pytest.fixture(scope="session")
def needed() -> Callable[[str], ModuleType]:
    """A function that returns a module of a library that is compared with, and raises if it is missing."""
    return import_library


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference documents beside the checkout; without it these tests are not collected."""
    return SHARED


@pytest.fixture(scope="session")
def torchvision() -> ModuleType:
    """torchvision, without its compiled operators where those do not fit this build of torch."""
    return import_library("torchvision")


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    """timm, which imports torchvision."""
    return import_library("timm")


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    """transformers; after torchvision, because it looks whether that imports."""
    return import_library("transformers")
