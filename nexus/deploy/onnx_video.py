"""Objects followed through a video by the exported stages of a SAM 2, in ONNX Runtime and NumPy.

Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, Sec. 4 and Appendix D.1.

Dims: n objects, h w pixels of what the model sees, low_h low_w of its masks, e a memory's width, d of a pointer.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nexus.data.images import Source, load_image
from nexus.data.preprocess import model_input
from nexus.deploy.onnx_model import OnnxModel
from nexus.deploy.onnx_prompts import prompt_inputs

STAGES = ("image_encoder", "mask_decoder", "memory_encoder", "memory_attention")
ABSENT = -1024.0
"""Logits of a mask whose object is not in the frame."""
LARGEST = 32.0
"""Logits that are handed back to the model as a prompt are not larger."""
OUTLINE, LEAST_STABILITY = 0.05, 0.98
"""Logits above and below zero between which a mask hardly changes, and the least IoU of the two."""


class Found(NamedTuple):
    """What is found of an object in a frame.

    Attributes:
        logits: (low_h, low_w), above 0 inside.
        score: Above 0 where the object is in sight.
        iou: How good the mask is said to be, from 0 to 1.
        pointer: (d,), what later frames are told of it.
    """

    logits: np.ndarray
    score: float
    iou: float
    pointer: np.ndarray


class Kept(NamedTuple):
    """A frame that is kept of an object: the answer, and the memory (e, h, w)."""

    found: Found
    memory: np.ndarray


class _Object:
    """The frames that are kept of one object, by their numbers: prompted, corrected afterwards, and tracked."""

    def __init__(self) -> None:
        self.prompted: dict[int, Kept] = {}
        self.corrected: dict[int, Kept] = {}
        self.tracked: dict[int, Kept] = {}

    def find(self, number: int) -> Kept | None:
        return self.prompted.get(number) or self.corrected.get(number) or self.tracked.get(number)

    def before(self, number: int, count: int, step: int) -> list[tuple[int, Kept]]:
        """Returns the frames that were tracked one to `count` frames ago, and how long ago."""
        places = ((ago, number - step * ago) for ago in range(1, count + 1))
        found = ((ago, self.corrected.get(place) or self.tracked.get(place), place) for ago, place in places)
        return [(ago, kept) for ago, kept, place in found if kept is not None and place not in self.prompted]


class OnnxVideo:
    """A video in which objects are pointed at and followed: what `VideoSession` does with torch.

    Of frames that were tracked, the last `keep` stay in memory; of those that were prompted, all; of images, one.

    Attributes:
        model: The stages.
        size: (height, width) of the pictures that the frames were made from, in whose pixels prompts are.
        number: Of the last frame that was looked at.
    """

    def __init__(
        self,
        model: OnnxModel | str | Path,
        size: tuple[int, int],
        frames: Sequence[np.ndarray] | None = None,
        *,
        num_frames: int | None = None,
        keep: int = 16,
    ) -> None:
        """Opens the stages.

        Args:
            model: The folder that `nexus.models.cv.sam2.VideoStages` was exported to, or it opened.
            size: (height, width) of the pictures in pixels.
            frames: The model's input for each frame (c, h, w), where any can be read; None for a stream.
            num_frames: How many frames a stream has, where that is known.
            keep: Tracked frames that stay in memory.

        Raises:
            ValueError: The folder holds other stages.
        """
        self.model = model if isinstance(model, OnnxModel) else OnnxModel(model)
        missing = [name for name in STAGES if name not in self.model.stages]
        if missing:
            raise ValueError(f"{self.model.path} has no {missing[0]!r}; export VideoStages(model) of a SAM 2.")
        config = self.model.config
        counts: list[Any] = [config.get(name) for name in ("num_memories", "num_pointers")]
        if any(type(one) is not int or one < 1 for one in counts):
            raise ValueError(f"{self.model.path} does not say how much it remembers ({counts}); export it again.")
        self.num_memories, self.num_pointers = counts
        least = max(self.num_memories, self.num_pointers) - 1
        if keep < least:
            raise ValueError(f"keep is {keep}; the model looks back at {least} frames, so keep at least so many.")
        self.size, self.frames, self.keep, self.number = size, frames, keep, -1
        self.num_frames = num_frames if frames is None else len(frames)
        self._objects: dict[int, _Object] = {}
        self._maps: tuple[int, dict[str, np.ndarray]] = (-1, {})

    def see(self, image: Source) -> np.ndarray:
        """Returns a picture as the model takes it, by the preprocessing of the files."""
        if self.model.preprocessing is None:
            raise ValueError(f"{self.model.path} does not say how an image becomes its input; give normalized arrays.")
        return model_input(load_image(image), self.model.preprocessing)

    def push(self, frame: np.ndarray) -> dict[int, Found]:
        """Returns what is found in the next frame (c, h, w) of a stream, by object.

        Raises:
            ValueError: The session reads its frames itself.
        """
        if self.frames is not None:
            raise ValueError("This session reads its frames itself: call `propagate`, or leave `frames` out.")
        self.number += 1
        self._maps = self.number, self._encode(frame)
        return self._track(self.number, 1)

    def prompt(
        self, object_id: int, frame: int | None = None, *, points: Any = None, labels: Any = None, boxes: Any = None
    ) -> dict[int, Found]:
        """Points at an object in a frame, and returns what is now found there of all objects.

        Args:
            object_id: Any number; one that is new adds an object.
            frame: Its number; None is the last one that was looked at.
            points: (n, 2), x and y in pixels of the pictures; all that shall count in this frame.
            labels: (n,), for each 1 of the object, 0 not of it; without them all are of the object.
            boxes: (4,), x1, y1, x2, y2.

        Raises:
            ValueError: There is no such frame, or no prompt, or it does not fit.
        """
        number = self._number_of(frame)
        maps = self._maps_of(number)
        low = (4 * maps["tokens"].shape[2], 4 * maps["tokens"].shape[3])
        own = self._objects.get(object_id, _Object())
        before = own.find(number)
        given = {"points": self._scaled(points), "labels": labels, "boxes": self._scaled(boxes)}
        if before is not None:
            given["masks"] = before.found.logits.clip(-LARGEST, LARGEST)
        if points is None and boxes is None:
            raise ValueError("There is no prompt: give points or boxes.")
        asked = prompt_inputs(given, low, always_ended=True)
        if asked["points"].shape[1] != 1:
            raise ValueError("The prompts are of several objects; point at one object at a time.")
        correction = before is not None and number not in own.prompted
        tokens = self._recall(own, number, maps, 1) if correction else maps["tokens"]
        ambiguous = (0 if points is None else len(points)) + (0 if boxes is None else 2) <= 1
        kept = self._kept(maps, self._answer(tokens, maps, asked, ambiguous=ambiguous), prompted=True)
        for frames in (own.tracked, own.corrected):
            frames.pop(number, None)
        (own.corrected if correction else own.prompted)[number] = kept
        self._objects[object_id], self.number = own, number
        return self._found(number)

    def propagate(self, start: int | None = None, *, reverse: bool = False) -> Iterator[tuple[int, dict[int, Found]]]:
        """Yields the number of each frame from `start` on (the first that was prompted), and what is found in it.

        Raises:
            ValueError: The session is a stream, or nothing was prompted.
        """
        if self.frames is None:
            raise ValueError("This session is a stream, whose frames are pushed; give `frames` to go through a video.")
        prompted = [number for one in self._objects.values() for number in one.prompted]
        if not prompted:
            raise ValueError("Nothing is followed yet: `prompt` an object first.")
        start = min(prompted) if start is None else self._number_of(start)
        for number in range(start, -1, -1) if reverse else range(start, len(self.frames)):
            self.number = number
            yield number, self._track(number, -1 if reverse else 1)

    def _track(self, number: int, step: int) -> dict[int, Found]:
        for own in self._objects.values():
            if number in own.prompted or number in own.corrected:
                continue
            maps = self._maps_of(number)
            asked = _nowhere((4 * maps["tokens"].shape[2], 4 * maps["tokens"].shape[3]))
            found = self._answer(self._recall(own, number, maps, step), maps, asked, ambiguous=True)
            own.tracked.pop(number, None)
            own.tracked[number] = self._kept(maps, found, prompted=False)
            while len(own.tracked) > self.keep:
                del own.tracked[next(iter(own.tracked))]
        return self._found(number)

    def _found(self, number: int) -> dict[int, Found]:
        kept = {name: own.find(number) for name, own in self._objects.items()}
        return {name: one.found for name, one in kept.items() if one is not None}

    def _recall(self, own: _Object, number: int, maps: dict[str, np.ndarray], step: int) -> np.ndarray:
        """Returns the tokens of a frame that know what is remembered."""
        longest = min(self.num_frames or self.num_pointers, self.num_pointers)
        near = own.before(number, self.num_memories - 1, step)
        frames = [(self.num_memories, kept) for kept in own.prompted.values()] + near[::-1]
        ages = [(step * (number - place), kept) for place, kept in own.prompted.items()]
        pointers = [(ago, kept) for ago, kept in ages if ago >= 0] + own.before(number, longest - 1, step)
        width = len(frames[0][1].found.pointer)
        return self.model.stages["memory_attention"](
            embeddings=maps["embeddings"],
            memories=np.stack([kept.memory for _, kept in frames])[None],
            slots=np.array([slot for slot, _ in frames], np.int64),
            known_pointers=np.array([kept.found.pointer for _, kept in pointers], np.float32).reshape(1, -1, width),
            shares=np.array([ago / max(1, longest - 1) for ago, _ in pointers], np.float32),
        )["attended"]

    def _answer(
        self, tokens: np.ndarray, maps: dict[str, np.ndarray], asked: dict[str, np.ndarray], *, ambiguous: bool
    ) -> Found:
        fine = {name: maps[name] for name in ("eighths", "quarters")}
        outputs = self.model.stages["mask_decoder"](tokens=tokens, **fine, **asked)
        logits, scores, pointers = (outputs[name][0, 0] for name in ("low_res_masks", "iou_scores", "pointers"))
        best, present = 1 + int(scores[1:].argmax()), float(outputs["object_scores"][0, 0])
        mask = best if ambiguous or _stability(logits[0]) < LEAST_STABILITY else 0
        shown = logits[mask] if present > 0 else np.full_like(logits[mask], ABSENT)
        return Found(shown, present, float(scores[mask]), pointers[best if ambiguous else 0])

    def _kept(self, maps: dict[str, np.ndarray], found: Found, *, prompted: bool) -> Kept:
        memory = self.model.stages["memory_encoder"](
            embeddings=maps["embeddings"],
            found_masks=found.logits[None],
            found_scores=np.array([found.score], np.float32),
            prompted=np.array([prompted]),
        )["memory"]
        return Kept(found, _as_bfloat16(memory[0]))

    def _encode(self, frame: np.ndarray) -> dict[str, np.ndarray]:
        return self.model.stages["image_encoder"](images=np.asarray(frame, np.float32)[None])

    def _maps_of(self, number: int) -> dict[str, np.ndarray]:
        if self._maps[0] != number:
            assert self.frames is not None
            self._maps = number, self._encode(self.frames[number])
        return self._maps[1]

    def _scaled(self, places: Any) -> np.ndarray | None:
        """Returns places in pixels of the pictures in those of what the model sees."""
        if places is None:
            return None
        array, tokens = np.asarray(places, np.float64), self._maps[1]["tokens"]
        sides = 16 * np.array(tokens.shape[:1:-1])
        return array * np.tile(sides / np.array(self.size[::-1]), array.shape[-1] // 2)

    def _number_of(self, frame: int | None) -> int:
        number = self.number if frame is None else frame
        if self.frames is not None:
            number = max(number, 0) if frame is None else number
            if not 0 <= number < len(self.frames):
                raise ValueError(f"There is no frame {number}; the video has {len(self.frames)}, from 0.")
        elif self.number < 0:
            raise ValueError("There is no frame yet: `push` one first, or give `frames`.")
        elif number != self.number:
            raise ValueError(f"Frame {number} is gone: of a stream only the last, {self.number}, can be prompted.")
        return number


def _nowhere(low_size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Returns the prompt of a place that holds no point."""
    return prompt_inputs({"points": [[0, 0]], "labels": [-1]}, low_size, always_ended=True)


def _stability(logits: np.ndarray) -> float:
    """Returns the IoU of a mask with the threshold a little above and a little below zero; 1 where both are empty."""
    outer = int((logits > -OUTLINE).sum())
    return int((logits > OUTLINE).sum()) / outer if outer else 1.0


def _as_bfloat16(values: np.ndarray) -> np.ndarray:
    """Returns float32 values rounded to those that bfloat16 has, halves to even, as memories are kept."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)
