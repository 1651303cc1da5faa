"""Models on JAX, MLX and NumPy, through mithril.

Dims: b batch, c channels, h w pixels.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mithril as ml
from nexus.core.module import NexusModule

BACKENDS = {"torch": "TorchBackend", "jax": "JaxBackend", "mlx": "MlxBackend", "numpy": "NumpyBackend"}


@dataclass(frozen=True)
class BackendModel:
    """A model on another framework, its weights fixed.

    Attributes:
        compiled: mithril's compiled model; `compiled.source` is the program that runs.
        input_name: What the images are called in it.
    """

    compiled: ml.PhysicalModel
    input_name: str

    def __call__(self, images: np.ndarray | Tensor) -> dict[str, np.ndarray]:
        """The model's outputs for normalized images (b, c, h, w); an element of a list is `features_0`."""
        values = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
        outputs = self.compiled.evaluate({}, {self.input_name: values})
        return {name: self.compiled.backend.to_numpy(value) for name, value in outputs.items()}

    def save_source(self, path: str | Path) -> None:
        """Write the program that runs as a Python file."""
        Path(path).write_text(self.compiled.source)


def to_backend(
    model: NexusModule,
    backend: str | ml.Backend = "numpy",
    image_size: int | tuple[int, int] | None = None,
    batch_size: int | None = None,
) -> BackendModel:
    """Bring a model to another framework, for inference.

    The model is imported as it is in evaluation mode; its weights become constants, so that batch norms are folded.

    Args:
        backend: "torch", "jax", "mlx" or "numpy", or a mithril backend with the dtype and device to use.
        image_size: Side, or height and width in pixels; fixed from then on. The preprocessing's, else the
            configuration's, when None.
        batch_size: Images per call; any number when None.

    Raises:
        ValueError: An unknown backend, a missing image size, or a model that mithril cannot import.
    """
    if isinstance(backend, str):
        if backend not in BACKENDS:
            close = difflib.get_close_matches(backend, BACKENDS, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else f" There are {', '.join(BACKENDS)}."
            raise ValueError(f"There is no backend '{backend}'.{hint}")
        backend = getattr(ml, BACKENDS[backend])()
    height, width = _size(model, image_size)
    example = torch.zeros(2 if batch_size is None else batch_size, _channels(model), height, width)
    example = example.to(next(model.parameters()))
    was_training = model.training
    try:
        graph, params = ml.from_torch(model.eval(), (example,), ({0: "batch"},) if batch_size is None else None)
    finally:
        model.train(was_training)
    compiled = ml.compile(graph, backend, inference=True)
    return BackendModel(compiled.freeze(params), compiled.data_keys[0])


def _size(model: NexusModule, wanted: int | tuple[int, int] | None) -> tuple[int, int]:
    """Height and width that the model is imported for."""
    size: Any = wanted or getattr(model.preprocessing, "size", None) or getattr(model.config, "image_size", None)
    if size is None:
        raise ValueError(f"{type(model).__name__} does not say its image size; pass image_size, such as 224.")
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _channels(model: NexusModule) -> int:
    return getattr(model.config, "in_channels", 3)
