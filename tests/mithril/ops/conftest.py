"""Backends for the tests of rows."""

import pytest

from mithril import backends
from tests.mithril.ops.rows import FRAMEWORKS


@pytest.fixture(scope="module")
def tools(needed, may_skip):
    """Backends by label, NumPy and PyTorch in float64 too. Where missing ones may be skipped, they are left out."""
    found = {}
    for label in (*FRAMEWORKS, "numpy64", "torch64"):
        name = label.removesuffix("64")
        try:
            needed(name)
        except ImportError:
            if may_skip:
                continue
            raise
        found[label] = getattr(backends, FRAMEWORKS[name])(dtype="float64" if label.endswith("64") else "float32")
    if "jax" not in found:
        yield found
        return
    import jax

    jax.config.update("jax_disable_most_optimizations", True)  # compiling is what takes the time here
    yield found
    jax.config.update("jax_disable_most_optimizations", False)
