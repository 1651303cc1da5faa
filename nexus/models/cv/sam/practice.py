"""SAM's training: a simulated person points at an object, sees what the model makes of it, and corrects it.

Kirillov et al., "Segment Anything", 2023, Appendix A, "Losses" and "Training algorithm".

Dims: b images, n objects of all images, k masks of a prompt, m points of a prompt, H W pixels of the images,
h w tokens of an image down and across, d width.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nexus.models.cv.sam.mask_decoder import enlarge
from nexus.models.cv.sam.prompt_encoder import PromptEncoder
from nexus.ops.clicks import PromptConfig, boxes_around, noisy_boxes, random_clicks
from nexus.ops.losses import dice_loss, mask_focal_loss

if TYPE_CHECKING:
    from nexus.models.cv.sam.sam import SAM

FOCAL, DICE, IOU = 20.0, 1.0, 1.0
"""Weights of the losses."""


class Targets(NamedTuple):
    """Objects to learn from.

    Attributes:
        masks: (n, H, W), none of them empty, in pixels of the images.
        image: (n,), which image of the batch each is in.
        prompting: How they are asked about.
    """

    masks: Bool[Tensor, "n H W"]
    image: Int[Tensor, " n"]
    prompting: PromptConfig = PromptConfig()


class Prompted(NamedTuple):
    """What was asked about each object so far.

    Attributes:
        points: (n, m, 2) x and y; the first of an object with a box does not count.
        labels: (n, m), 1 of the object, 0 not of it.
        boxes: (n, 4) x1, y1, x2, y2.
        boxed: (n,), whether an object was first asked about by its box, not by a point.
        low: (n, 1, low_h, low_w), logits of the last answer; None before the first.
    """

    points: Float[Tensor, "n m 2"]
    labels: Int[Tensor, "n m"]
    boxes: Float[Tensor, "n 4"]
    boxed: Bool[Tensor, " n"]
    low: Float[Tensor, "n 1 low_h low_w"] | None = None


class Answer(NamedTuple):
    """What the model said in a round, and its losses, each (n,).

    Attributes:
        low: (n, 1, low_h, low_w), logits of the mask that the model expects most of, without a gradient.
        found: (n, H, W), that mask.
    """

    low: Tensor
    found: Bool[Tensor, "n H W"]
    focal: Float[Tensor, " n"]
    dice: Float[Tensor, " n"]
    iou: Float[Tensor, " n"]


def practise(model: "SAM", embeddings: Float[Tensor, "b d h w"], targets: Targets) -> dict[str, Tensor]:
    """Returns the weighed losses `focal`, `dice` and `iou`: means over all rounds and objects.

    The first prompt of an object is a point of it or a noisy box around it. In each round after that the mask of the
    round before is handed in with a new click into its error, or without one. A single point may mean several things:
    of its masks only the one of least loss learns, and the one that the model expects most of is corrected. All other
    prompts are answered by the mask for them. Every mask that is answered with learns to tell its IoU.

    Chance is torch's own, of the device of the masks. Without objects the losses are 0.
    """
    if not len(targets.masks):
        zero = nothing_of(model)
        return {"focal": zero, "dice": zero, "iou": zero}
    asked, clicks = first_prompts(targets), schedule(targets.prompting)
    image = embeddings[targets.image]
    answers: list[Answer] = []
    for clicked in (None, *clicks):
        if answers:
            asked = asked._replace(low=answers[-1].low)
        if clicked:
            asked = with_clicks(asked, targets.masks, answers[-1].found)
        answers.append(answer(model, image, asked, targets.masks))
    weights = {"focal": FOCAL, "dice": DICE, "iou": IOU}
    losses = {
        name: weight * torch.stack([getattr(one, name) for one in answers]).mean() for name, weight in weights.items()
    }
    if not clicks:  # no mask was handed in
        losses["iou"] = losses["iou"] + nothing_of(model.prompt_encoder.mask_downscaling)
    return losses


def nothing_of(model: nn.Module) -> Tensor:
    """Returns a zero that each parameter has a part in, so that processes that share gradients miss none."""
    return torch.stack([parameter.sum() for parameter in model.parameters()]).sum() * 0


def first_prompts(targets: Targets) -> Prompted:
    """Returns for each object a point of it and a noisy box around it, and which of them is asked about."""
    masks, settings = targets.masks, targets.prompting
    points, labels = random_clicks(masks, torch.zeros_like(masks))
    size = (masks.shape[1], masks.shape[2])
    boxes = noisy_boxes(boxes_around(masks), size, noise=settings.box_noise, most=settings.max_box_noise)
    boxed = torch.rand(len(masks), device=masks.device) < settings.box_share
    return Prompted(points[:, None].float(), labels[:, None], boxes, boxed)


def schedule(settings: PromptConfig) -> list[bool]:
    """Returns for each round after the first whether there is a new click: refinements are drawn, one is the last."""
    rounds = [True] * settings.rounds
    for _ in range(settings.refinements - 1):
        rounds.insert(int(torch.randint(len(rounds) + 1, ())), False)
    return [*rounds, False] if settings.refinements else rounds


def with_clicks(asked: Prompted, masks: Bool[Tensor, "n H W"], found: Bool[Tensor, "n H W"]) -> Prompted:
    """Returns the prompts with another click for each object, into the error of what was found."""
    points, labels = random_clicks(masks, found)
    return asked._replace(
        points=torch.cat([asked.points, points[:, None].float()], dim=1),
        labels=torch.cat([asked.labels, labels[:, None]], dim=1),
    )


def answer(model: "SAM", image: Float[Tensor, "n d h w"], asked: Prompted, truth: Bool[Tensor, "n H W"]) -> Answer:
    """Returns what the model says about each object, and its losses."""
    ask = model.mask_decoder
    grid = (image.shape[2], image.shape[3])
    sparse, dense = tokens(model.prompt_encoder, asked, grid)[:, None], model.prompt_encoder.dense(asked.low)[:, None]
    given = (image, model.prompt_encoder.positions.grid(grid), sparse, dense)
    low, scores = checkpoint(ask, *given, use_reentrant=False) if model.checkpointing else ask(*given)
    first = asked.low is None
    low, scores = (value[:, 0, : None if first else 1].float() for value in (low, scores))
    single = asked.boxed if first else torch.ones_like(asked.boxed)
    return judged(low, scores, single, truth)


def tokens(encoder: PromptEncoder, asked: Prompted, grid: tuple[int, int]) -> Float[Tensor, "n _ d"]:
    """Returns the tokens of all prompts: a point with the token that ends points is as long as a box."""
    by_point = encoder.sparse(grid, asked.points, asked.labels, None)
    more = asked.points.shape[1] > 1
    later = (asked.points[:, 1:], asked.labels[:, 1:]) if more else (None, None)
    by_box = encoder.sparse(grid, *later, asked.boxes)
    return torch.where(asked.boxed[:, None, None], by_box, by_point)


def judged(
    low: Float[Tensor, "n k low_h low_w"],
    scores: Float[Tensor, "n k"],
    single: Bool[Tensor, " n"],
    truth: Bool[Tensor, "n H W"],
) -> Answer:
    """Returns the answer to each prompt with its losses. What does not answer a prompt is not even enlarged.

    Args:
        low: Logits of the mask for unambiguous prompts, and behind it those for ambiguous ones.
        scores: The IoU that the model expects of each.
        single: Whether the first mask answers, and not the best of the others.
        truth: The objects.
    """
    answering = torch.arange(scores.shape[1], device=scores.device).clamp(max=1) != single[:, None]  # first, or others
    whose, which = answering.nonzero(as_tuple=True)
    logits = enlarge(low[None, whose, which][None], (truth.shape[1], truth.shape[2]))[0, 0]
    target, inside = truth[whose], logits.detach() > 0
    focal, dice = mask_focal_loss(logits, target.float()), dice_loss(logits, target.float())
    overlap = (inside & target).sum(dim=(-2, -1)) / (inside | target).sum(dim=(-2, -1))
    error = (scores[whose, which] - overlap).square()
    place = torch.full_like(scores, -1, dtype=torch.long).masked_scatter(answering, torch.arange(len(whose)).to(whose))
    objects = torch.arange(len(low), device=low.device)
    loss = torch.full_like(scores, torch.inf).masked_scatter(answering, (FOCAL * focal + DICE * dice).detach())
    learning = place[objects, loss.argmin(dim=1)]
    trusted = scores.detach().masked_fill(~answering, -torch.inf).argmax(dim=1)
    iou = torch.zeros_like(scores).masked_scatter(answering, error).sum(dim=1) / answering.sum(dim=1)
    best = low.detach()[objects, trusted][:, None]
    return Answer(best, inside[place[objects, trusted]], focal[learning], dice[learning], iou)
