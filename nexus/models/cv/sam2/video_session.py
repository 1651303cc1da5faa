"""Objects followed through a video, frame by frame, with a memory of bounded size.

Dims: n objects, h w pixels of what the model sees, low_h low_w of its masks (a quarter of that).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nexus.layers import check_images, image_sides
from nexus.models.cv.sam.mask_decoder import SCALE
from nexus.models.cv.sam.prompts import Prompts, read_prompts
from nexus.models.cv.sam2.bank import Bank, Kept
from nexus.models.cv.sam2.config import STRIDE
from nexus.models.cv.sam2.image_encoder import Embedding
from nexus.models.cv.sam2.sam2 import SAM2
from nexus.models.cv.sam2.tracking import (
    ABSENT,
    LARGEST,
    Answer,
    Pointed,
    Remembered,
    answer,
    answer_mask,
    first_sight,
    memory_of,
    recall,
    remember,
)


class Frames(Protocol):
    """A video whose frames can be had by number, as the model's input: float (c, h, w), normalized. A list is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Tensor: ...


class Tracked(NamedTuple):
    """What is found in a frame.

    Attributes:
        object_ids: In the order in which they were first prompted.
        logits: (n, low_h, low_w), above 0 inside; -1024 everywhere of an object that is hidden or out of sight, or was
            not looked for in this frame.
        scores: (n,), above 0 where the object is in sight.
        iou: (n,), how good each mask is said to be, from 0 to 1.
    """

    object_ids: tuple[int, ...]
    logits: Tensor
    scores: Tensor
    iou: Tensor


