"""Write docs/mithril-models.md: model x backend x largest difference x compile time, for models of three libraries.

    python benchmarks/table_from_torch.py [--backends numpy torch mlx jax] [--only NAME ...]

Models are small and have random weights; they are those of tests/mithril/interop. A difference is relative to the
output's largest value, against the module in float32. JAX's figure includes no run: compiling there is mithril's part.
"""

import argparse
import importlib.util
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mithril as ml
from mithril.interop.exporting import named_leaves

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = {"numpy": "NumpyBackend", "torch": "TorchBackend", "mlx": "MlxBackend", "jax": "JaxBackend"}


def load(path: Path) -> Any:
    """A Python file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(name: str, module: Any, inputs: Any, backends: list[str]) -> str:
    """One line of the table."""
    start = time.perf_counter()
    model, params = ml.from_torch(module, inputs)
    cells = [name, f"{time.perf_counter() - start:.1f} s"]
    with torch.no_grad():
        outputs = module(**inputs) if isinstance(inputs, dict) else module(*inputs)
    expected = {k: v.numpy() for k, v in named_leaves(outputs) if isinstance(v, torch.Tensor)}
    for word in backends:
        backend = getattr(ml, BACKENDS[word])()
        start = time.perf_counter()
        compiled = ml.compile(model, backend, inference=True)
        seconds = time.perf_counter() - start
        data = inputs if isinstance(inputs, dict) else dict(zip(compiled.data_keys, inputs))
        found = compiled.evaluate(params, {k: v.numpy() for k, v in data.items()})
        differences = [
            np.abs(backend.to_numpy(found[k]) - v).max() / max(np.abs(v).max(), 1e-9) for k, v in expected.items()
        ]
        cells.append(f"{max(differences):.0e}, {seconds:.2f} s")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", choices=list(BACKENDS), default=["numpy", "torch", "mlx"])
    parser.add_argument("--only", nargs="+", help="names of models; all without")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "mithril-models.md")
    options = parser.parse_args()
    shim = ROOT.parent / "shared" / "oracles" / "tvshim.py"
    if shim.is_file():
        load(shim)
    import timm
    import transformers

    warnings.simplefilter("ignore")
    foreign = load(ROOT / "tests" / "mithril" / "interop" / "foreign.py")
    names = options.only or [*foreign.TIMM, *foreign.TRANSFORMERS]
    lines = [
        "# Imported models",
        "",
        "Written by `python benchmarks/table_from_torch.py`. Small configurations, random weights, float32. Each cell",
        "has the largest difference from PyTorch, relative to the output's largest value, and the seconds of",
        "`ml.compile`; `import` has those of `ml.from_torch`.",
        "",
        f"| model | import | {' | '.join(options.backends)} |",
        f"| --- | --- | {' | '.join('---' for _ in options.backends)} |",
    ]
    for name in names:
        module, inputs = foreign.make(name, timm, transformers)
        lines.append(row(name, module, inputs, options.backends))
        sys.stdout.write(lines[-1] + "\n")
        sys.stdout.flush()
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
