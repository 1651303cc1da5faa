"""Batches whose content depends on the seed, the epoch and the step alone.

The order of an epoch is a permutation drawn from (seed, epoch). The randomness of an image is drawn from
(seed, epoch, position of the image in the data set), that of mixing from (seed, epoch, step). So batches are the same
for any number of worker processes and ranks, and after resuming in the middle of an epoch.

Dims: b batch, c channels, h w pixels, k classes.
"""

import itertools
import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.multiprocessing  # teaches processes to hand tensors over in shared memory
from torch import Tensor

from nexus.data import workers
from nexus.data.batch import batch_length
from nexus.data.dataset import Dataset, open_sample
from nexus.data.facets import Rays
from nexus.data.images import Image, ImageError, naming
from nexus.data.mixing import MixConfig, apply_mix, draw_mix
from nexus.data.transforms import Compose
from nexus.data.workers import Watch, cause_of_death

Batch = dict[str, Any]


@runtime_checkable
class BatchTransform(Protocol):
    """A transform that makes whole batches itself, because images of one differ in size or draw on other images."""

    def make_batch(self, dataset: Any, indices: list[int], rngs: list[np.random.Generator]) -> Batch: ...


@runtime_checkable
class ChecksDataset(Protocol):
    """A transform that cannot be used with every data set."""

    def check_dataset(self, dataset: Any) -> None:
        """Raises ValueError where it cannot be used with this one, before an image is read."""
        ...


PixelTransform = Callable[[Image, np.random.Generator], Tensor]
ImageTransform = Compose | BatchTransform | PixelTransform

# What a generator is for; the first number of its key.
_ORDER, _IMAGE, _MIX = 0, 1, 2

# Signals by which a process ends itself.
_CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGILL, -signal.SIGFPE}

# Batches that each worker process may be ahead.
_AHEAD = 2


class WorkerError(RuntimeError):
    """A worker process of the loader died, or met an error that is not about the data. Names what it read."""


class _Request(NamedTuple):
    """What makes a batch: its place, and the positions of this rank's samples in the data set, or of its rays.

    Attributes:
        draws: Of samples that an epoch may draw several times: which of its draws each is.
    """

    epoch: int
    step: int
    indices: np.ndarray
    of_rays: bool = False
    draws: np.ndarray | None = None


