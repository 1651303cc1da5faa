"""Batches whose content depends on the seed, the epoch and the step alone.

The order of an epoch is a permutation drawn from (seed, epoch). The randomness of an image is drawn from
(seed, epoch, position of the image in the data set), that of mixing from (seed, epoch, step). So batches are the same
for any number of worker processes and ranks, and after resuming in the middle of an epoch.

Dims: b batch, c channels, h w pixels, k classes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.utils.data
from torch import Tensor

from nexus.data.dataset import Dataset, open_sample
from nexus.data.images import Image, ImageError, naming
from nexus.data.mixing import MixConfig, apply_mix, draw_mix
from nexus.data.transforms import Compose

Batch = dict[str, Tensor]
ImageTransform = Compose | Callable[[Image, np.random.Generator], Tensor]

# What a generator is for; the first number of its key.
_ORDER, _IMAGE, _MIX = 0, 1, 2


class WorkerError(RuntimeError):
    """A worker process of the loader died."""


class _Request(NamedTuple):
    """What makes a batch: its place, and the positions of this rank's samples in the data set."""

    epoch: int
    step: int
    indices: np.ndarray


@dataclass(frozen=True)
class _Refused:
    """An image error on its way out of a worker process; as an exception it would arrive inside a traceback."""

    error: ImageError


class Loader:
    """Iterates over the batches of a data set: `for batch in loader.epoch(3)`, or `for batch in loader` for epoch 0.

    A batch is a dict: `images` float (b, c, h, w); `labels` int64 (b,), or soft float (b, k) with `mix`; `index`
    int64 (b,), positions in the data set.
    """

    def __init__(
        self,
        dataset: Dataset,
        transform: ImageTransform,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        mix: MixConfig | None = None,
        start_step: int = 0,
    ):
        """Checks the sizes; nothing is read yet.

        Args:
            transform: Called with an image and a generator, returns a tensor (c, h, w).
            batch_size: Of all ranks together; each rank takes a contiguous slice.
            drop_last: Whether to leave out the last, smaller batch. If it stays, a rank that has no share in it
                ends one step earlier.
            num_workers: Processes that read ahead; 0 reads in this one. They live until the loader is deleted.
            start_step: Where iteration over the loader itself begins.

        Raises:
            ValueError: The sizes do not fit together.
        """
        self.dataset, self.transform, self.mix = dataset, transform, mix
        self.batch_size, self.seed, self.shuffle, self.drop_last = batch_size, seed, shuffle, drop_last
        self.rank, self.world_size, self.num_workers, self.start_step = rank, world_size, num_workers, start_step
        self._check()
        self._requests: list[_Request] = []
        self._workers: torch.utils.data.DataLoader | None = None

    def __len__(self) -> int:
        """Number of steps in an epoch of this rank."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        has_share = bool(rest) and not self.drop_last and self._share(rest).stop > self._share(rest).start
        return full + has_share

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(0, self.start_step)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Returns the batches of an epoch from `start_step` on; earlier ones are skipped without being read.

        Raises:
            ImageError: An image cannot be used; the message names it.
            WorkerError: A worker process died.
        """
        if not 0 <= start_step <= len(self):
            raise ValueError(f"start_step is {start_step}; an epoch has {len(self)} steps.")
        order = self._order(epoch)
        requests = [self._request(epoch, step, order) for step in range(start_step, len(self))]
        return self._read(requests) if self.num_workers == 0 else self._read_ahead(requests)

    def _check(self) -> None:
        samples, batch, world = len(self.dataset), self.batch_size, self.world_size
        if batch < 1 or self.seed < 0 or self.num_workers < 0:
            raise ValueError(
                f"batch_size is {batch}, seed {self.seed}, num_workers {self.num_workers}; "
                "they must be at least 1, 0 and 0."
            )
        if not 0 <= self.rank < world:
            raise ValueError(f"rank is {self.rank}; it must be from 0 to {world - 1}.")
        unit = world * (2 if self.mix else 1)
        if batch % unit:
            why = "mixing needs pairs on each of" if self.mix else "it is shared evenly by"
            near = max(unit, round(batch / unit) * unit)
            raise ValueError(f"batch_size is {batch}; {why} {world} rank(s): use a multiple of {unit}, such as {near}.")
        if samples == 0:
            raise ValueError(f"The data set {getattr(self.dataset, 'name', '')!r} is empty; nothing can be loaded.")
        if self.drop_last and samples < batch:
            raise ValueError(
                f"batch_size is {batch} and the data set has {samples} samples: with drop_last no batch is left; "
                f"use at most {samples}."
            )

    def _order(self, epoch: int) -> np.ndarray:
        count = len(self.dataset)
        return _generator(self.seed, _ORDER, epoch).permutation(count) if self.shuffle else np.arange(count)

    def _request(self, epoch: int, step: int, order: np.ndarray) -> _Request:
        batch = order[step * self.batch_size : (step + 1) * self.batch_size]
        return _Request(epoch, step, batch[self._share(len(batch))])

    def _share(self, size: int) -> slice:
        """Returns this rank's slice of a global batch of `size`; pairs that are mixed stay together."""
        unit = 2 if self.mix else 1
        units = math.ceil(size / unit)
        start, stop = (units * end // self.world_size * unit for end in (self.rank, self.rank + 1))
        return slice(start, min(stop, size))

    def _read(self, requests: list[_Request]) -> Iterator[Batch]:
        batches = self._batches()
        for request in requests:
            yield _accept(batches[request])

    def _read_ahead(self, requests: list[_Request]) -> Iterator[Batch]:
        if self._workers is None:
            self._workers = torch.utils.data.DataLoader(
                self._batches(),
                batch_size=None,
                sampler=_Queue(self._requests),  # pyrefly: ignore[bad-argument-type]
                num_workers=self.num_workers,
                persistent_workers=True,
                collate_fn=_as_is,
                generator=torch.Generator(),  # so that torch's global stream is left alone
            )
        self._requests[:] = requests
        try:
            for batch in self._workers:
                yield _accept(batch)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error) or isinstance(error, WorkerError):
                raise
            self._workers = None
            raise WorkerError(
                f"A worker process of the loader died ({_first_line(error)}). Most often the memory ran out: use fewer "
                f"than {self.num_workers} num_workers or smaller images; num_workers=0 shows an error of the data set."
            ) from error

    def _batches(self) -> "_Batches":
        return _Batches(self.dataset, self.transform, self.seed, self.mix)


