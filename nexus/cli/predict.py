"""`nexus predict`: results and their pictures while images or frames go by."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import typer

from nexus.cli.output import fail, show_json, show_table
from nexus.data.video import VIDEO_EXTENSIONS, frame_rate
from nexus.predict import Predictor, draw_predictions
from nexus.tasks import Tiling
from nexus.tasks.protocol import Scored

SHOWN_SCORE = 0.3
"""Tables leave out objects below this: a DETR gives every one of its queries, most of which mean nothing."""


def predict_images(
    predictor: Predictor,
    images: Sequence[str] | None,
    *,
    prompts: Sequence[str] = (),
    draw: Path | None = None,
    every: int = 1,
    min_score: float | None = None,
) -> list[Any]:
    """Returns the predictions, without their images: a video's frames do not fit in memory.

    Args:
        predictor: What sees the images.
        images: Files, folders, patterns or videos; None where no image goes in.
        prompts: What the model is asked, as it was written; nothing leaves it to the model.
        draw: A folder or a video to draw them into as they come.
        every: Of a video, use each so many frames.
        min_score: Leave out finds below it; None keeps all.

    Raises:
        ValueError: There is a least score, and the results have none; or an image is of no use.
    """
    asked = predictor.task_for(images, prompts).read_prompts(prompts) if prompts else None
    videos = [image for image in images or () if Path(image).suffix.lower() in VIDEO_EXTENSIONS]
    if every > 1 and not videos and all(Path(image).is_file() for image in images or ()):
        raise ValueError(f"--every {every} is for videos, and there is none among the images; leave it out.")
    kept: list[Any] = []

    def passing() -> Iterator[Any]:
        for one in predictor.stream(images or None, prompts=asked, frame_step=every):
            if min_score is not None and not isinstance(one, Scored):
                raise ValueError(
                    f"--min-score is for detectors; this model's task is {predictor.task.name}. Leave it out."
                )
            chosen: Any = one if min_score is None else one.above(min_score)
            kept.append(_without_image(chosen))
            yield chosen

    if draw is None:
        for _ in passing():
            pass
    else:
        rate = frame_rate(videos[0]) / every if videos else 1.0
        draw_predictions(passing(), draw, rate=rate, min_score=min_score)
    return kept


def _without_image(one: Any) -> Any:
    return replace(one, image=None) if any(field.name == "image" for field in fields(one)) else one


def read_tiles(tile: int | None, overlap: float | None) -> Tiling | None:
    """Returns how large images are cut, as `--tile` and `--overlap` say; None leaves them whole."""
    if tile is None and overlap is not None:
        fail("--overlap is for --tile; give both, or leave it out.")
    return None if tile is None else Tiling(size=tile, overlap=0.2 if overlap is None else overlap)


def show_predictions(
    predictions: Sequence[Any], top: int | None, min_score: float | None, *, as_json: bool = False
) -> None:
    """Prints a table of guesses or objects and how many unlikely objects it leaves out, or all of them as JSON.

    Args:
        predictions: What `predict_images` returned.
        top: Rows per image; None leaves it to the kind of the predictions.
        min_score: What the user asked for; None leaves out of the table what is below `SHOWN_SCORE`.
        as_json: Print JSON instead.
    """
    limit = {} if top is None else {"count": top}
    if as_json:
        show_json([prediction.to_json(**limit) for prediction in predictions])
        return
    rows, found, shown = [], 0, 0
    for one in predictions:
        sure: Any = one.above(SHOWN_SCORE) if isinstance(one, Scored) and min_score is None else one
        if isinstance(one, Scored):
            found, shown = found + len(one), shown + len(sure)
        rows += sure.to_rows(**limit)
    show_table(rows)
    if found > shown:
        typer.echo(f"Not shown: {found - shown} of {found} objects, below {SHOWN_SCORE:g}; --min-score 0 shows all.")
    elif any(isinstance(one, Scored) for one in predictions) and not rows:
        typer.echo("No object was found.")
