"""Measure imported models and write docs/mithril-models.md: model x backend x largest difference x compile time.

    python benchmarks/table_from_torch.py [--only NAME ...] [--measures numpy jax ...] [--again]

Models are those of tests/mithril/interop: small, random weights, a batch of two. Measures are appended to a file, one
line each, and what is in it is not measured again: a run that was stopped goes on where it was. The page is written
from that file.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from from_torch import ratio

import mithril as ml
from mithril.interop.exporting import named_leaves
from nexus.proofs.libraries import import_library

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = {"torch": "TorchBackend", "numpy": "NumpyBackend", "jax": "JaxBackend", "mlx": "MlxBackend"}
MEASURES = {
    "torch": "PyTorch", "numpy": "NumPy", "numpy64": "NumPy float64", "jax": "JAX", "jax64": "JAX float64",
    "jax_gradients": "JAX gradients float64", "mlx": "MLX",
}  # fmt: skip
SAMPLE = {
    "convnext", "mobilenet_v3", "regnet_y", "densenet", "coatnet", "pvt_v2", "levit", "hiera", "beit", "segformer",
    "dpt", "bert", "vit_tiny_patch16_224", "resnet18", "swin_tiny_patch4_window7_224", "efficientnet_b0",
    "dinov2_vits14", "mae_vit_base_patch16_224", "clip_vit_base_patch32_224", "detr_resnet50", "rtdetr_r18",
}  # fmt: skip
"""Models whose gradients are compared too."""


class Imported:
    """A module, what it returns, and the model that it became.

    Args:
        make: gives the module and its inputs by name.
        wide: everything in float64.
    """

    def __init__(self, make: Callable[[], tuple[Any, dict[str, torch.Tensor]]], wide: bool):
        dtype = torch.float64 if wide else torch.float32
        module, inputs = make()
        self.module = module.to(dtype)
        self.inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        start = time.process_time()
        self.model, self.params = ml.from_torch(self.module, self.inputs)
        self.seconds = time.process_time() - start
        self.dtype = ml.float64 if wide else ml.float32

    def compile(self, word: str) -> tuple[Any, float]:
        """The model on a backend, and the seconds that it took."""
        backend = getattr(ml, BACKENDS[word])(dtype=self.dtype)
        start = time.process_time()
        compiled = ml.compile(self.model, backend, inference=True)
        return compiled, time.process_time() - start

    def data(self) -> dict[str, np.ndarray]:
        return {key: value.numpy() for key, value in self.inputs.items()}

    def values(self, word: str) -> dict[str, float]:
        """Largest difference of any output from the module's, relative to the output's largest value."""
        compiled, seconds = self.compile(word)
        outputs = compiled.evaluate(self.params, self.data())
        found = {key: compiled.backend.to_numpy(value) for key, value in outputs.items()}
        with torch.no_grad():
            returned = dict(named_leaves(self.module(**self.inputs)))
        expected = {key: v.numpy() for key, v in returned.items() if isinstance(v, torch.Tensor)}
        assert found.keys() == expected.keys()
        if self.dtype is ml.float64:  # a detector gives its boxes and scores in float32 even then
            expected = {key: v for key, v in expected.items() if v.dtype != np.float32}
        assert any(v.std() > 1e-6 for v in expected.values()), "the outputs do not vary"
        difference = max(_relative(found[key], value) for key, value in expected.items())
        measured = {"difference": difference, "import": self.seconds, "compile": seconds}
        if word == "torch" and self.dtype is ml.float32:
            measured["ratio"] = self.run_ratio(compiled)
        return measured

    def run_ratio(self, compiled: Any) -> float:
        """Time of a call on torch over the module's own."""
        arrays = {key: compiled.backend.array(value) for key, value in self.params.items()}
        with torch.inference_mode():
            calls = lambda: compiled.evaluate(arrays, self.inputs), lambda: self.module(**self.inputs)
            return ratio(*calls, pairs=15, clock=time.process_time)[2]

    def gradients(self, word: str) -> dict[str, float]:
        """Largest difference of a parameter's gradient, relative to its largest value or to 1/1000 of the largest of
        all; the loss is the mean square of all outputs that have a gradient."""
        compiled, seconds = self.compile(word)
        outputs = dict(named_leaves(self.module(**self.inputs)))
        tensors = {k: v for k, v in outputs.items() if isinstance(v, torch.Tensor)}
        losses = {k: v for k, v in tensors.items() if v.requires_grad and v.dtype is torch.float64}
        sum(v.square().mean() for v in losses.values()).backward()
        cotangents = {k: (2 * v / v.numel()).detach().numpy() for k, v in losses.items()}
        found = compiled.evaluate_gradients(self.params, self.data(), cotangents)
        theirs = {k.replace(".", "_"): v.grad.numpy() for k, v in self.module.named_parameters() if v.grad is not None}
        assert theirs.keys() <= found.keys()
        least = max(np.abs(v).max() for v in theirs.values()) / 1000
        difference = max(_relative(compiled.backend.to_numpy(found[k]), v, least) for k, v in theirs.items())
        return {"difference": difference, "import": self.seconds, "compile": seconds}


def _relative(found: np.ndarray, expected: np.ndarray, least: float = 1e-9) -> float:
    wide = expected.astype(np.float64)
    return float(np.abs(found - wide).max() / max(np.abs(wide).max(), least))


# Models by library


