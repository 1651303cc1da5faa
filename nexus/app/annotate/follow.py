"""An object that is marked in one image is followed through those that come after it, as the frames of a video.

Dims: h w pixels.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Bool
from torch import nn

from nexus.app.annotate.limits import OBJECTS
from nexus.app.annotate.marks import Mark, Marks, runs_of
from nexus.app.annotate.project import Project
from nexus.data.images import Image, load_image
from nexus.tasks.clicks import Following
from nexus.tasks.table import find_task

Follower = Callable[[Iterable[Image], Bool[np.ndarray, "h w"]], Iterator[Bool[np.ndarray, "h w"]]]
"""From frames, and the mask in the first of them, to the mask in each other one."""


def follower_of(model: nn.Module) -> Follower | None:
    """Returns what follows objects by a model; None if it cannot."""
    for name in getattr(model, "other_tasks", ()):
        task = find_task(name).for_model(model)
        if isinstance(task, Following):
            return partial(task.follow, model)
    return None


def follow(project: Project, follower: Follower, number: int, place: int, count: int) -> int:
    """Follows an object through the images after the one it is marked in; returns through how many.

    Where it was followed before, its mask is replaced, unless it was changed by hand since; where it is not seen, there
    is none.

    Args:
        project: Keeps what is found.
        follower: Of the model.
        number: The image.
        place: Of the object among those of the image.
        count: How many images after it, at most.

    Raises:
        ValueError: There is no such object, no image after it, or one is of another size.
        Conflict: An image was changed meanwhile.
    """
    marks = project.marks(number)
    if not 0 <= place < len(marks.objects):
        raise ValueError(f"There is no object {place} in {project.names[number]}; it has {len(marks.objects)}.")
    last = min(number + count, len(project.names) - 1)
    if last == number:
        raise ValueError(f"{project.names[number]} is the last image; there is none to follow the object through.")
    mark = marks.objects[place]
    if not mark.track:
        mark = replace(mark, track=1 + secrets.randbelow(1 << 39))
        objects = (*marks.objects[:place], mark, *marks.objects[place + 1 :])
        project.save(number, replace(marks, objects=objects))
    frames = (load_image(project.path(at)) for at in range(number, last + 1))
    for at, mask in enumerate(follower(frames, mask_of(mark, marks)), number + 1):
        _keep(project, at, mark, mask)
    return last - number


def mask_of(mark: Mark, marks: Marks) -> Bool[np.ndarray, "h w"]:
    """Returns the mask of an object."""
    inside = np.arange(len(mark.counts)) % 2 == 1
    return np.repeat(inside, mark.counts).reshape(marks.height, marks.width)


def _keep(project: Project, number: int, mark: Mark, mask: Bool[np.ndarray, "h w"]) -> None:
    marks = project.marks(number)
    there = [one for one in marks.objects if one.track == mark.track]
    if any(one.clicks.points or one.clicks.box or one.added or one.removed for one in there):
        return  # a person corrected it
    others = tuple(one for one in marks.objects if one.track != mark.track)
    found = (Mark(mark.label, runs_of(mask), track=mark.track),) if mask.any() else ()
    if (there or found) and len(others) < OBJECTS:
        project.save(number, replace(marks, objects=(*others, *found)))
