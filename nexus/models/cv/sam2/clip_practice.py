"""SAM 2's training on clips: a simulated person points at objects in some frames, and corrects what is made of them.

Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, Sec. 4 ("Training") and Appendix D.2; figures as in
the released training configuration.

Dims: b clips, t frames, n objects of all clips, k masks of a prompt, m points, H W pixels, d width.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nexus.models.cv.sam.mask_decoder import enlarge
from nexus.models.cv.sam.practice import nothing_of
from nexus.models.cv.sam.prompts import Prompts
from nexus.models.cv.sam2.bank import Bank, Kept
from nexus.models.cv.sam2.image_encoder import Embedding
from nexus.models.cv.sam2.mask_decoder import several, single
from nexus.models.cv.sam2.tracking import (
    LARGEST,
    Answer,
    answer_mask,
    answer_of,
    first_sight,
    is_ambiguous,
    nowhere,
    recall,
    remember,
)
from nexus.ops.clicks import ClipPromptConfig, boxes_around, noisy_boxes, random_clicks
from nexus.ops.losses import dice_loss, mask_focal_loss

if TYPE_CHECKING:
    from nexus.models.cv.sam2.sam2 import SAM2

FOCAL, DICE, IOU, PRESENCE = 20.0, 1.0, 1.0, 1.0
"""Weights of the losses."""
LOSSES = {"focal": FOCAL, "dice": DICE, "iou": IOU, "presence": PRESENCE}


class ClipTargets(NamedTuple):
    """Objects of clips to learn from.

    Attributes:
        masks: (n, t, H, W), in pixels of the frames; each is seen in the first frame.
        clip: (n,), which clip of the batch each is in.
        prompting: How they are asked about.
    """

    masks: Bool[Tensor, "n t H W"]
    clip: Int[Tensor, " n"]
    prompting: ClipPromptConfig = ClipPromptConfig()


class Plan(NamedTuple):
    """What is asked of a batch: one plan for all of its objects.

    Attributes:
        kind: "click", "box" or "mask": what the objects are first pointed at by.
        prompted: Frames in which they are, rising from 0.
        corrected: Frames in which clicks go on, rising.
    """

    kind: str
    prompted: tuple[int, ...]
    corrected: tuple[int, ...]


class Judged(NamedTuple):
    """What is answered in one step, and its losses, each (n,)."""

    answer: Answer
    focal: Float[Tensor, " n"]
    dice: Float[Tensor, " n"]
    iou: Float[Tensor, " n"]
    presence: Float[Tensor, " n"]


def practise_clips(model: "SAM2", embedding: Embedding, targets: ClipTargets) -> dict[str, Tensor]:
    """Returns the weighed losses `focal`, `dice`, `iou` and `presence`: means over all answers and objects.

    In the frames that are prompted, which come first, all objects of the batch are pointed at by a click, a noisy box
    or their mask; the other frames are then tracked in order. In some frames clicks into the error follow, and such
    frames are remembered as prompted ones. The mask losses are those of the best mask, of objects in sight; each mask
    learns to tell its IoU, and each answer whether the object is in sight. A mask that is given teaches nothing where
    it is given. Chance is torch's own.

    Args:
        model: In training mode.
        embedding: Of the frames of all clips, b x t.
        targets: The objects.
    """
    if not len(targets.masks):
        return dict.fromkeys(LOSSES, nothing_of(model))
    lesson = _Lesson(model, embedding, targets, plan(targets))
    steps = lesson.run()
    losses = {
        name: weight * torch.stack([getattr(one, name) for one in steps]).mean() for name, weight in LOSSES.items()
    }
    losses["iou"] = losses["iou"] + nothing_of(model)  # some parts are for some kinds of prompts alone
    return losses


def plan(targets: ClipTargets) -> Plan:
    """Draws what a batch is asked."""
    settings, seen = targets.prompting, targets.masks.flatten(2).any(dim=2)
    length = targets.masks.shape[1]
    if _chance() >= settings.point_share:
        kind = "mask"
    else:
        kind = "box" if _chance() < settings.box_share else "click"
    later = [at for at in range(1, length) if bool(seen[:, at].all())]
    prompted = sorted({0, *_drawn(later, _up_to(settings.prompted_frames) - 1)})
    if kind == "mask" or not settings.corrected_frames or not settings.corrections:
        return Plan(kind, tuple(prompted), ())
    more = _up_to(max(1, settings.corrected_frames - len(prompted) + 1)) - 1
    corrected = {*prompted, *_drawn(list(range(prompted[-1] + 1, length)), more)}
    return Plan(kind, tuple(prompted), tuple(sorted(corrected)))


def _chance() -> float:
    return float(torch.rand(()))


def _up_to(most: int) -> int:
    return 1 + int(torch.randint(most, ()))


def _drawn(among: list[int], count: int) -> list[int]:
    return [among[at] for at in torch.randperm(len(among))[: max(0, count)].tolist()]


class _Lesson:
    """The objects of a batch, followed through their clips.

    Attributes:
        bank: What is remembered of the frames so far.
    """

    def __init__(self, model: "SAM2", embedding: Embedding, targets: ClipTargets, plan: Plan) -> None:
        self.model, self.targets, self.plan = model, targets, plan
        self.length = targets.masks.shape[1]
        self.frames = Embedding(*(part.unflatten(0, (-1, self.length)) for part in embedding))
        self.bank = Bank(self.length)

    def run(self) -> list[Judged]:
        """Returns all answers."""
        order = [*self.plan.prompted, *(at for at in range(self.length) if at not in self.plan.prompted)]
        return [step for at in order for step in self._frame(at)]

    def _frame(self, at: int) -> list[Judged]:
        """Goes through the steps of one frame, and remembers what came of it."""
        embedding = Embedding(*(part[self.targets.clip, at] for part in self.frames))
        truth, prompted = self.targets.masks[:, at], at in self.plan.prompted
        if prompted and self.plan.kind == "mask":
            found = answer_mask(self.model, embedding, truth)
            self._remember(at, embedding, found, prompted=True)
            return []
        tokens = first_sight(self.model, embedding) if prompted else self._recall(at, embedding)
        asked = self._first_prompt(truth) if prompted else None
        steps = [judge(self.model, tokens, embedding, asked, truth)]
        for _ in range(self.targets.prompting.corrections if at in self.plan.corrected else 0):
            asked = self._corrected(asked, steps[-1].answer, truth)
            steps.append(judge(self.model, tokens, embedding, asked, truth))
        self._remember(at, embedding, steps[-1].answer, prompted=prompted or at in self.plan.corrected)
        return steps

    def _recall(self, at: int, embedding: Embedding) -> Float[Tensor, "n d h w"]:
        config = self.model.config
        longest = min(self.length, config.num_pointers)
        frames = self.bank.memories(at, config.num_memories - 1, reverse=False)
        return recall(self.model, embedding, frames, self.bank.pointers(at, longest - 1, reverse=False), longest)

    def _remember(self, at: int, embedding: Embedding, found: Answer, *, prompted: bool) -> None:
        kept = Kept(found, remember(self.model, embedding, found, prompted=False))  # the mask stays soft in training
        if prompted:
            self.bank.prompt(at, kept, as_correction=False)
        else:
            self.bank.track(at, kept)

    def _first_prompt(self, truth: Bool[Tensor, "n H W"]) -> Prompts:
        settings = self.targets.prompting
        if self.plan.kind == "box":
            size = (truth.shape[1], truth.shape[2])
            boxes = noisy_boxes(boxes_around(truth), size, noise=settings.box_noise, most=settings.max_box_noise)
            return Prompts(boxes=boxes[:, None])
        points, labels = random_clicks(truth, torch.zeros_like(truth))
        return Prompts(points[:, None, None].float(), labels[:, None, None])

    def _corrected(self, asked: Prompts | None, last: Answer, truth: Bool[Tensor, "n H W"]) -> Prompts:
        """The prompts with another click for each object, mostly into the error, and the last mask."""
        size = (truth.shape[1], truth.shape[2])
        found = enlarge(last.logits[:, None, None].detach(), size)[:, 0, 0] > 0
        blind = _chance() < self.targets.prompting.blind_share
        points, labels = random_clicks(truth, torch.zeros_like(truth) if blind else found)
        points, labels = points[:, None, None].float(), labels[:, None, None]
        before = asked or Prompts()
        if before.points is not None and before.labels is not None:
            points, labels = torch.cat([before.points, points], dim=2), torch.cat([before.labels, labels], dim=2)
        return Prompts(points, labels, before.boxes, last.logits[:, None].detach().clamp(-LARGEST, LARGEST))


def judge(
    model: "SAM2",
    tokens: Float[Tensor, "n d h w"],
    embedding: Embedding,
    asked: Prompts | None,
    truth: Bool[Tensor, "n H W"],
) -> Judged:
    """Returns the answer about each object in a frame, and its losses.

    Logits learn before the mask of an object that is said to be out of sight is wiped out.
    """
    masks = model.masks(embedding._replace(tokens=tokens), asked or nowhere(tokens))
    masks = several(masks) if is_ambiguous(asked) else single(masks, stable=False)
    logits = enlarge(masks.logits, (truth.shape[1], truth.shape[2]))[:, 0].float()
    target = truth[:, None].float().expand_as(logits)
    focal, dice = mask_focal_loss(logits, target), dice_loss(logits, target)
    least = (FOCAL * focal + DICE * dice).argmin(dim=1, keepdim=True)
    there = truth.flatten(1).any(dim=1).float()
    inside = logits.detach() > 0
    union = (inside | truth[:, None]).sum(dim=(-2, -1))
    overlap = (inside & truth[:, None]).sum(dim=(-2, -1)) / union.clamp(min=1)
    iou = (masks.iou_scores[:, 0] - overlap).abs().mean(dim=1)
    presence = F.binary_cross_entropy_with_logits(masks.object_scores[:, 0], there, reduction="none")
    focal, dice = (one.take_along_dim(least, dim=1)[:, 0] * there for one in (focal, dice))
    return Judged(answer_of(model, masks), focal, dice, iou * there, presence)
