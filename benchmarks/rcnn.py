"""Faster R-CNN with ResNet-50, forward and post-processing, beside torchvision's, in one run on the CPU.

    python benchmarks/rcnn.py [--threads 1] [--repeats 3] [--height 480] [--width 640]

Both get the same weights and image, and detections are compared. torchvision runs twice: as it is where its compiled
operators do not load, and with the operators of nexus in their place, so that only the models differ. Seconds are
those of the processor, since other work on the machine hardly changes them.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nexus.core.formats import to_our_names
from nexus.core.registry import create_model
from nexus.ops.nms import nms
from nexus.ops.roi import roi_align


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load_oracle_shim()
    torch.manual_seed(0)
    theirs = reference(options.height, options.width)
    ours = create_model("fasterrcnn_resnet50_fpn").eval()
    ours.load_state_dict(to_our_names(theirs.state_dict(), ours.formats)[0])
    image = torch.randn(3, options.height, options.width)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        time_ours = lambda: ours([image])  # noqa: E731
        plain, found = theirs([image])[0], time_ours()
        print(
            f"{len(plain['boxes'])} and {len(found['boxes'][0])} detections of {options.height}x{options.width} pixels"
        )
        compare("torchvision, its Python operators", time_ours, lambda: theirs([image]), 1)
        with_our_operators()
        compare("torchvision, nexus's operators", time_ours, lambda: theirs([image]), options.repeats)


def reference(height: int, width: int) -> torch.nn.Module:
    """Returns torchvision's detector with fresh weights, taking the image as it is."""
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    sizes = {"min_size": min(height, width), "max_size": max(height, width)}
    unchanged = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    model = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, **sizes, **unchanged).eval()
    torch.nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.05)
    return model


def compare(name: str, ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> None:
    mine, other = [], []
    for _ in range(repeats):  # in turn, so that a busy machine slows both
        mine.append(seconds(ours))
        other.append(seconds(theirs))
    a, b = statistics.median(mine), statistics.median(other)
    print(f"nexus {a:7.2f} s   {name} {b:7.2f} s   ratio {a / b:.2f}")


def seconds(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def with_our_operators() -> None:
    import torchvision.ops.boxes as boxes
    import torchvision.ops.poolers as poolers

    def pool(features: Any, rois: Any, output_size: Any, spatial_scale: float, sampling_ratio: int) -> Any:
        options = {"spatial_scale": spatial_scale, "sampling_ratio": sampling_ratio, "aligned": False}
        return roi_align(features, rois[:, 1:], rois[:, 0].long(), tuple(output_size), **options)

    poolers.roi_align, boxes.nms = pool, nms


def load_oracle_shim() -> None:
    """Makes torchvision importable beside a CPU build of torch, if the reference documents are at hand."""
    shim = Path(__file__).resolve().parents[2] / "shared" / "oracles" / "tvshim.py"
    spec = importlib.util.spec_from_file_location("tvshim", shim)
    if shim.is_file() and spec and spec.loader:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if __name__ == "__main__":
    main()
