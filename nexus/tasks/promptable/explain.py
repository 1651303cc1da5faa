"""What the mask decoder of SAM, or of SAM 2, looks at when it answers a prompt.

Dims: q tokens, n places of the image, h w rows and columns of them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nexus.models.cv.sam import Prompts
from nexus.models.cv.sam.mask_decoder import NarrowAttention
from nexus.models.cv.sam.segmenter import Segmenter
from nexus.tasks.promptable.asking import Asked, is_ambiguous
from nexus.tasks.promptable.encoded import frame_of, masks_of, prompts_in
from nexus.tasks.promptable.picture import padded
from nexus.tasks.question import Method, Question
from nexus.tasks.source import evaluating
from nexus.visualization.clicks import draw_clicks
from nexus.visualization.drawing import overlay
from nexus.visualization.figures import image_axes, new_figure
from nexus.visualization.pictures import to_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 384


class Look(NamedTuple):
    """How a prompt was answered, in pixels of what the model sees of the image.

    Attributes:
        mask: The answer that the model trusts most.
        score: The IoU that it expects of it.
        heats: By the name of a token, for each time that tokens look at the image: how much of its attention each place
            gets, the mean of all heads; each sums to 1 over the whole input.
        asked: The prompt.
    """

    mask: Bool[np.ndarray, "h w"]
    score: float
    heats: Mapping[str, tuple[Float[Tensor, "h w"], ...]]
    asked: Prompts


def look(question: Question) -> Look:
    """Returns how the prompt of a question is answered, and what is looked at.

    Raises:
        ValueError: There is no prompt, or it is no single one.
    """
    asked = question.prompts
    if not isinstance(asked, Mapping):
        raise ValueError(
            "A segmenter is explained for one prompt: give a point (--point 500,375), a box"
            " (--box 425,600,700,875), or both."
        )
    sam = cast("Segmenter", question.model)
    picture = padded(sam, question.pixels[0])
    frame = frame_of(picture, question.size or picture.size)
    prompts = prompts_in(frame, sam, Asked(asked, None))
    decoder, several = sam.get_submodule("mask_decoder"), is_ambiguous(prompts)
    with evaluating(sam), attending(decoder) as maps:
        answer = sam.decode(sam.encode(picture.images), prompts, multimask=several)
    best = int(answer["iou_scores"][0, 0].argmax())
    seen = frame._replace(size=frame.inside)
    mask = masks_of(sam, seen, answer["low_res_masks"][0, 0, best][None])[0]
    rows, columns = (-(-side // sam.config.patch_size) for side in frame.inside)
    grid = tuple(side // sam.config.patch_size for side in frame.sides)
    heats = {
        name: tuple(one[token].unflatten(0, grid)[:rows, :columns] for one in maps)
        for name, token in _tokens(decoder, prompts, best + several).items()
    }
    return Look(mask, float(answer["iou_scores"][0, 0, best]), heats, prompts)


@contextmanager
def attending(decoder: nn.Module) -> Iterator[list[Float[Tensor, "q n"]]]:
    """Gives a list that gets the mean of the heads whenever tokens of the first prompt look at the image."""
    maps: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        maps.append(cast("NarrowAttention", module).maps(given[0], given[1])[0, 0].mean(dim=0).float())

    blocks = decoder.get_submodule("blocks").children()
    looking = [*(block.get_submodule("token_to_image") for block in blocks), decoder.get_submodule("final_attn")]
    handles = [module.register_forward_pre_hook(keep) for module in looking]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def _tokens(decoder: nn.Module, prompts: Prompts, mask: int) -> dict[str, int]:
    """Numbers of the tokens that are shown: of the mask that answers, of each point, of the corners of a box."""
    masks = cast("Tensor", decoder.mask_tokens)
    first = cast("Callable[[Tensor], Tensor]", decoder.tokens)(masks.new_zeros(1, 1, 0, masks.shape[1])).shape[2]
    found = {"the mask": first - len(masks) + mask}
    points = 0 if prompts.points is None else prompts.points.shape[2]
    found |= {f"point {number + 1}": first + number for number in range(min(points, 3))}
    return found if prompts.boxes is None else found | {"upper left corner": -2, "lower right corner": -1}


def _attention(question: Question) -> "Figure":
    found = look(question)
    pixels = question.pixels[0]
    picture = to_picture(pixels, question.model.preprocessing)
    points, labels, boxes, _ = found.asked
    places = [] if points is None or labels is None else torch.cat([points, labels[..., None]], dim=3)[0, 0].tolist()
    clicks = [(x - 0.5, y - 0.5, int(label)) for x, y, label in places]
    box = None if boxes is None else boxes[0, 0].tolist()
    shown = draw_clicks(picture, found.mask, clicks, box=box, side=SIDE)
    times = len(next(iter(found.heats.values())))
    names = [*(f"block {number + 1}" for number in range(times - 1)), "last look"]
    figure = new_figure(2.9 * (times + 1), (2.9 * picture.height / picture.width + 0.35) * len(found.heats))
    axes = figure.subplots(len(found.heats), times + 1, squeeze=False)
    for row, (shown_by, heats) in zip(axes, found.heats.items()):
        image_axes(row[0], f"answered with {found.score:.0%}").imshow(shown)
        for place, name, heat in zip(row[1:], names, heats):
            image_axes(place, f"{shown_by}: {name}").imshow(overlay(picture, heat / heat.amax(), side=SIDE))
    return figure


def answer_of(question: Question) -> str:
    """Says how much the model covers for the prompt, and how sure it is."""
    found = look(question)
    return f"The mask covers {found.mask.mean():.1%} of the image; the model expects an IoU of {found.score:.1%}."


METHODS: Mapping[str, Method] = {"attention": _attention}
