"""Detectors, forward and post-processing, beside transformers and torchvision, in one run on the CPU.

    python benchmarks/detectors.py [rtdetr] [detr] [fasterrcnn] [--threads 1] [--repeats 3] [--height 480] [--width 640]

Both sides get the same weights and image, and what they find is compared. RT-DETR sees 640 x 640 pixels, as published.
torchvision runs twice: as it is where its compiled operators do not load, and with the operators of nexus in their
place, so that only the models differ. Seconds are those of the processor, since other work on the machine hardly
changes them, taken in turn; the ratio is that of the medians.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from detection_ops import greedy_loop

from nexus.core.formats import to_our_names
from nexus.core.module import NexusModule
from nexus.models.registry import create_model
from nexus.ops.nms import nms
from nexus.ops.roi import roi_align
from nexus.proofs.libraries import import_library

Run = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="rtdetr, detr, fasterrcnn; all without names")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--quick", action="store_true", help="small images, one repeat: to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for name in options.models or BENCHMARKS:
            settings = (64, 96, 1) if options.quick else (options.height, options.width, options.repeats)
            BENCHMARKS[name](*settings)


def rtdetr(height: int, width: int, repeats: int) -> None:
    """RT-DETR-R18 beside transformers', whose post-processing is torch code too."""
    transformers = import_library("transformers")
    side = 640 if height > 320 else 320  # its published size, unless small images are wanted
    del width
    body = transformers.RTDetrResNetConfig(
        layer_type="basic",
        depths=[2, 2, 2, 2],
        hidden_sizes=[64, 128, 256, 512],
        out_features=["stage2", "stage3", "stage4"],
    )
    config = transformers.RTDetrConfig(
        backbone_config=body,
        freeze_backbone_batch_norms=False,
        encoder_in_channels=[128, 256, 512],
        hidden_expansion=0.5,
        decoder_layers=3,
        decoder_in_channels=[256, 256, 256],
        num_labels=80,
    )
    theirs = enlivened(transformers.RTDetrForObjectDetection(config), "bbox_embed", "class_embed", "enc_")
    ours = from_folder(theirs)
    image, finish = torch.rand(1, 3, side, side), transformers.RTDetrImageProcessor().post_process_object_detection
    sizes = torch.tensor([[side, side]])
    run = lambda: finish(theirs(image), threshold=0.0, target_sizes=sizes)[0]["scores"]  # noqa: E731
    compare("RT-DETR-R18", "transformers", lambda: ours(image)["scores"][0], run, repeats)


def detr(height: int, width: int, repeats: int) -> None:
    """DETR-R50 beside transformers'."""
    transformers = import_library("transformers")
    config = transformers.DetrConfig(
        backbone="resnet50",
        use_timm_backbone=True,
        use_pretrained_backbone=False,
        backbone_config=None,
        num_labels=91,
    )
    theirs = enlivened(transformers.DetrForObjectDetection(config), "class_labels_classifier")
    ours = from_folder(theirs)
    image, finish = torch.randn(1, 3, height, width), transformers.DetrImageProcessor().post_process_object_detection
    sizes = torch.tensor([[height, width]])
    run = lambda: finish(theirs(image), threshold=0.0, target_sizes=sizes)[0]["scores"]  # noqa: E731
    compare("DETR-R50", "transformers", lambda: ours(image)["scores"][0], run, repeats)


def fasterrcnn(height: int, width: int, repeats: int) -> None:
    """Faster R-CNN with ResNet-50 beside torchvision's, with its own operators and with ours."""
    build = import_library("torchvision.models.detection").fasterrcnn_resnet50_fpn
    sizes = {"min_size": min(height, width), "max_size": max(height, width)}
    unchanged = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    theirs = enlivened(build(weights=None, weights_backbone=None, **sizes, **unchanged), "cls_score")
    ours = create_model("fasterrcnn_resnet50_fpn").eval()
    ours.load_state_dict(to_our_names(theirs.state_dict(), ours.formats)[0])
    image = torch.randn(3, height, width)
    mine, other = lambda: ours([image])["scores"][0], lambda: theirs([image])[0]["scores"]
    without_compiled_operators()
    compare("Faster R-CNN-R50", "torchvision, its operators", mine, other, 1)
    with_our_operators()
    compare("Faster R-CNN-R50", "torchvision, nexus's operators", mine, other, repeats)


BENCHMARKS = {"rtdetr": rtdetr, "detr": detr, "fasterrcnn": fasterrcnn}


def enlivened(model: Any, *names: str) -> Any:
    """Returns a fresh model whose parts of these names, which start at zero, say something of the image."""
    for key, weight in model.named_parameters():
        if weight.ndim > 1 and any(name in key for name in names):
            torch.nn.init.normal_(weight, std=0.05)
    return model.eval()


def from_folder(theirs: Any) -> NexusModule:
    """Returns our model with the weights that a model of transformers writes."""
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return NexusModule.from_pretrained(folder)


def compare(model: str, name: str, ours: Run, theirs: Run, repeats: int) -> None:
    """Prints the medians of both and their ratio, after a run of each that is not counted but compared."""
    found, wanted = ours(), theirs()
    agree = len(found) == len(wanted) and (found - wanted).abs().max().item()
    mine, other = [], []
    for _ in range(repeats):  # in turn, so that a busy machine slows both
        mine.append(seconds(ours))
        other.append(seconds(theirs))
    a, b = statistics.median(mine), statistics.median(other)
    print(
        f"{model:16s} nexus {a:6.2f} s   {name} {b:6.2f} s   ratio {a / b:.2f}   "
        f"{len(found)} and {len(wanted)} objects, scores apart by at most {agree:.1e}"
    )


def seconds(run: Run) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def without_compiled_operators() -> None:
    """Where torchvision's do not load, it pools in Python by itself, but has no such form of suppression."""
    if not import_library("torchvision.extension")._has_ops():
        import_library("torchvision.ops.boxes").nms = greedy_loop


def with_our_operators() -> None:
    """Puts our pooling and suppression in the place of torchvision's."""
    import torchvision.ops.boxes as boxes
    import torchvision.ops.poolers as poolers

    def pool(features: Any, rois: Any, output_size: Any, spatial_scale: float, sampling_ratio: int) -> Any:
        options = {"spatial_scale": spatial_scale, "sampling_ratio": sampling_ratio, "aligned": False}
        return roi_align(features, rois[:, 1:], rois[:, 0].long(), tuple(output_size), **options)

    poolers.roi_align, boxes.nms = pool, nms


if __name__ == "__main__":
    main()
