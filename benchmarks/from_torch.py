"""What from_torch costs beside torch.export, and what the imported model costs beside the module it came from.

    python benchmarks/from_torch.py [--model vit_base_patch16_224]

One run prints all rows, so that they share the state of the machine. Times of runs are medians of interleaved pairs.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.export import export

import mithril as ml
from nexus import create_model

Clock = Callable[[], float]


def seconds(function: Callable[[], Any], clock: Clock = time.perf_counter) -> float:
    """How long one call takes."""
    start = clock()
    function()
    return clock() - start


def ratio(
    ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int, clock: Clock = time.perf_counter
) -> tuple[float, float, float]:
    """Median seconds of both, and the median ratio of `pairs` pairs, each in alternating order.

    On a busy machine `time.process_time` with one thread says more than the wall's clock.
    """
    ours(), theirs()
    times = []
    for turn in range(pairs):
        first, second = (ours, theirs) if turn % 2 else (theirs, ours)
        a, b = seconds(first, clock), seconds(second, clock)
        times.append((a, b) if turn % 2 else (b, a))
    median = [statistics.median(column) for column in zip(*times)]
    return median[0], median[1], statistics.median(a / b for a, b in times)


def bring(name: str, batch: int, pairs: int) -> list[str]:
    """Rows of one model."""
    module = create_model(name).eval()
    images = torch.randn(batch, 3, 224, 224)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))  # what torch loads on the first call is nobody's time
        exporting = seconds(lambda: export(module, (images,)))
    found: list[Any] = []
    importing = seconds(lambda: found.extend(ml.from_torch(module, images)))
    model, params = found
    start = time.perf_counter()
    compiled = ml.compile(model, ml.TorchBackend(), inference=True)
    compiling = time.perf_counter() - start
    arrays = {key: compiled.backend.array(value) for key, value in params.items()}
    frozen = compiled.freeze(arrays)
    key = compiled.data_keys[0]
    with torch.inference_mode():
        theirs, ours = module(images)["logits"], compiled.evaluate(arrays, {key: images})["logits"]
        difference = (ours - theirs).abs().max() / theirs.abs().max()
        run = ratio(lambda: compiled.evaluate(arrays, {key: images}), lambda: module(images), pairs)
        folded = ratio(lambda: frozen.evaluate({}, {key: images}), lambda: module(images), pairs)
    lines = len(compiled.source.splitlines())
    return [
        f"{name}: {len(compiled.graph.nodes)} operators, {lines} lines of source, largest difference {difference:.1e}",
        f"  torch.export {exporting:.2f} s, from_torch {importing:.2f} s, compile {compiling:.2f} s: "
        f"{importing + compiling - exporting:+.2f} s over torch.export",
        f"  run {run[0] * 1000:.0f} ms, the module {run[1] * 1000:.0f} ms: ratio {run[2]:.3f}",
        f"  run with frozen parameters {folded[0] * 1000:.0f} ms: ratio {folded[2]:.3f}",
    ]


def main() -> None:
    """Print the rows of each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", help="a name of the zoo; vit_base_patch16_224 and resnet50 without")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="a small model, one pair: to see that it runs")
    options = parser.parse_args()
    names = ["resnet18"] if options.quick else ["vit_base_patch16_224", "resnet50"]
    for name in options.model or names:
        print("\n".join(bring(name, options.batch, 1 if options.quick else options.pairs)))


if __name__ == "__main__":
    main()