@dataclass(frozen=True)
class _Queue:
    """The requests of the epoch that begins; the list is filled anew for each."""

    requests: list[_Request]

    def __iter__(self) -> Iterator[_Request]:
        return iter(list(self.requests))

    def __len__(self) -> int:
        return len(self.requests)


class _Batches(torch.utils.data.Dataset):
    """Makes batches of requests, in whichever process."""

    def __init__(self, dataset: Dataset, transform: ImageTransform, seed: int, mix: MixConfig | None):
        self.dataset, self.transform, self.seed, self.mix = dataset, transform, seed, mix

    def __getitem__(self, index: _Request) -> Batch | _Refused:
        try:
            return self._batch(index)
        except ImageError as error:
            return _Refused(error)

    def _batch(self, request: _Request) -> Batch:
        paths, labels, pixels = [], [], []
        for index in request.indices.tolist():
            sample = open_sample(self.dataset, index)
            with naming(sample.path):
                pixels.append(self._prepare(sample.image, _generator(self.seed, _IMAGE, request.epoch, index)))
            paths.append(sample.path)
            labels.append(sample.label)
        images = self._stack(pixels, paths)
        targets = torch.tensor(labels, dtype=torch.int64)
        if self.mix is not None:
            rng = _generator(self.seed, _MIX, request.epoch, request.step)
            drawn = draw_mix(self.mix, (images.shape[2], images.shape[3]), rng)
            images, targets = apply_mix(images, targets, drawn, self.mix.num_classes)
        return {"images": images, "labels": targets, "index": torch.from_numpy(request.indices.astype(np.int64))}

    def _prepare(self, image: Image, rng: np.random.Generator) -> np.ndarray | Tensor:
        if isinstance(self.transform, Compose):
            return self.transform.pixels(image, rng)
        return self.transform(image, rng)

    def _stack(self, pixels: list[Any], paths: list[str]) -> Tensor:
        for one, path in zip(pixels, paths):
            if one.shape != pixels[0].shape:
                raise ImageError(
                    f"{path} became {tuple(one.shape)} and {paths[0]} {tuple(pixels[0].shape)}; images of a batch "
                    "must have one shape: add a resize to the transform."
                )
        if not isinstance(self.transform, Compose):
            return torch.stack(pixels)
        if len({one.dtype for one in pixels}) > 1:
            pixels = [one / np.float32(255) if one.dtype == np.uint8 else one for one in pixels]
        return self.transform.finish(np.stack(pixels))


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def _accept(batch: Batch | _Refused) -> Batch:
    if isinstance(batch, _Refused):
        raise batch.error
    return batch


def _as_is(batch: Any) -> Any:
    return batch


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(".")
