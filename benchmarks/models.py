"""Training step and inference against the reference of each family, as ratios of time and of memory, in one run.

    python benchmarks/models.py [pattern] [--repetitions 9] [--threads 2] [--cpu-time] [--json FILE]

Each row of `ROWS` is one comparison. Both models get images of the same size in the same memory layout (contiguous
NCHW), and inference leaves out the features of each block, which the references do not return either. After two
warm-up steps the two take turns, so that what else the machine does hits both alike; the median of a model's
repetitions is its time, and the ratio is the median of the ratios of neighbouring repetitions. Where weights lie in
memory changes a model's time by several per cent, so each third of the repetitions has fresh models.

Memory is the peak of what torch allocates during the first step, beside the weights, which are the same: exact, and the
same at every run. On a CPU torch's profiler counts it.

A ratio below 1 means that nexus is faster, or smaller.
"""

import argparse
import fnmatch
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler is not to tell when it starts and stops

import torch
from torch import Tensor, nn

from nexus.proofs.libraries import import_library

Clock = Callable[[], float]


class Row(NamedTuple):
    """One comparison.

    Attributes:
        name: A registered name.
        reference: What builds the reference: `timm:NAME`, `torchvision:NAME`, or `transformers:MODEL:CONFIG` for the
            default configuration, which is the published base model; `@SIZE` after a name of timm is the image's side.
        batch_inference: Images in an inference step.
        batch_training: Images in a training step.
        image_size: Their side in pixels.
        text: Of models that see texts too: tokens in each, and the vocabulary's size. There are as many as images.
    """

    name: str
    reference: str
    batch_inference: int
    batch_training: int
    image_size: int = 224
    text: tuple[int, int] | None = None


ROWS = [
    Row("vit_small_patch16_224", "timm:vit_small_patch16_224", 4, 4),
    Row("resnet50", "timm:resnet50", 4, 4),
    Row("vgg11_bn", "torchvision:vgg11_bn", 4, 2),
    Row("mixer_b16_224", "timm:mixer_b16_224", 8, 4),
    Row("efficientnet_b0", "timm:efficientnet_b0", 8, 4),
    Row("swin_tiny_patch4_window7_224", "timm:swin_tiny_patch4_window7_224", 8, 4),
    Row("dinov2_vits14", "timm:vit_small_patch14_dinov2@224", 4, 4),
    Row("eva02_small_patch14_224", "timm:eva02_small_patch14_224", 4, 4),
    Row("mae_vit_base_patch16_224", "transformers:ViTMAEForPreTraining:ViTMAEConfig", 4, 4),
    Row("clip_vit_base_patch32_224", "transformers:CLIPModel:CLIPConfig", 4, 4, text=(77, 49408)),
    Row("siglip_base_patch16_224", "transformers:SiglipModel:SiglipConfig", 4, 2, text=(64, 32000)),
]
"""One for each family that has a peer; HiViT has none that can be installed."""

QUICK = {"efficientnet_b0", "vgg11_bn", "clip_vit_base_patch32_224"}
"""A row for each library."""


def build(source: str) -> nn.Module:
    """Returns a fresh model of `nexus:NAME`, or of a row's `reference`."""
    library, _, name = source.partition(":")
    if library == "nexus":
        from nexus import create_model

        return create_model(name)
    if library == "transformers":
        transformers = import_library("transformers")
        transformers.logging.set_verbosity_error()  # SigLIP's default configuration warns about itself
        model, _, config = name.partition(":")
        return getattr(transformers, model)(getattr(transformers, config)())
    if library == "timm":
        timm = import_library("timm")
        name, _, size = name.partition("@")
        changes: dict[str, Any] = {"img_size": int(size)} if size else {}
        return timm.create_model(name, **changes)
    torchvision = import_library("torchvision")
    return torchvision.models.get_model(name, weights=None)


