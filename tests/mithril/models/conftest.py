"""The backends that layers are compared on: NumPy and torch in float64, JAX and MLX in float32."""

import pytest

import mithril as ml

BACKENDS = {
    "numpy": ("NumpyBackend", ml.float64, 1e-9),
    "torch": ("TorchBackend", ml.float64, 1e-9),
    "jax": ("JaxBackend", ml.float32, 2e-4),
    "mlx": ("MlxBackend", ml.float32, 2e-4),
}


@pytest.fixture(params=BACKENDS)
def backend(needed, request):
    """A backend with the `tolerance` that its results are held to, relative and absolute."""
    name, dtype, tolerance = BACKENDS[request.param]
    needed(request.param)
    made = getattr(ml, name)(dtype=dtype)
    made.tolerance = tolerance
    return made
