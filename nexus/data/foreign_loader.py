"""A torch `DataLoader` in place of this library's loader: its own sampler, workers and collation.

Its batches are `(images, labels)`, or mappings with the keys that `nexus.data.adapt` names; images are what the model
sees. Everything that it draws of torch's generator depends on the seed, the epoch and the step alone, so that a run
goes on exactly; what transforms draw of NumPy's or Python's global generator does not.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from nexus.data.adapt import IMAGE_KEYS, LABEL_KEYS, as_dataset
from nexus.data.batch import Batch
from nexus.data.dataset import DataError


class ForeignLoader:
    """Batches of a `DataLoader`, with an `index` that counts its items.

    Attributes:
        dataset: Its data set, as one of this library.
    """

    def __init__(self, source: DataLoader, *, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        """Looks at the loader; nothing is read but the first item.

        Raises:
            DataError: It has no length, or gives every process the same batches.
        """
        self.source, self.seed, self.rank = source, seed, rank
        self.dataset = as_dataset(source.dataset, name="the DataLoader's data set")
        if source.batch_size is None and source.batch_sampler is None:
            raise DataError("The DataLoader gives single items (batch_size=None); give it a batch_size.")
        if len(source) == 0:
            raise DataError(
                f"The DataLoader has no batch: drop_last=True, and {len(self.dataset)} items are less than one. Use a"
                " smaller batch_size."
            )
        if world_size > 1 and not isinstance(source.sampler, DistributedSampler):
            raise DataError(
                f"The DataLoader gives each of {world_size} processes the same batches; give it a DistributedSampler,"
                " or give the data set itself."
            )

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches."""
        return len(self.source)

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(0)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yields the batches of an epoch from `start_step` on; earlier ones are read and dropped."""
        if isinstance(self.source.sampler, DistributedSampler):
            self.source.sampler.set_epoch(epoch)
        state, seen = torch.Generator().manual_seed(self.seed + 1_000_003 * (epoch + 1)).get_state(), 0
        batches: Iterator[Any] | None = None
        for step in range(len(self.source)):
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(state)
                batches = iter(self.source) if batches is None else batches
                batch = _as_mapping(next(batches))
                state = torch.get_rng_state()
            length = len(next(iter(batch.values())))
            if step >= start_step:
                yield batch if "index" in batch else {**batch, "index": torch.arange(seen, seen + length)}
            seen += length


def _as_mapping(batch: Any) -> dict[str, Any]:
    if isinstance(batch, Mapping):
        names = {"images": IMAGE_KEYS, "labels": LABEL_KEYS}
        renamed = {old: new for new, olds in names.items() for old in olds}
        return {renamed.get(key, key): value for key, value in batch.items()}
    if isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch):
        return {"images": batch[0], "labels": batch[1]}
    raise DataError(
        f"The DataLoader gives a {type(batch).__name__}; a batch is (images, labels), or a mapping with such keys."
    )