class VideoSession:
    """A video in which objects are pointed at and followed.

    A live stream: `push(frame)` answers for each next frame, and `prompt(object_id, points=...)` points at an object in
    the last one. A video that can be read at any place, given as `frames`: `prompt(object_id, frame=number, ...)`
    points at an object anywhere, and `propagate()` follows all, forward or back. Objects can be added at any time, and
    answers corrected by further prompts; a correction stays, wherever tracking starts (the authors' newest predictor
    forgets it where that is at or before the frame).

    Of frames that were tracked, the last `keep` stay in memory; of those that were prompted, all; of images, one. A
    frame that was tracked longer ago is prompted as if it had not been tracked.

    Args:
        model: In evaluation mode.
        size: (height, width) of the pictures that the frames were made from, in whose pixels prompts are.
        frames: The video, where it can be read at any place.
        num_frames: How many frames a stream has, where that is known. The authors measure time by it in videos of fewer
            than 16 frames.
        keep: Tracked frames that stay in memory; at least 15, which is what the model looks back at.
        corrections_prompt: Corrected frames count as prompted ones, as in training, instead of as tracked ones.
    """

    def __init__(
        self,
        model: SAM2,
        size: tuple[int, int],
        frames: Frames | Sequence[Tensor] | None = None,
        *,
        num_frames: int | None = None,
        keep: int = 16,
        corrections_prompt: bool = False,
    ) -> None:
        memory_of(model)
        least = max(model.config.num_pointers, model.config.num_memories) - 1
        if keep < least:
            raise ValueError(f"keep is {keep}; the model looks back at {least} frames, so keep at least so many.")
        if min(size) < 1:
            raise ValueError(f"size is {size}; it is the (height, width) of the pictures in pixels.")
        self.model, self.size, self.frames = model, size, frames
        self.keep, self.corrections_prompt = keep, corrections_prompt
        self.num_frames = len(frames) if frames is not None else num_frames
        self.number = -1
        self._banks: dict[int, Bank] = {}
        self._embedding: tuple[int, Embedding] | None = None

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects, in the order in which they were first prompted."""
        return tuple(self._banks)

    @torch.inference_mode()
    def push(self, frame: Float[Tensor, "c h w"]) -> Tracked:
        """Returns what is found in the next frame of a stream.

        Raises:
            ValueError: The session reads its frames itself, or the frame is no input of the model.
        """
        if self.frames is not None:
            raise ValueError("This session reads its frames itself: call `propagate`, or leave `frames` out.")
        if not isinstance(frame, Tensor) or frame.ndim != 3:
            told = tuple(frame.shape) if isinstance(frame, Tensor) else type(frame).__name__
            raise ValueError(f"A frame is {told}; it is what the model sees: normalized floats (c, h, w).")
        embedding = self._encode(frame)
        self.number += 1
        self._embedding = (self.number, embedding)
        return self._track(self.number, reverse=False)

    @torch.inference_mode()
    def prompt(
        self,
        object_id: int,
        frame: int | None = None,
        *,
        points: Any = None,
        labels: Any = None,
        boxes: Any = None,
        masks: Any = None,
    ) -> Tracked:
        """Points at an object in a frame, and returns what is now found there of all objects.

        Args:
            object_id: Any number; one that is new adds an object.
            frame: Its number; None is the last one that was looked at.
            points: (n, 2), x and y in pixels of the pictures; all that shall count in this frame.
            labels: (n,), for each 1 of the object, 0 not of it; without them all are of the object.
            boxes: (4,), x1, y1, x2, y2.
            masks: (h, w) of `size`, above 0.5 inside; alone, without points and boxes.

        Raises:
            ValueError: There is no such frame, or no prompt, or it does not fit.
        """
        if isinstance(object_id, bool) or not isinstance(object_id, int):
            raise ValueError(f"object_id is {object_id!r}; it is a whole number.")
        number = self._number_of(frame)
        given = {"points": points, "labels": labels, "boxes": boxes}
        given = {key: value for key, value in given.items() if value is not None}
        if masks is not None and given:
            raise ValueError(f"masks are given with {', '.join(given)}; a mask says all, so give it alone.")
        embedding = self._embedding_of(number)
        mask = None if masks is None else self._mask(masks, embedding)
        prompts = self._prompts(given, embedding) if mask is None else None
        self._answer_prompt(self._banks.setdefault(object_id, Bank(self.keep)), number, embedding, prompts, mask)
        self.number = number
        return self._found(number)

    def _answer_prompt(
        self, bank: Bank, number: int, embedding: Embedding, prompts: Prompts | None, mask: Tensor | None
    ) -> None:
        before = bank.find(number)
        as_correction = before is not None and number not in bank.prompted and not self.corrections_prompt
        if mask is not None:
            found = answer_mask(self.model, embedding, mask)
        else:
            assert prompts is not None
            if before is not None:
                prompts = prompts._replace(masks=before.found.logits[None].clamp(-LARGEST, LARGEST))
            tracked = before is not None and number not in bank.prompted
            tokens = (
                self._tokens([bank], number, embedding, reverse=False)
                if tracked
                else first_sight(self.model, embedding)
            )
            found = answer(self.model, tokens, embedding, prompts)
        bank.prompt(number, self._kept(embedding, found, prompted=True), as_correction=as_correction)

    def propagate(
        self, start: int | None = None, *, reverse: bool = False, count: int | None = None
    ) -> Iterator[tuple[int, Tracked]]:
        """Yields the number of each frame from `start` on, and what is found in it.

        Args:
            start: None is the first frame that was prompted.
            reverse: Go back from it.
            count: Frames at most.

        Raises:
            ValueError: The session is a stream, nothing was prompted, or there is no frame `start`.
        """
        if self.frames is None:
            raise ValueError("This session is a stream, whose frames are pushed; give `frames` to go through a video.")
        prompted = [number for bank in self._banks.values() for number in bank.prompted]
        if not prompted:
            raise ValueError("Nothing is followed yet: `prompt` an object first.")
        start = min(prompted) if start is None else self._number_of(start)
        numbers = range(start, -1, -1) if reverse else range(start, len(self.frames))
        return self._through(numbers[:count], reverse=reverse)

    def _through(self, numbers: range, *, reverse: bool) -> Iterator[tuple[int, Tracked]]:
        for number in numbers:
            with torch.inference_mode():
                self.number = number
                found = self._track(number, reverse=reverse)
            yield number, found

    def remove(self, object_id: int) -> None:
        """Forgets an object.

        Raises:
            ValueError: There is none of this number.
        """
        if object_id not in self._banks:
            known = ", ".join(map(str, self._banks)) or "none"
            raise ValueError(f"There is no object {object_id!r}; there are: {known}.")
        del self._banks[object_id]

    def _track(self, number: int, *, reverse: bool) -> Tracked:
        waiting = [bank for bank in self._banks.values() if not bank.is_given(number)]
        for banks in self._alike(waiting, number, reverse=reverse):
            embedding = self._embedding_of(number)
            shared = Embedding(*(part.expand(len(banks), -1, -1, -1) for part in embedding))
            found = answer(self.model, self._tokens(banks, number, embedding, reverse=reverse), shared)
            kept = self._kept(shared, found, prompted=False)
            for at, bank in enumerate(banks):
                own = Answer(*(part[at : at + 1] for part in kept.found))
                bank.track(number, Kept(own, kept.memory[at : at + 1]))
        return self._found(number)

    def _alike(self, banks: list[Bank], number: int, *, reverse: bool) -> Iterable[list[Bank]]:
        """The objects in groups that remember frames of the same ages, so that a group is answered in one go."""
        groups: dict[tuple[tuple[int | None, ...], ...], list[Bank]] = {}
        for bank in banks:
            ages = (tuple(one.ago for one in part) for part in self._remembered(bank, number, reverse=reverse))
            groups.setdefault(tuple(ages), []).append(bank)
        return groups.values()

    def _remembered(self, bank: Bank, number: int, *, reverse: bool) -> tuple[list[Remembered], list[Pointed]]:
        frames = bank.memories(number, self.model.config.num_memories - 1, reverse=reverse)
        return frames, bank.pointers(number, self._longest - 1, reverse=reverse)

    @property
    def _longest(self) -> int:
        config = self.model.config
        return min(self.num_frames or config.num_pointers, config.num_pointers)

    def _tokens(
        self, banks: list[Bank], number: int, embedding: Embedding, *, reverse: bool
    ) -> Float[Tensor, "n d h w"]:
        """The tokens of a frame, for each of some objects whose memories are of the same ages."""
        frames, pointers = zip(*(self._remembered(bank, number, reverse=reverse) for bank in banks))
        maps = [Remembered(of[0].ago, torch.cat([one.memory for one in of])) for of in zip(*frames)]
        told = [Pointed(of[0].ago, torch.cat([one.pointer for one in of])) for of in zip(*pointers)]
        return recall(self.model, embedding, maps, told, self._longest)

    def _kept(self, embedding: Embedding, found: Answer, *, prompted: bool) -> Kept:
        return Kept(found, remember(self.model, embedding, found, prompted=prompted).bfloat16())

    def _found(self, number: int) -> Tracked:
        """What is kept of a frame, of all objects."""
        kept = [bank.find(number) for bank in self._banks.values()]
        like = next(self.model.parameters())
        low = tuple(side // SCALE for side in image_sides(self.model.config.image_size))
        if self._embedding is not None:
            rows, columns = self._embedding[1].tokens.shape[-2:]
            low = SCALE * rows, SCALE * columns
        unseen = Answer(like.new_full((1, *low), ABSENT), like.new_zeros(1), like.new_full((1,), ABSENT), like)
        found = [unseen if one is None else one.found for one in kept]
        if not found:
            return Tracked((), like.new_zeros(0, *low), like.new_zeros(0), like.new_zeros(0))
        logits, scores, iou = (torch.cat(part) for part in zip(*((one.logits, one.scores, one.iou) for one in found)))
        return Tracked(self.object_ids, logits, scores, iou)

    def _number_of(self, frame: int | None) -> int:
        number = self.number if frame is None else frame
        if isinstance(number, bool) or not isinstance(number, int):
            raise ValueError(f"frame is {number!r}; it is the number of one, from 0.")
        if self.frames is not None:
            number = max(number, 0) if frame is None else number
            if not 0 <= number < len(self.frames):
                raise ValueError(f"There is no frame {number}; the video has {len(self.frames)}, from 0.")
            return number
        if self.number < 0:
            raise ValueError("There is no frame yet: `push` one first, or give `frames`.")
        if number != self.number:
            raise ValueError(
                f"Frame {number} is gone: of a stream only the last frame, {self.number}, can be prompted. Give"
                " `frames` to prompt any."
            )
        return number

    def _embedding_of(self, number: int) -> Embedding:
        if self._embedding is None or self._embedding[0] != number:
            assert self.frames is not None
            self._embedding = number, self._encode(self.frames[number])
        return self._embedding[1]

    def _encode(self, frame: Tensor) -> Embedding:
        like = next(self.model.parameters())
        images = frame[None].to(like.device, like.dtype) if frame.is_floating_point() else frame[None]
        check_images(images, self.model.config.in_channels, multiple_of=2 * STRIDE)
        return self.model.encode(images)

    def _prompts(self, given: dict[str, Any], embedding: Embedding) -> Prompts:
        rows, columns = embedding.tokens.shape[-2:]
        prompts = read_prompts(given, embedding.tokens, self.size, (SCALE * rows, SCALE * columns))
        if next(value for value in prompts if value is not None).shape[:2] != (1, 1):
            raise ValueError("The prompts are of several objects; point at one object at a time.")
        scale = embedding.tokens.new_tensor([STRIDE * columns / self.size[1], STRIDE * rows / self.size[0]])
        points = None if prompts.points is None else prompts.points * scale
        boxes = None if prompts.boxes is None else prompts.boxes * scale.repeat(2)
        return prompts._replace(points=points, boxes=boxes)

    def _mask(self, mask: Any, embedding: Embedding) -> Tensor:
        """A mask of `size` at the size of what the model sees."""
        given = torch.as_tensor(mask, device=embedding.tokens.device)
        if tuple(given.shape) != tuple(self.size):
            raise ValueError(
                f"A mask has shape {tuple(given.shape)}; it is of the size of the pictures,"
                f" {self.size[0]} x {self.size[1]}."
            )
        rows, columns = embedding.tokens.shape[-2:]
        size = STRIDE * rows, STRIDE * columns
        large = F.interpolate(given[None, None].float(), size=size, mode="bilinear", antialias=True)
        return large[0] >= 0.5
