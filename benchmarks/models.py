"""Training step and inference against the reference of each family, as ratios of time and of memory, in one run.

    python benchmarks/models.py [pattern] [--repetitions 7] [--threads 2] [--json FILE]

Each row of `ROWS` is one comparison. Both models get the same weights' shapes, the same images and the same memory
layout (contiguous NCHW). After two warm-up steps the two take turns, so that what else the machine does hits both
alike; the median of a model's repetitions is its time, and the ratio that is printed is the median of the ratios of
neighbouring repetitions. On a CPU, memory is the peak resident size of a fresh process that imports only that
library and takes one step, above the resident size after the model is built and its weights touched; on a GPU it is
torch's peak of allocated bytes above the weights.
A ratio below 1 means that nexus is faster, or smaller.
"""

import argparse
import fnmatch
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Row(NamedTuple):
    """One comparison: a registered name, the call that builds the reference, and the sizes of a step."""

    name: str
    reference: str
    batch_inference: int
    batch_training: int
    image_size: int = 224


ROWS = [
    Row("vit_small_patch16_224", "timm:vit_small_patch16_224", 8, 4),
    Row("resnet50", "timm:resnet50", 8, 4),
    Row("vgg11_bn", "torchvision:vgg11_bn", 4, 2),
    Row("mixer_b16_224", "timm:mixer_b16_224", 8, 4),
    Row("swin_tiny_patch4_window7_224", "timm:swin_tiny_patch4_window7_224", 8, 4),
]

SHIM = Path(__file__).resolve().parents[2] / "shared" / "oracles" / "tvshim.py"


@cache
def load_shim() -> None:
    """Makes torchvision import where its compiled operators do not fit this build of torch."""
    if SHIM.is_file():
        spec = importlib.util.spec_from_file_location("tvshim", SHIM)
        if spec and spec.loader:
            spec.loader.exec_module(importlib.util.module_from_spec(spec))


def build(source: str) -> nn.Module:
    """Returns a fresh model: `nexus:NAME`, `timm:NAME` or `torchvision:NAME`."""
    library, _, name = source.partition(":")
    if library == "nexus":
        from nexus import create_model

        return create_model(name)
    load_shim()
    if library == "timm":
        import timm

        return timm.create_model(name)
    import torchvision

    return torchvision.models.get_model(name, weights=None)


def logits(outputs: Any) -> Tensor:
    return outputs["logits"] if isinstance(outputs, dict) else outputs


def make_step(model: nn.Module, images: Tensor, training: bool) -> Callable[[], None]:
    """Returns one step: forward, or forward, backward and an SGD update."""
    if not training:
        model.eval()

        def infer() -> None:
            with torch.inference_mode():
                logits(model(images))
            synchronize(images.device)

        return infer
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    labels = torch.arange(len(images), device=images.device)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(logits(model(images)), labels).backward()
        optimizer.step()
        synchronize(images.device)

    return train


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def times(row: Row, training: bool, repetitions: int, device: torch.device) -> tuple[list[float], list[float]]:
    """Returns seconds of each repetition of ours and of the reference, taken in turns."""
    batch = row.batch_training if training else row.batch_inference
    images = torch.randn(batch, 3, row.image_size, row.image_size, device=device)
    steps = [make_step(build(s).to(device), images, training) for s in (f"nexus:{row.name}", row.reference)]
    for step in steps * 2:
        step()
    seconds: tuple[list[float], list[float]] = ([], [])
    for repetition in range(repetitions):
        order = (0, 1) if repetition % 2 else (1, 0)
        for index in order:
            begin = time.perf_counter()
            steps[index]()
            seconds[index].append(time.perf_counter() - begin)
    return seconds


def peak_memory(source: str, row: Row, training: bool, device: str) -> int:
    """Returns the bytes that one step adds to a model, measured in a process of its own."""
    batch = row.batch_training if training else row.batch_inference
    arguments = [source, str(batch), str(row.image_size), str(int(training)), device, str(torch.get_num_threads())]
    command = [sys.executable, str(Path(__file__).resolve()), "--measure-memory", *arguments]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def measure_memory(source: str, batch: str, size: str, training: str, device: str, threads: str) -> None:
    """The body of the process that `peak_memory` starts: prints one number."""
    torch.set_num_threads(int(threads))
    model = build(source).to(device)
    images = torch.randn(int(batch), 3, int(size), int(size), device=device)
    step = make_step(model, images, training == "1")
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        step()
        print(torch.cuda.max_memory_allocated() - before)
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = resident("VmRSS")
    step()
    print(resident("VmHWM") - before)


def resident(field: str) -> int:
    """Returns a figure of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def compare(row: Row, training: bool, repetitions: int, device: torch.device) -> dict[str, Any]:
    ours, theirs = times(row, training, repetitions, device)
    memory = [peak_memory(source, row, training, device.type) for source in (f"nexus:{row.name}", row.reference)]
    return {
        "model": row.name,
        "reference": row.reference,
        "step": "training" if training else "inference",
        "batch": row.batch_training if training else row.batch_inference,
        "seconds": statistics.median(ours),
        "reference_seconds": statistics.median(theirs),
        "time_ratio": statistics.median(a / b for a, b in zip(ours, theirs)),
        "megabytes": memory[0] / 2**20,
        "reference_megabytes": memory[1] / 2**20,
        "memory_ratio": memory[0] / memory[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pattern", nargs="?", default="*", help="which rows, as a shell pattern of names")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"torch {torch.__version__}, {device}, {options.threads} threads; ratios are nexus / reference")
    print("model                    step       batch       ms   ref ms   time      MB  ref MB memory")
    figures = []
    for row in ROWS:
        if not fnmatch.fnmatch(row.name, options.pattern):
            continue
        for training in (False, True):
            figure = compare(row, training, options.repetitions, device)
            figures.append(figure)
            print(
                f"{figure['model']:24} {figure['step']:10} {figure['batch']:5} {1e3 * figure['seconds']:8.1f} "
                f"{1e3 * figure['reference_seconds']:8.1f} {figure['time_ratio']:6.3f} {figure['megabytes']:7.0f} "
                f"{figure['reference_megabytes']:7.0f} {figure['memory_ratio']:6.3f}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure-memory"]:
        measure_memory(*sys.argv[2:])
    else:
        main()