def inputs(source: str, row: Row, images: Tensor, *, training: bool) -> dict[str, Any]:
    """Returns the arguments of a forward: images, and texts where the model sees them."""
    library = source.partition(":")[0]
    given: dict[str, Any] = {}
    if library == "nexus" and not training:
        given = {"output_features": False}  # which the references do not return either
    if row.text is not None:
        length, vocabulary = row.text
        tokens = torch.randint(1, vocabulary - 1, (len(images), length), device=images.device)
        tokens[:, -1] = vocabulary - 1  # the end of a text, which CLIP reads
        given |= {"tokens": tokens} if library == "nexus" else {"input_ids": tokens}
        if training:
            given |= {"output_losses": True} if library == "nexus" else {"return_loss": True}
    return given | {"pixel_values" if library == "transformers" else FIRST[library]: images}


FIRST = {"nexus": "images", "timm": "x", "torchvision": "x"}
"""How each library calls the images."""


def loss(outputs: Any, labels: Tensor) -> Tensor:
    """Returns the model's own loss, or the cross-entropy of its logits (of its features, where it has no classes)."""
    if isinstance(outputs, Tensor):
        return nn.functional.cross_entropy(outputs, labels)
    if getattr(outputs, "loss", None) is not None:
        return outputs.loss
    if "losses" in outputs:
        return torch.stack(list(outputs["losses"].values())).sum()
    found = outputs.get("logits")
    return nn.functional.cross_entropy(outputs["embeddings"] if found is None else found, labels)


def make_step(source: str, row: Row, training: bool, device: torch.device) -> Callable[[], None]:
    """Returns one step: forward, or forward, backward and an SGD update."""
    model = build(source).to(device)
    batch = row.batch_training if training else row.batch_inference
    images = torch.randn(batch, 3, row.image_size, row.image_size, device=device)
    given = inputs(source, row, images, training=training)
    if not training:
        model.eval()

        def infer() -> None:
            with torch.inference_mode():
                model(**given)
            synchronize(images.device)

        return infer
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    labels = torch.arange(len(images), device=images.device)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(model(**given), labels).backward()
        optimizer.step()
        synchronize(images.device)

    return train


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def times(
    row: Row, training: bool, repetitions: int, device: torch.device, clock: Clock
) -> tuple[list[float], list[float]]:
    """Returns seconds of each repetition of ours and of the reference, in turns; each third has fresh models."""
    seconds: tuple[list[float], list[float]] = ([], [])
    steps: list[Callable[[], None]] = []
    for repetition in range(repetitions):
        if repetition % -(-repetitions // 3) == 0:
            steps = [make_step(source, row, training, device) for source in (f"nexus:{row.name}", row.reference)]
            for step in steps * 2:
                step()
        for index in (0, 1) if repetition % 2 else (1, 0):
            begin = clock()
            steps[index]()
            seconds[index].append(clock() - begin)
    return seconds


def peak_memory(source: str, row: Row, training: bool, device: torch.device) -> int:
    """Returns the bytes that the first step of a fresh model has at most beside the weights."""
    step = make_step(source, row, training, device)
    if device.type == "cuda":
        torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)  # cuBLAS's workspace, once for both
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    return peak_of(step)


def peak_of(step: Callable[[], Any]) -> int:
    """Returns the bytes that a call allocates at most on the CPU."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    profiler: Any = profile.profiler
    events = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in events))


def compare(
    row: Row, training: bool, memory: tuple[int, ...], repetitions: int, device: torch.device, clock: Clock
) -> dict[str, Any]:
    ours, theirs = times(row, training, repetitions, device, clock)
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
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds, for a machine that others use too")
    parser.add_argument(
        "--quick", action="store_true", help="one row for each library, one repetition: to see that it runs"
    )
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"torch {torch.__version__}, {device}, {options.threads} threads; ratios are nexus / reference")
    print("model                    step       batch       ms   ref ms   time      MB  ref MB memory")
    rows = [row for row in ROWS if fnmatch.fnmatch(row.name, options.pattern)]
    repetitions = options.repetitions
    if options.quick:
        rows = [row._replace(batch_inference=1, batch_training=1) for row in rows if row.name in QUICK]
        repetitions = 1
    figures = []
    for row, training in itertools.product(rows, (False, True)):
        sources = (f"nexus:{row.name}", row.reference)
        bytes_of_both = tuple(peak_memory(source, row, training, device) for source in sources)
        figure = compare(row, training, bytes_of_both, repetitions, device, clock)
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
    main()
