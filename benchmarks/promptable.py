"""SAM and SAM 2 beside those of transformers on the CPU, in one run: image encoder, mask decoder, everything, videos.

    python benchmarks/promptable.py [encoder] [decoder] [everything] [video] [--threads 1] [--repeats 5] [--side 1024]
        [--quick]

Both sides get the same weights, image and prompts; what encoder and decoder answer is compared. The models have the
shape of SAM's ViT-B with fewer and narrower blocks in the encoder (four, of 192), and the published decoder. Everything
is transformers' own pipeline "mask-generation", with the same grid and bounds. The video has eight frames and two
objects, SAM 2.1's memory and decoder are the published ones, and its trunk is half as wide as that of the tiny one;
the logits of all frames are compared. Seconds are of the processor, taken in turn; the ratio is the median of the
ratios of neighbours. Memory is the peak of what torch allocates beside the weights in a call.

A ratio below 1 means that nexus is faster, or smaller.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from models import peak_of
from PIL import Image
from torch import Tensor

from nexus.core.formats import to_our_names
from nexus.core.preprocessing import Preprocessing
from nexus.models.cv.sam import SAM, Prompts, SAMConfig
from nexus.models.cv.sam2 import SAM2, SAM2Config, VideoSession
from nexus.ops.nms import nms
from nexus.predict import Predictor
from nexus.proofs.libraries import import_library
from nexus.proofs.sam import hub_sam
from nexus.proofs.sam2 import hub_sam2
from nexus.tasks.promptable import Everything

Run = Callable[[], Any]
FRAMES = 8
"""Of the video."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="encoder, decoder, everything, video; all without names")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--quick", action="store_true", help="a small image, one repeat: to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    side, repeats = (128, 1) if options.quick else (options.side, options.repeats)
    ours, theirs = both(side)
    print(f"torch {torch.__version__}, {options.threads} threads, {side} x {side}; ratios are nexus / transformers")
    print("part            ms   ref ms   time      MB  ref MB memory")
    with torch.inference_mode():
        for name in options.parts or BENCHMARKS:
            report(name, *BENCHMARKS[name](ours, theirs, side), repeats)


def both(side: int) -> tuple[SAM, Any]:
    """Returns a small SAM of ours and of transformers with the same weights."""
    small = {"encoder_embed_dim": 192, "encoder_depth": 4, "encoder_num_heads": 3, "encoder_global_blocks": (1, 3)}
    config = SAMConfig(image_size=side, decoder_norm_eps=1e-6, **small)  # pyrefly: ignore[bad-argument-type]
    theirs = hub_sam(import_library("transformers"), config).eval()
    ours = SAM(config).eval()
    ours.load_state_dict(to_our_names(theirs.state_dict(), SAM.formats)[0])
    return ours, theirs


def report(name: str, ours: Run, theirs: Run, repeats: int) -> None:
    """Prints one line."""
    memory = peak_of(ours), peak_of(theirs)
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        for place in (0, 1) if repeat % 2 else (1, 0):
            begin = time.process_time()
            (ours, theirs)[place]()
            seconds[place].append(time.process_time() - begin)
    ratio = statistics.median(a / b for a, b in zip(*seconds))
    print(
        f"{name:10} {1e3 * statistics.median(seconds[0]):8.1f} {1e3 * statistics.median(seconds[1]):8.1f} {ratio:6.3f}"
        f" {memory[0] / 2**20:7.0f} {memory[1] / 2**20:7.0f} {memory[0] / memory[1]:6.3f}",
        flush=True,
    )


def encoder(ours: SAM, theirs: Any, side: int) -> tuple[Run, Run]:
    """One image."""
    image = torch.randn(1, 3, side, side)
    runs = (lambda: ours.image_encoder(image)), (lambda: theirs.get_image_embeddings(image))
    agree(runs[0](), runs[1]())
    return runs