def catalogue() -> dict[str, dict[str, Callable[[], Any]]]:
    """Functions that make the models, by library and name."""
    sys.path.insert(0, str(ROOT))
    from tests.mithril.interop import foreign, zoo

    @cache
    def libraries() -> tuple[Any, Any]:
        return import_library("timm"), import_library("transformers")

    return {
        "nexus": {name: lambda name=name: zoo.make(name) for name in zoo.NAMES},
        "timm": {name: lambda name=name: foreign.make(name, *libraries()) for name in foreign.TIMM},
        "transformers": {name: lambda name=name: foreign.make(name, *libraries()) for name in foreign.TRANSFORMERS},
    }


def measure(make: Callable[[], Any], words: Iterable[str]) -> Iterable[tuple[str, dict[str, float]]]:
    """The measures of one model; float32 and float64 are imported once each."""
    imported: dict[bool, Imported] = {}
    for word in words:
        backend, gradients, wide = (
            word.removesuffix("_gradients").removesuffix("64"),
            "grad" in word,
            word not in BACKENDS,
        )
        if wide not in imported:
            imported[wide] = Imported(make, wide)
        yield word, imported[wide].gradients(backend) if gradients else imported[wide].values(backend)


# The page

HEAD = """# Imported models

Written by `python benchmarks/table_from_torch.py`. Small configurations with random weights and statistics, two images
each, brought over by `ml.from_torch` and compared with the module itself, all of its outputs. A difference is the
largest of any output, relative to that output's largest value (in float64 without what a detector gives in float32
even then; XCiT and EdgeNeXt compute their positions in float32 always). Seconds are the processor's, of
`ml.from_torch` under `import` and of `ml.compile` beside each difference; what XLA needs for JAX's first run comes on
top. `run` is the time of a call on PyTorch over the module's own (one thread, median of 15 pairs); the models are
small, so it says what calls cost. Gradients are those of the mean square of all outputs, in float64, for a sample of
the models; PyTorch itself rounds the slope of a hard sigmoid, which MobileNetV3 has, to float32.
"""


def page(results: dict[str, dict[str, dict[str, float]]], libraries: dict[str, dict[str, Any]]) -> str:
    """The page of all measures."""
    lines = [HEAD, "| | models | largest difference |", "| --- | --- | --- |"]
    for word, title in MEASURES.items():
        found = {name: row[word]["difference"] for name, row in results.items() if word in row}
        if found:
            worst = max(found, key=lambda name: found[name])
            lines.append(f"| {title} | {len(found)} | {found[worst]:.1e} ({worst}) |")
    for library, models in libraries.items():
        rows = [name for name in models if name in results]
        if rows:
            lines += ["", f"## {library}: {len(rows)} models", "", _titles(), *(_row(n, results[n]) for n in rows)]
    return "\n".join(lines) + "\n"


def _titles() -> str:
    titles = ["model", "import", *MEASURES.values()]
    titles.insert(3, "run")
    return f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}"


def _row(name: str, row: dict[str, dict[str, float]]) -> str:
    seconds = [found["import"] for word, found in row.items() if word in BACKENDS]
    cells = [name, f"{seconds[0]:.1f} s" if seconds else ""]
    for word in MEASURES:
        found = row.get(word)
        cells.append(_cell(word, found) if found else "")
        if word == "torch":
            cells.append(f"{found['ratio']:.2f}" if found else "")
    return f"| {' | '.join(cells)} |"


def _cell(word: str, found: dict[str, float]) -> str:
    if word not in BACKENDS:
        return f"{found['difference']:.0e}"
    return f"{found['difference']:.0e}, {found['compile']:.2f} s"


def read(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Measures by model and by what was measured; of several the last one."""
    results: dict[str, dict[str, dict[str, float]]] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        found = json.loads(line)
        results.setdefault(found.pop("model"), {})[found.pop("measure")] = found
    return results


def wanted(name: str, measures: Sequence[str]) -> list[str]:
    """What is measured of a model."""
    return [word for word in measures if "gradients" not in word or name in SAMPLE]


def quick() -> None:
    """Measure one model of each library, and print the page."""
    libraries = catalogue()
    chosen = {"nexus": "resnet18", "timm": "mobilenet_v2", "transformers": "bert"}
    made = {name: libraries[library][name] for library, name in chosen.items()}
    print(page({name: dict(measure(make, ("torch", "numpy"))) for name, make in made.items()}, libraries))


def main() -> None:
    """Measure what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measures", nargs="*", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument("--only", nargs="+", help="names of models; all without")
    parser.add_argument("--again", action="store_true", help="measure anew what the file has")
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "from_torch.jsonl")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "mithril-models.md")
    parser.add_argument(
        "--quick", action="store_true", help="one model on PyTorch and NumPy, printed: to see that it runs"
    )
    options = parser.parse_args()
    if options.quick:
        quick()
        return
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if any("jax" in word for word in options.measures):
        import jax

        jax.config.update("jax_disable_most_optimizations", True)  # XLA takes half the time; values are of interest
    options.results.parent.mkdir(parents=True, exist_ok=True)
    libraries = catalogue()
    for name, make in ((n, m) for models in libraries.values() for n, m in models.items()):
        have = set() if options.again else set(read(options.results).get(name, ()))
        words = [word for word in wanted(name, options.measures) if word not in have]
        if not words or (options.only and name not in options.only):
            continue
        for word, found in measure(make, words):
            with options.results.open("a") as file:
                file.write(json.dumps({"model": name, "measure": word, **found}) + "\n")
            sys.stdout.write(f"{name} {word} {found['difference']:.1e}\n")
            sys.stdout.flush()
        gc.collect()
    options.output.write_text(page(read(options.results), libraries))


if __name__ == "__main__":
    main()
