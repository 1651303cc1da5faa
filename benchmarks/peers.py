"""One ResNet of the zoo as each of mithril's neighbours runs it on the CPU, beside PyTorch.

    python benchmarks/peers.py [--model resnet18] [--repeats 9]

The weights are the same and outputs are compared first. One thread; the ways take turns; each figure is a median.
"""

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import numpy as np
import torch

import mithril as ml
from nexus import create_model


class Logits(torch.nn.Module):
    """The part of the outputs that is compared."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images)["logits"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="small images, one repeat: to see that it runs")
    options = parser.parse_args()
    repeats, size = (1, 64) if options.quick else (options.repeats, 224)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module, images = Logits(create_model(options.model)).eval(), torch.randn(1, 3, size, size)
    ways = {"PyTorch": torch_way(module, images), "ONNX Runtime": onnx_way(module, images), **ours(module, images)}
    expected = ways["PyTorch"]()
    for name, run in ways.items():
        np.testing.assert_allclose(run(), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max(), err_msg=name)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    found = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{options.model:32}{'seconds':>9}{'/ PyTorch':>11}")
    for name, time_ in found.items():
        print(f"{name:32}{time_:9.4f}{time_ / found['PyTorch']:11.2f}")


def torch_way(module: torch.nn.Module, images: torch.Tensor) -> Callable[[], np.ndarray]:
    def run() -> np.ndarray:
        with torch.inference_mode():
            return module(images).numpy()

    return run


def onnx_way(module: torch.nn.Module, images: torch.Tensor) -> Callable[[], np.ndarray]:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        torch.onnx.export(module, (images,), path, dynamo=True, external_data=False)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]


def ours(module: torch.nn.Module, images: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """mithril, frozen, on three frameworks."""
    model, params = ml.from_torch(module, images)
    ways = {}
    for kind in (ml.TorchBackend, ml.JaxBackend, ml.NumpyBackend):
        backend = kind()
        frozen = ml.compile(model, backend, inference=True).freeze(params)
        data = {frozen.data_keys[0]: backend.array(images.numpy())}
        ways[f"mithril on {backend.name}, frozen"] = lambda frozen=frozen, data=data, to=backend.to_numpy: to(
            frozen.evaluate({}, data)["output"]
        )
    return ways


if __name__ == "__main__":
    main()