def decoder(ours: SAM, theirs: Any, side: int) -> tuple[Run, Run]:
    """64 prompts of a point about one image that is encoded; logits at the decoder's own size."""
    embedding, points = torch.randn(1, ours.config.embed_dim, side // 16, side // 16), torch.rand(1, 64, 1, 2) * side
    labels = torch.ones(1, 64, 1, dtype=torch.long)
    asked = {"image_embeddings": embedding, "input_points": points, "input_labels": labels}
    runs = (
        (lambda: ours.decode(embedding, Prompts(points, labels))["low_res_masks"]),
        (lambda: theirs(**asked).pred_masks),
    )
    agree(runs[0](), runs[1]())
    return runs


def everything(ours: SAM, theirs: Any, side: int) -> tuple[Run, Run]:
    """A picture, from its pixels to the masks of a grid of 16 x 16 points, 64 at once; all with a score count."""
    transformers = import_library("transformers")
    import_library("torchvision.ops.boxes").nms = nms  # its own may be compiled for another torch
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((side // 2, side * 3 // 8), Image.Resampling.BICUBIC)
    ours.preprocessing = Preprocessing(
        image_size=(side, side), resize="within", resize_size=side, interpolation="bilinear", rounding="sam"
    )
    processor = transformers.SamImageProcessor(size={"longest_edge": side}, pad_size={"height": side, "width": side})
    pipeline = transformers.pipeline("mask-generation", model=theirs, image_processor=processor, device="cpu")
    bounds = {"min_score": -1e3, "min_stability": 0.5}
    asked = Everything(points_per_side=16, points_at_once=64, **bounds)  # pyrefly: ignore[bad-argument-type]
    predictor = Predictor(ours)
    return (lambda: predictor(picture, prompts=asked)), (
        lambda: pipeline(
            picture, points_per_batch=64, pred_iou_thresh=-1e3, stability_score_thresh=0.5, points_per_crop=16
        )
    )


def video(ours: SAM, theirs: Any, side: int) -> tuple[Run, Run]:
    """Eight frames with two objects, each clicked on in the first; the small SAM of the other rows is not asked."""
    transformers = import_library("transformers")
    config = SAM2Config(image_size=side, trunk_embed_dim=48)
    theirs = hub_sam2(transformers, config)
    torch.nn.init.constant_(theirs.mask_decoder.pred_obj_score_head.proj_out.bias, 10.0)  # always in sight
    ours = SAM2(config).eval()
    ours.load_state_dict(to_our_names(theirs.state_dict(), SAM2.formats)[0])
    frames = torch.randn(FRAMES, 3, side, side)
    clicks = {1: (side * 0.3, side * 0.4), 2: (side * 0.7, side * 0.6)}
    runs = (lambda: followed(ours, frames, clicks)), (lambda: followed_by_hub(transformers, theirs, frames, clicks))
    for one, other in zip(runs[0](), runs[1](), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.05)  # memories are kept as bfloat16
    return runs


def followed(model: SAM2, frames: Tensor, clicks: dict[int, tuple[float, float]]) -> list[Tensor]:
    """Logits of both objects in each frame."""
    session = VideoSession(model, (frames.shape[2], frames.shape[3]), frames)
    for number, place in clicks.items():
        session.prompt(number, 0, points=[place])
    return [found.logits for _, found in session.propagate()]


def followed_by_hub(
    transformers: Any, model: Any, frames: Tensor, clicks: dict[int, tuple[float, float]]
) -> list[Tensor]:
    """The same of transformers."""
    session = transformers.Sam2VideoInferenceSession(frames, frames.shape[2], frames.shape[3], dtype=frames.dtype)
    for number, place in clicks.items():
        points = {
            "point_coords": torch.tensor(place).view(1, 1, 1, 2),
            "point_labels": torch.ones(1, 1, 1, dtype=torch.int32),
        }
        session.add_point_inputs(session.obj_id_to_idx(number), 0, points)
        session.obj_with_new_inputs.append(number)
    model(session, frame_idx=0)
    return [one.pred_masks[:, 0] for one in model.propagate_in_video_iterator(session)]


def agree(ours: Tensor, theirs: Tensor) -> None:
    """Raises AssertionError unless both sides answer alike."""
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


BENCHMARKS = {"encoder": encoder, "decoder": decoder, "everything": everything, "video": video}

if __name__ == "__main__":
    main()
