"""`nexus predict`: results and their pictures while images or frames go by."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nexus.data.video import VIDEO_EXTENSIONS, frame_rate
from nexus.predict import Predictor, draw_predictions


def predict_images(predictor: Predictor, images: Sequence[str], draw: Path | None, every: int) -> list[Any]:
    """Returns the predictions, without their images: a video's frames do not fit in memory.

    Args:
        predictor: What sees the images.
        images: Files, folders, patterns or videos.
        draw: A folder or a video to draw them into as they come.
        every: Of a video, use each so many frames.
    """
    kept: list[Any] = []

    def passing() -> Iterator[Any]:
        for one in predictor.stream(images, frame_step=every):
            kept.append(replace(one, image=None))
            yield one

    if draw is None:
        for _ in passing():
            pass
    else:
        videos = [image for image in images if Path(image).suffix.lower() in VIDEO_EXTENSIONS]
        draw_predictions(passing(), draw, rate=frame_rate(videos[0]) / every if videos else 1.0)
    return kept
