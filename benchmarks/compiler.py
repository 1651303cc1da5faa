"""mithril: what importing, composing and compiling cost, and what compiled models cost beside their peers.

    python benchmarks/compiler.py [--threads 1] [--repeats 9] [--quick]

Peers run the same weights in turn with ours, and outputs are compared first. Seconds are those of the processor,
since other work on the machine hardly changes them; each figure is a median. (Not named mithril.py: that would
hide the package from its own import.)
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import numpy as np
import torch

import mithril as ml
from mithril import models
from nexus.proofs.libraries import import_library

IMPORT = (
    "import sys, time; start = time.process_time(); import mithril; print(time.process_time() - start);"
    "assert not {'torch', 'jax', 'mlx', 'numpy'} & set(sys.modules)"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="smaller images, one repeat: to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    repeats, size = (1, 64) if options.quick else (options.repeats, 224)
    print(f"{'':54}{'measured':>9}{'goal':>8}")
    importing(repeats)
    compiling(repeats)
    with torch.no_grad():
        against_torchvision(repeats, size)
        against_timm(repeats, size)
    against_jax(repeats, size)


def report(what: str, measured: float, goal: float, unit: str = "") -> None:
    print(f"{what:54}{measured:9.3f}{goal:8.2f} {unit}", flush=True)


def importing(repeats: int) -> None:
    def once() -> float:
        return float(subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout)

    report("import mithril, no framework", statistics.median(once() for _ in range(repeats)), 0.15, "s")


def compiling(repeats: int) -> None:
    """Building and compiling, in eager mode with shapes given."""
    backend = ml.TorchBackend()
    image, tokens = {"input": [1, 3, 224, 224]}, {"input": [1, 64]}
    cases: dict[str, tuple[Callable[[], Any], dict[str, list[int]]]] = {
        "ResNet-152": (models.resnet152, image),
        "GPT-2 small": (models.gpt2, tokens),
        "ViT-B/16": (models.vision_transformer, image),
        "ViT-B/16, 24 layers": (lambda: models.vision_transformer(num_layers=24), image),
    }

    def run(name: str) -> Callable[[], Any]:
        build, shapes = cases[name]
        return lambda: ml.compile(build(), backend, shapes=shapes, jit=False, inference=True)

    for name in cases:
        run(name)()
    found = in_turn({name: run(name) for name in cases}, repeats)
    for name, goal in (("ResNet-152", 0.5), ("GPT-2 small", 0.3), ("ViT-B/16", 0.3)):
        report(f"build and compile {name}", found[name], goal, "s")
    report("time(24 layers) / time(12 layers)", found["ViT-B/16, 24 layers"] / found["ViT-B/16"], 2.5)


def against_torchvision(repeats: int, size: int) -> None:
    torchvision = import_library("torchvision")
    theirs = torchvision.models.resnet50(weights=None).eval()
    for name, value in theirs.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    image = torch.randn(1, 3, size, size)
    compiled = ml.compile(models.resnet50(), ml.TorchBackend(), shapes={"input": [None, 3, size, size]}, inference=True)
    params = state_of(theirs)
    frozen = compiled.freeze(params)
    runs = {
        "theirs": lambda: theirs(image),
        "ours": lambda: compiled.evaluate(params, {"input": image})["output"],
        "frozen": lambda: frozen.evaluate({}, {"input": image})["output"],
    }
    same(runs)
    found = in_turn(runs, repeats)
    report("torch: ResNet-50 / torchvision's", found["ours"] / found["theirs"], 1.02)
    report("torch: ResNet-50 frozen, batch norms folded / same", found["frozen"] / found["theirs"], 1.0)


def against_timm(repeats: int, size: int) -> None:
    timm = import_library("timm")
    theirs = timm.models.VisionTransformer(img_size=size).eval()
    image = torch.randn(1, 3, size, size)
    compiled = ml.compile(
        models.vision_transformer(size), ml.TorchBackend(), shapes={"input": [None, 3, size, size]}, inference=True
    )
    params = state_of(theirs)
    runs = {
        "theirs": lambda: theirs(image),
        "ours": lambda: compiled.evaluate(params, {"input": image})["output"],
    }
    same(runs)
    found = in_turn(runs, repeats)
    report("torch: ViT-B/16 / timm's", found["ours"] / found["theirs"], 1.02)


def against_jax(repeats: int, size: int) -> None:
    import jax

    backend = ml.JaxBackend()
    shapes = {"input": [1, 3, size, size]}
    compiled = ml.compile(models.vision_transformer(size, num_layers=4), backend, shapes=shapes, inference=True)
    params, image = compiled.randomize_params(0), backend.randn(1, 3, size, size)
    forward = jax.jit(jax_vision_transformer, static_argnames=("layers", "heads"))
    runs = {
        "theirs": lambda: forward(params, image, layers=4, heads=12).block_until_ready(),
        "ours": lambda: compiled.evaluate(params, {"input": image})["output"].block_until_ready(),
    }
    same(runs)
    found = in_turn(runs, repeats)
    report("JAX: ViT-B/16, 4 layers / hand-written, jitted", found["ours"] / found["theirs"], 1.02)


def jax_vision_transformer(params: dict[str, Any], images: Any, layers: int, heads: int) -> Any:
    """The forward pass as one writes it by hand."""
    import jax
    import jax.numpy as jnp

    def linear(name: str, x: Any) -> Any:
        return x @ params[f"{name}_weight"].T + params[f"{name}_bias"]

    def norm(name: str, x: Any) -> Any:
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(var + 1e-6) * params[f"{name}_weight"] + params[f"{name}_bias"]

    kernel = params["patch_embed_proj_weight"]
    x = jax.lax.conv_general_dilated(images, kernel, kernel.shape[2:], "VALID")
    x = x.reshape(*x.shape[:2], -1).transpose(0, 2, 1) + params["patch_embed_proj_bias"]
    token = jnp.broadcast_to(params["cls_token"], (x.shape[0], 1, x.shape[2]))
    x = jnp.concatenate([token, x], 1) + params["pos_embed"]
    n, q, d = x.shape
    for i in range(layers):
        qkv = linear(f"blocks_{i}_attn_qkv", norm(f"blocks_{i}_norm1", x)).reshape(n, q, 3, heads, d // heads)
        query, key, value = qkv.transpose(2, 0, 3, 1, 4)
        scores = jax.nn.softmax(query @ key.swapaxes(-1, -2) * (d // heads) ** -0.5)
        x = x + linear(f"blocks_{i}_attn_proj", (scores @ value).swapaxes(1, 2).reshape(n, q, d))
        hidden = jax.nn.gelu(linear(f"blocks_{i}_mlp_fc1", norm(f"blocks_{i}_norm2", x)), approximate=False)
        x = x + linear(f"blocks_{i}_mlp_fc2", hidden)
    return linear("head", norm("norm", x)[:, 0])


def state_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state dict under mithril's keys."""
    state = {key.replace(".", "_"): value for key, value in module.state_dict().items()}
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def same(runs: dict[str, Callable[[], Any]]) -> None:
    """Warm up, and check that all compute the same."""
    results = {name: np.asarray(run()) for name, run in runs.items()}
    for name, value in results.items():
        np.testing.assert_allclose(value, results["theirs"], rtol=1e-3, atol=1e-3, err_msg=name)


def in_turn(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each; they take turns, so that a busy machine slows all."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            gc.collect()  # what others left behind, such as all of timm, is not part of the time
            gc.freeze()
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


if __name__ == "__main__":
    main()
