"""The stages that answer for a frame of a video: recall what is known, answer, remember. Nothing is kept here.

Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, Sec. 4 and Appendix D.1.

Dims: b objects (or 1), h w tokens of 16 pixels down and across, H W pixels, d width, e a memory's width.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from nexus.models.cv.sam.prompts import Prompts
from nexus.models.cv.sam2.image_encoder import Embedding
from nexus.models.cv.sam2.mask_decoder import Masks, best_of, several, single
from nexus.models.cv.sam2.memory import Memory
from nexus.models.cv.sam2.memory_attention import map_positions

if TYPE_CHECKING:
    from nexus.models.cv.sam2.sam2 import SAM2

ABSENT = -1024.0
"""Logits of a mask whose object is not in the frame."""
SCALE, BIAS = 20.0, -10.0
"""Of masks, from 0 to 1, for the memory encoder; and of given masks, as logits."""
LARGEST = 32.0
"""Logits that are handed back to the model as a prompt are not larger."""


class Answer(NamedTuple):
    """What is found of an object in a frame.

    Attributes:
        logits: (b, low_h, low_w), above 0 inside.
        iou: (b,), how good the mask is said to be.
        scores: (b,), above 0 where the object is in the frame.
        pointers: (b, d), what later frames are told of it.
    """

    logits: Tensor
    iou: Tensor
    scores: Tensor
    pointers: Tensor


class Remembered(NamedTuple):
    """A frame in memory.

    Attributes:
        ago: How many frames ago (in the direction of tracking) it was; None of a frame that was prompted.
        memory: (b, e, h, w).
    """

    ago: int | None
    memory: Tensor


class Pointed(NamedTuple):
    """A pointer in memory.

    Attributes:
        ago: How many frames ago (in the direction of tracking) it was.
        pointer: (b, d).
    """

    ago: int
    pointer: Tensor


def memory_of(model: "SAM2") -> Memory:
    """Returns the part of a model that is for videos.

    Raises:
        ValueError: It has none.
    """
    if model.memory is None:
        raise ValueError("This SAM 2 was built with video=False, for images alone; build it with video=True.")
    return model.memory


def first_sight(model: "SAM2", embedding: Embedding) -> Float[Tensor, "b d h w"]:
    """Returns the tokens of a frame of which nothing else is known: of an image, or of a frame that is prompted."""
    return embedding.tokens + model.no_memory[0, :, :, None, None]


def recall(
    model: "SAM2", embedding: Embedding, frames: Sequence[Remembered], pointers: Sequence[Pointed], longest: int
) -> Float[Tensor, "b d h w"]:
    """Returns the tokens of a frame that know what is remembered of others.

    Args:
        model: The model.
        embedding: Of the frame.
        frames: One or more.
        pointers: Any number.
        longest: The number of pointers that time is measured by: 16, or of a shorter video its frames.
    """
    tokens = embedding.tokens
    memory, positions = remembered_tokens(model, frames, tokens.dtype)
    placed = memory.shape[1]
    if pointers:
        own = torch.stack([one.pointer for one in pointers], dim=1).to(tokens.dtype)
        ago = tokens.new_tensor([one.ago for one in pointers]) / max(1, longest - 1)
        memory = torch.cat([memory, memory_of(model).pointers.as_memory(own)], dim=1)
        times = memory_of(model).pointers.times(ago, own.shape[-1])[None].expand(len(positions), -1, -1)
        positions = torch.cat([positions, times], dim=1)
    return memory_of(model).attention(tokens, memory, positions, placed)


def remembered_tokens(
    model: "SAM2", frames: Sequence[Remembered], dtype: torch.dtype
) -> tuple[Float[Tensor, "b m e"], Float[Tensor, "b m e"]]:
    """Returns the tokens of remembered frames, row by row, and their positions in place and time."""
    maps = [frame.memory.to(dtype) for frame in frames]
    slots = [model.config.num_memories if frame.ago is None else frame.ago for frame in frames]
    positions = [
        map_positions(one) + memory_of(model).times[slot - 1, 0, 0, :, None, None] for one, slot in zip(maps, slots)
    ]
    return tuple(torch.cat([one.flatten(2).mT for one in part], dim=1) for part in (maps, positions))  # pyrefly: ignore


def answer(
    model: "SAM2", tokens: Float[Tensor, "b d h w"], embedding: Embedding, prompts: Prompts | None = None
) -> Answer:
    """Returns what is found of objects in a frame.

    Args:
        model: The model.
        tokens: Of the frame, as `first_sight` or `recall` gives them.
        embedding: Of the frame.
        prompts: One for each object, b of one; None where the object is tracked. Places are pixels of what the model
            sees, masks an earlier answer.
    """
    seen = embedding._replace(tokens=tokens)
    masks = model.masks(seen, nowhere(tokens) if prompts is None else prompts)
    return answer_of(model, several(masks) if is_ambiguous(prompts) else single(masks, stable=not model.training))


def is_ambiguous(prompts: Prompts | None) -> bool:
    """Returns whether several masks answer: to a single point, or where an object is tracked."""
    if prompts is None:
        return True
    points = 0 if prompts.points is None else prompts.points.shape[2]
    return points + (0 if prompts.boxes is None else 2) <= 1


def nowhere(like: Float[Tensor, "b d h w"], masks: Tensor | None = None) -> Prompts:
    """Returns the prompt of a place that holds no point."""
    labels = torch.full((len(like), 1, 1), -1, device=like.device)
    return Prompts(like.new_zeros(len(like), 1, 1, 2), labels, masks=masks)


def answer_of(model: "SAM2", masks: Masks) -> Answer:
    """Returns what the best of some masks says of the object in a frame."""
    masks = best_of(masks)
    scores = masks.object_scores[:, 0]
    logits = torch.where(scores[:, None, None] > 0, masks.logits[:, 0, 0], ABSENT)
    return Answer(logits, masks.iou_scores[:, 0, 0], scores, memory_of(model).pointers(masks.tokens[:, 0, 0], scores))


def answer_mask(model: "SAM2", embedding: Embedding, mask: Bool[Tensor, "b H W"]) -> Answer:
    """Returns a mask that is given, of the size of what the model sees, as if it had been found."""
    given = mask[:, None].to(embedding.tokens.dtype)
    rows, columns = mask.shape[-2] // 4, mask.shape[-1] // 4
    low = F.interpolate(SCALE * given + BIAS, size=(rows, columns), mode="bilinear", antialias=True)
    prompts = nowhere(embedding.tokens, memory_of(model).mask_to_prompt(given))
    seen = answer_of(model, single(model.masks(embedding, prompts), stable=not model.training))
    there = mask.flatten(1).any(dim=1)
    scores = torch.where(there, -BIAS, BIAS).to(low.dtype)
    pointers = torch.where(there[:, None], seen.pointers, memory_of(model).pointers.absent)
    return Answer(low[:, 0], torch.ones_like(scores), scores, pointers)


def remember(model: "SAM2", embedding: Embedding, found: Answer, *, prompted: bool) -> Float[Tensor, "b e h w"]:
    """Returns what is remembered of a frame and the object in it; of a prompted one the mask, not how sure it is.

    The authors keep it as bfloat16.
    """
    rows, columns = embedding.tokens.shape[-2:]
    logits = F.interpolate(found.logits[:, None], size=(16 * rows, 16 * columns), mode="bilinear", align_corners=False)
    shares = (logits > 0).to(logits.dtype) if prompted else logits.sigmoid()
    memory = memory_of(model).encoder(embedding.tokens, SCALE * shares + BIAS)
    lack = memory_of(model).absent
    if lack is None:
        return memory
    absent = (found.scores <= 0).to(memory.dtype)
    return memory + absent[:, None, None, None] * lack[..., None, None]
