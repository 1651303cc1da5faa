"""Where else a model runs and gives the same numbers: ONNX Runtime, and NumPy, JAX and MLX through mithril.

`nexus verify --everywhere` tries each of them with small models.
"""

import io
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

import mithril as ml
from nexus.deploy.backends import BACKENDS

NEAR = {"rtol": 1e-3, "atol": 1e-4}
"""How near the outputs must be to torch's, in float32."""


def check_mithril(backend: str, model: nn.Module, images: Tensor) -> None:
    """Raises unless a module that returns one tensor gives it on one of mithril's backends too."""
    graph, params = ml.from_torch(model.eval(), (images,))
    compiled = ml.compile(graph, getattr(ml, BACKENDS[backend])(), inference=True)
    (found,) = compiled.freeze(params).evaluate({}, {compiled.data_keys[0]: images.numpy()}).values()
    _compare(compiled.backend.to_numpy(found), model, images)


def check_onnx(model: nn.Module, images: Tensor) -> None:
    """Raises unless a module that returns one tensor gives it through a file for ONNX Runtime too."""
    import onnxruntime

    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells its progress, and warns of its own calls
        with torch.no_grad():  # a learned bias of attention that asks for gradients cannot be exported
            program = torch.onnx.export(model.eval(), (images,), dynamo=True, verbose=False)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    _compare(np.asarray(found), model, images)


def _compare(found: np.ndarray, model: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        np.testing.assert_allclose(found, model(images).numpy(), **NEAR)


PLACES: Mapping[str, Callable[[nn.Module, Tensor], None]] = {
    "onnx": check_onnx,
    **{name: partial(check_mithril, name) for name in ("numpy", "jax", "mlx")},
}
