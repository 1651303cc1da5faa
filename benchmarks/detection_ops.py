"""Detection operators beside the plain implementations of other libraries, in one run on one CPU thread.

    python benchmarks/detection_ops.py [--threads 1] [--repeats 3]

Peers: torchvision's Python `roi_align` and the greedy loop over boxes (what runs where its compiled operators do
not load), and the sampling loop over levels of transformers' RT-DETR v2. Each line shows the median time of both in
milliseconds, their ratio (below 1 is faster here), and the largest difference of the results.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from nexus.ops.boxes import iou
from nexus.ops.deformable import deformable_attention
from nexus.ops.nms import nms
from nexus.ops.roi import roi_align
from nexus.proofs.libraries import import_library

Case = tuple[str, Callable[[], Tensor], Callable[[], Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="fewer boxes, one repeat: to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'operator':44} {'nexus':>9} {'peer':>9} {'ratio':>6}  difference")
    repeats, number = (1, 500) if options.quick else (options.repeats, 10_000)
    for name, ours, theirs in [*nms_cases(number), *roi_cases(), *deformable_cases()]:
        difference = (ours() - theirs()).abs().max().item()
        mine, other = [], []
        for _ in range(repeats):  # in turn, so that a busy machine slows both
            mine.append(milliseconds(ours))
            other.append(milliseconds(theirs))
        a, b = statistics.median(mine), statistics.median(other)
        print(f"{name:44} {a:9.1f} {b:9.1f} {a / b:6.2f}  {difference:.0e}")


def milliseconds(run: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1000


def random_boxes(n: int, image: float, largest: float) -> Tensor:
    corners = torch.rand(n, 2) * (image - largest)
    return torch.cat([corners, corners + 4 + torch.rand(n, 2) * (largest - 4)], dim=1)


def greedy_loop(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Takes the best box and drops what overlaps it, until none is left."""
    left, kept = scores.argsort(descending=True, stable=True), []
    while len(left):
        kept.append(left[0])
        left = left[1:][iou(boxes[left[0]], boxes[left[1:]]) <= threshold]
    return torch.stack(kept)


def nms_cases(number: int) -> list[Case]:
    cases: list[Case] = []
    for what, image, largest in (("few overlaps", 2000.0, 50.0), ("many overlaps", 600.0, 150.0)):
        torch.manual_seed(0)
        boxes, scores = random_boxes(number, image, largest), torch.rand(number)
        cases.append(
            (
                f"nms, {number:,} boxes, {what}",
                lambda b=boxes, s=scores: nms(b, s, 0.5),
                lambda b=boxes, s=scores: greedy_loop(b, s, 0.5),
            )
        )
    return cases


def roi_cases() -> list[Case]:
    reference = import_library("torchvision.ops.roi_align")._roi_align
    torch.manual_seed(0)
    features = torch.randn(1, 64, 50, 68)
    boxes = random_boxes(100, 800.0, 400.0)
    images, regions = torch.zeros(100), torch.cat([torch.zeros(100, 1), boxes], dim=1)

    def plain(size: int) -> Tensor:
        with torch.compiler.set_stance("force_eager"):
            return reference(features, regions, 1 / 16, size, size, 2, False)

    def ours(size: int) -> Tensor:
        options = {"spatial_scale": 1 / 16, "sampling_ratio": 2, "aligned": False}
        return roi_align(features, boxes, images, (size, size), **options)

    return [
        (f"roi_align, 100 regions, {size}x{size}, 64 maps", lambda s=size: ours(s), lambda s=size: plain(s))
        for size in (7, 14)
    ]


def deformable_cases() -> list[Case]:
    module = import_library("transformers.models.rt_detr_v2.modeling_rt_detr_v2")
    reference = module.multi_scale_deformable_attention_v2
    torch.manual_seed(0)
    sizes, points = [(80, 80), (40, 40), (20, 20)], [4, 4, 4]
    values = torch.randn(1, sum(h * w for h, w in sizes), 8, 32)
    cases: list[Case] = []
    for queries, what in ((300, "RT-DETR's decoder"), (8400, "an encoder")):
        locations, weights = torch.rand(1, queries, 8, 12, 2), torch.rand(1, queries, 8, 12).softmax(-1)
        cases.append(
            (
                f"deformable attention, {what}, {queries}",
                lambda p=locations, w=weights: deformable_attention(values, sizes, p, w, points),
                lambda p=locations, w=weights: reference(values, sizes, p, w, points),
            )
        )
    return cases


if __name__ == "__main__":
    main()