class Loader:
    """Iterates over the batches of a data set: `for batch in loader.epoch(3)`, or `for batch in loader` for epoch 0.

    A batch is a dict (see `nexus.data.batch`) with `index`, int64 (b,), positions in the data set. A plain transform
    adds `images` float (b, c, h, w) and `labels` int64 (b,), or soft float (b, k) with `mix`. Of a data set of rays
    that is shuffled a batch holds what `dataset.rays` returns of rays drawn at random; it has no epochs and no end.
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
        weights: np.ndarray | None = None,
    ):
        """Checks the sizes; nothing is read yet.

        Args:
            transform: Called with an image and a generator, returns a tensor (c, h, w); or a `BatchTransform`.
            batch_size: Of all ranks together; each rank takes a contiguous slice.
            drop_last: Whether to leave out the last, smaller batch. If it stays, a rank that has no share in it
                ends one step earlier.
            num_workers: Processes that read ahead; 0 reads in this one. They live until the loader is deleted.
            start_step: Where iteration over the loader itself begins.
            weights: (n,) how often each sample is drawn, relative to the others: an epoch then draws as many samples
                as there are, with replacement. Needs `shuffle`.

        Raises:
            ValueError: The sizes do not fit together.
        """
        self.dataset, self.transform, self.mix = dataset, transform, mix
        self.batch_size, self.seed, self.shuffle, self.drop_last = batch_size, seed, shuffle, drop_last
        self.rank, self.world_size, self.num_workers, self.start_step = rank, world_size, num_workers, start_step
        self.weights = weights
        self._check()
        self._pool: ProcessPoolExecutor | None = None
        self._watch = Watch(multiprocessing, 0)

    @property
    def steps_per_epoch(self) -> int | None:
        """Number of steps in an epoch of this rank; None where there are no epochs."""
        return None if self._draws_rays else len(self)

    @property
    def _draws_rays(self) -> bool:
        return self.shuffle and isinstance(self.dataset, Rays)

    def __len__(self) -> int:
        """Number of steps in an epoch of this rank."""
        if self._draws_rays:
            raise TypeError(f"The data set {self.dataset.name!r} has no epochs: rays are drawn at random without end.")
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
        if self._draws_rays:
            requests: Iterable[_Request] = (self._ray_request(step) for step in itertools.count(start_step))
        elif 0 <= start_step <= len(self):
            order = self._order(epoch)
            requests = (self._request(epoch, step, order) for step in range(start_step, len(self)))
        else:
            raise ValueError(f"start_step is {start_step}; an epoch has {len(self)} steps.")
        return self._read(requests) if self.num_workers == 0 else self._read_ahead(requests)

    def _check(self) -> None:
        samples, batch, world = len(self.dataset), self.batch_size, self.world_size
        if batch < 1 or self.seed < 0 or self.num_workers < 0:
            raise ValueError(
                f"batch_size is {batch}, seed {self.seed}, num_workers {self.num_workers}; "
                "they must be at least 1, 0 and 0."
            )
        if self.weights is not None and not (self.shuffle and len(self.weights) == samples):
            raise ValueError(f"weights are {len(self.weights)}, for {samples} samples; they need shuffle=True.")
        if not 0 <= self.rank < world:
            raise ValueError(f"rank is {self.rank}; it must be from 0 to {world - 1}.")
        unit = world * (2 if self.mix else 1)
        if batch % unit:
            why = "mixing needs pairs on each of" if self.mix else "it is shared evenly by"
            near = max(unit, round(batch / unit) * unit)
            raise ValueError(f"batch_size is {batch}; {why} {world} rank(s): use a multiple of {unit}, such as {near}.")
        if samples == 0:
            raise ValueError(f"The data set {getattr(self.dataset, 'name', '')!r} is empty; nothing can be loaded.")
        if self.drop_last and samples < batch and not self._draws_rays:
            raise ValueError(
                f"batch_size is {batch} and the data set has {samples} samples: with drop_last no batch is left; "
                f"use at most {samples}."
            )
        if isinstance(self.transform, ChecksDataset):
            self.transform.check_dataset(self.dataset)

    def _order(self, epoch: int) -> np.ndarray:
        count = len(self.dataset)
        if self.weights is not None:
            shares = self.weights / self.weights.sum()
            return _generator(self.seed, _ORDER, epoch).choice(count, size=count, p=shares)
        return _generator(self.seed, _ORDER, epoch).permutation(count) if self.shuffle else np.arange(count)

    def _request(self, epoch: int, step: int, order: np.ndarray) -> _Request:
        draws = np.arange(len(order))[step * self.batch_size : (step + 1) * self.batch_size]
        draws = draws[self._share(len(draws))]
        return _Request(epoch, step, order[draws], draws=None if self.weights is None else draws)

    def _ray_request(self, step: int) -> _Request:
        assert isinstance(self.dataset, Rays)
        drawn = _generator(self.seed, _ORDER, step).integers(self.dataset.num_rays, size=self.batch_size)
        return _Request(0, step, drawn[self._share(self.batch_size)], of_rays=True)

    def _share(self, size: int) -> slice:
        """Returns this rank's slice of a global batch of `size`; pairs that are mixed stay together."""
        unit = 2 if self.mix else 1
        units = math.ceil(size / unit)
        start, stop = (units * end // self.world_size * unit for end in (self.rank, self.rank + 1))
        return slice(start, min(stop, size))

    def _read(self, requests: Iterable[_Request]) -> Iterator[Batch]:
        maker = self._maker()
        for request in requests:
            yield maker.make(request)

    def _read_ahead(self, requests: Iterable[_Request]) -> Iterator[Batch]:
        if self._pool is None:
            # Not torch's DataLoader: when a worker dies, that raises in whatever code the main process is in.
            context = multiprocessing.get_context()
            self._watch = Watch(context, self.num_workers)
            work = (self._maker(), self._watch.table)
            self._pool = ProcessPoolExecutor(self.num_workers, context, initializer=_begin_work, initargs=work)
        waiting: deque[Future[Batch]] = deque()
        try:
            for request in requests:
                waiting.append(self._pool.submit(_work, request))
                self._watch.look()
                if len(waiting) > _AHEAD * self.num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            self._pool = None
            raise WorkerError(self._what_died()) from error
        finally:
            for future in waiting:
                future.cancel()

    def _what_died(self) -> str:
        dead = self._watch.dead()
        how, place = ("died", -1) if dead is None else (cause_of_death(dead[0]), dead[1])
        where = f" while it read {_name(self.dataset, place)}" if place >= 0 else ""
        if dead is not None and dead[0] in _CRASHES:
            advice = "That file may crash what decodes it: remove it, or convert it"
        else:
            advice = (
                "Most often the memory ran out, or the part of it that processes share (/dev/shm): use fewer than"
                f" {self.num_workers} num_workers or a smaller batch"
            )
        also = "with num_workers=0 an error of the data set shows."
        return f"A worker process of the loader {how}{where}. {advice}; {also}"

    def _maker(self) -> "_BatchMaker":
        return _BatchMaker(self.dataset, self.transform, self.seed, self.mix)


@dataclass(frozen=True)
class _BatchMaker:
    """Makes batches of requests, in whichever process."""

    dataset: Dataset
    transform: ImageTransform
    seed: int
    mix: MixConfig | None

    def make(self, request: _Request) -> Batch:
        places = request.indices.tolist()
        if request.of_rays:
            assert isinstance(self.dataset, Rays)
            return {"index": torch.tensor(places), **self.dataset.rays(request.indices)}
        # A sample that is drawn twice in an epoch looks different each time.
        keys = zip(places) if request.draws is None else zip(places, request.draws.tolist())
        rngs = [_generator(self.seed, _IMAGE, request.epoch, *key) for key in keys]
        if isinstance(self.transform, BatchTransform):
            batch = self.transform.make_batch(self.dataset, places, rngs)
            batch_length(batch)  # says what is missing
            return batch
        images, targets = load_images(self.dataset, self.transform, places, rngs)
        if self.mix is not None:
            rng = _generator(self.seed, _MIX, request.epoch, request.step)
            drawn = draw_mix(self.mix, (images.shape[2], images.shape[3]), rng)
            images, targets = apply_mix(images, targets, drawn, self.mix.num_classes)
        return {"images": images, "labels": targets, "index": torch.tensor(places)}


def load_images(
    dataset: Dataset, transform: Compose | PixelTransform, indices: list[int], rngs: list[np.random.Generator]
) -> tuple[Tensor, Tensor]:
    """Returns the images (b, c, h, w) at `indices`, each with its own source of chance, and their labels (b,).

    Raises:
        ImageError: An image cannot be used, or they have several shapes; the message names it.
    """
    paths, labels, pixels = [], [], []
    prepare = transform.pixels if isinstance(transform, Compose) else transform
    for index, rng in zip(indices, rngs):
        sample = open_sample(dataset, index)
        with naming(sample.path):
            pixels.append(sample.image if isinstance(sample.image, Tensor) else prepare(sample.image, rng))
        paths.append(sample.path)
        labels.append(sample.label)
    return _stack(transform, pixels, paths), torch.tensor(labels, dtype=torch.int64)


def _stack(transform: Any, pixels: list[Any], paths: list[str]) -> Tensor:
    for one, path in zip(pixels, paths):
        if one.shape != pixels[0].shape:
            raise ImageError(
                f"{path} became {tuple(one.shape)} and {paths[0]} {tuple(pixels[0].shape)}; images of a batch "
                "must have one shape: add a resize to the transform."
            )
    if not isinstance(transform, Compose) or isinstance(pixels[0], Tensor):
        return torch.stack(pixels)
    if len({one.dtype for one in pixels}) > 1:
        pixels = [one / np.float32(255) if one.dtype == np.uint8 else one for one in pixels]
    return transform.finish(np.stack(pixels))


# In a worker process: what it works with.
_workers_maker: _BatchMaker | None = None


def _begin_work(maker: _BatchMaker, table: Any) -> None:
    """Prepares a worker process: one thread, Ctrl-C is for the main process, and it ends when that does."""
    global _workers_maker
    _workers_maker = maker
    workers.begin(table)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(request: _Request) -> Batch:
    assert _workers_maker is not None
    try:
        return _workers_maker.make(request)
    except (ValueError, OSError, ImportError):
        raise
    except Exception as error:  # of the data set or the transform; its trace would be that of two processes
        name = _name(_workers_maker.dataset, workers.reading())
        text = " ".join(str(error).split())
        raise WorkerError(
            f"{name} cannot be loaded ({type(error).__name__}: {text}, in a worker process). With num_workers=0 the"
            " error shows where it was raised."
        ) from None


def _name(dataset: Dataset, index: int) -> str:
    """Returns the path of a sample if the data set tells it without reading."""
    tell = getattr(dataset, "path", None)
    return str(tell(index)) if tell is not None and index >= 0 else f"{getattr(dataset, 'name', 'data')}[{index}]"


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))
