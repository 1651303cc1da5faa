"""The loader: content depends on seed, epoch and step alone."""

import functools
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PIL

from nexus.core.preprocessing import Preprocessing
from nexus.data import AugmentConfig, ImageError, Loader, MixConfig, Sample, WorkerError, load_dataset, train_transform
from nexus.data.mixing import draw_mix

PREPROCESSING = Preprocessing(image_size=(8, 8), resize="squash", mean=(0.5,) * 3, std=(0.5,) * 3)
AUGMENT = AugmentConfig(crop_scale=(0.3, 1.0), flip=0.5, erase=0.5, color_jitter=(0.4, 0.4, 0.4, 0.1), rand_augment=2)


class Blobs:
    """Random images in memory; `spoil` is called with the index before each is given out."""

    name, class_names, in_channels = "blobs", ("a", "b", "c"), 3

    def __init__(self, count=22, spoil=None):
        rng = np.random.default_rng(0)
        self.pixels = rng.integers(256, size=(count, 12, 10, 3), dtype=np.uint8)
        self.labels = rng.integers(3, size=count)
        self.spoil = spoil or never

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.spoil(index)
        return Sample(PIL.fromarray(self.pixels[index]), int(self.labels[index]), f"blobs[{index}]")


def loader(dataset=None, augment=AUGMENT, **settings):
    settings = {"batch_size": 8, "seed": 7, "shuffle": True} | settings
    dataset = Blobs() if dataset is None else dataset
    return Loader(dataset, train_transform(PREPROCESSING, augment), **settings)


def assert_same_batches(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs):
        assert a.keys() == b.keys() == {"images", "labels", "index"}
        for key in a:
            assert a[key].dtype == b[key].dtype
            assert torch.equal(a[key], b[key]), key


MIXES = [None, MixConfig(num_classes=3, mixup=0.8, cutmix=1.0)]


@pytest.mark.parametrize("mix", MIXES, ids=["plain", "mixed"])
def test_workers_change_nothing(mix):
    alone, helped = loader(mix=mix), loader(mix=mix, num_workers=2)
    for epoch in (0, 3):
        assert_same_batches(alone.epoch(epoch), helped.epoch(epoch))
    # Leaving an epoch early leaves nothing of it behind in the worker processes.
    next(helped.epoch(1))
    assert_same_batches(alone.epoch(2), helped.epoch(2))


@pytest.mark.slow
def test_a_spawned_worker_gives_the_same(needed, monkeypatch):
    """The way processes start on macOS and Windows: everything that a worker needs travels as a pickle."""
    monkeypatch.setattr(multiprocessing, "get_context", functools.partial(multiprocessing.get_context, "spawn"))
    needed("sklearn")
    data = load_dataset("digits", "val")
    transform = train_transform(Preprocessing(image_size=(8, 8), mean=(0.5,), std=(0.5,)), AUGMENT)
    alone, helped = (Loader(data, transform, batch_size=200, num_workers=count) for count in (0, 2))
    assert_same_batches(alone.epoch(1), helped.epoch(1))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("mix", MIXES, ids=["plain", "mixed"])
def test_resuming_mid_epoch_changes_nothing(mix, num_workers):
    whole = list(loader(mix=mix).epoch(1))
    assert_same_batches(whole[1:], loader(mix=mix, num_workers=num_workers).epoch(1, start_step=1))


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("mix", MIXES, ids=["plain", "mixed"])
def test_two_ranks_see_together_what_one_sees(mix, drop_last):
    settings = {"mix": mix, "drop_last": drop_last}
    ranks = [list(loader(rank=r, world_size=2, **settings).epoch(1)) for r in (0, 1)]
    joined = [{key: torch.cat([a[key], b[key]]) for key in a} for a, b in zip(*ranks, strict=True)]
    assert_same_batches(joined, loader(**settings).epoch(1))


def test_a_rank_without_a_share_in_the_last_batch_ends_earlier():
    data = Blobs(17)
    first, second = (loader(data, rank=r, world_size=2) for r in (0, 1))
    assert (len(first), len(second)) == (2, 3)
    sizes = [[len(batch["index"]) for batch in rank.epoch(0)] for rank in (first, second)]
    assert sizes == [[4, 4], [4, 4, 1]]


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own():
    orders = [torch.cat([batch["index"] for batch in loader().epoch(epoch)]).tolist() for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(22))
    assert orders[0] != orders[1]
    other_seed = torch.cat([batch["index"] for batch in loader(seed=8).epoch(0)]).tolist()
    assert other_seed != orders[0]
    plain = torch.cat([batch["index"] for batch in loader(shuffle=False)]).tolist()
    assert plain == list(range(22))


def test_augmentation_changes_with_the_epoch_and_not_with_the_batch_size():
    def first_image(**settings):
        epoch = settings.pop("epoch", 0)
        batches = loader(shuffle=False, **settings).epoch(epoch)
        return next(batches)["images"][0]

    assert torch.equal(first_image(), first_image(batch_size=2))
    assert not torch.equal(first_image(), first_image(epoch=1))
    assert not torch.equal(first_image(), first_image(seed=8))


def test_the_global_random_streams_are_left_alone():
    for num_workers in (0, 1):
        torch.manual_seed(0)
        np.random.seed(0)
        list(loader(num_workers=num_workers).epoch(0))
        after = torch.rand(1).item(), np.random.rand()
        torch.manual_seed(0)
        np.random.seed(0)
        assert after == (torch.rand(1).item(), np.random.rand())


def test_mixed_labels_are_soft_and_plain_ones_whole():
    mixed = next(iter(loader(mix=MIXES[1])))
    assert mixed["labels"].shape == (8, 3)
    torch.testing.assert_close(mixed["labels"].sum(1), torch.ones(8))
    plain = next(iter(loader()))
    assert plain["labels"].dtype == torch.int64
    assert plain["labels"].tolist() == Blobs().labels[plain["index"]].tolist()


def test_a_plain_function_is_a_transform_too():
    def mean_only(image, rng):
        return torch.tensor(np.asarray(image).mean(), dtype=torch.float32).view(1, 1, 1)

    data = Blobs()
    batch = next(iter(Loader(data, mean_only, batch_size=4)))
    assert batch["images"].shape == (4, 1, 1, 1)
    np.testing.assert_allclose(batch["images"].flatten(), data.pixels[:4].mean((1, 2, 3)), rtol=1e-5)


def broken_at_13(index):
    if index == 13:
        raise ImageError("cats/13.jpg: truncated or corrupt; copy it again.")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_image_is_named_wherever_it_is_read(num_workers):
    with pytest.raises(ImageError, match=r"^cats/13\.jpg: truncated or corrupt; copy it again\.$"):
        list(loader(Blobs(spoil=broken_at_13), num_workers=num_workers))


def test_a_transform_that_refuses_an_image_names_it():
    grey = Preprocessing(image_size=(8, 8), resize="none", mean=(0.5,), std=(0.5,))
    with pytest.raises(ImageError, match=r"^blobs\[0\]: the image has 12 x 10 pixels .* exactly 8 x 8"):
        next(iter(Loader(Blobs(), train_transform(grey), batch_size=2)))


def test_images_of_different_sizes_are_named():
    def grow(image, rng):
        return torch.zeros(3, 4, int(rng.integers(4, 1000)))

    with pytest.raises(ImageError, match=r"blobs\[1\] became \(3, 4, \d+\) and blobs\[0\] .* add a resize"):
        next(iter(Loader(Blobs(), grow, batch_size=2)))


def never(index):
    pass


def die_at_13(index):
    if index == 13:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_killed_worker_is_a_clear_error_and_the_next_epoch_works(num_workers):
    data = Blobs(spoil=die_at_13)
    batches = loader(data, num_workers=num_workers)
    with pytest.raises(
        WorkerError, match=r"the loader was killed by SIGKILL while it read blobs\[13\]\. Most"
    ) as raised:
        list(batches)
    assert f"(/dev/shm): use fewer than {num_workers} num_workers or a smaller batch" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    data.spoil = never
    assert len(list(batches.epoch(0))) == 3


def crash_at_13(index):
    if index == 13:
        os.kill(os.getpid(), signal.SIGSEGV)


def test_an_image_that_crashes_a_worker_is_named():
    with pytest.raises(WorkerError, match=r"killed by SIGSEGV while it read blobs\[13\]\. That file may crash"):
        list(loader(Blobs(spoil=crash_at_13), num_workers=2))


def test_workers_killed_from_outside_end_the_epoch():
    """As the kernel does it when the memory runs out, in the middle of an epoch."""
    batches = loader(num_workers=2)
    epoch = batches.epoch(0)
    next(epoch)
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="killed by SIGKILL"):
        list(itertools.chain(epoch, batches.epoch(1)))


class Unpicklable(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first}\n{second}")


def fail_at_13(index):
    if index == 13:
        raise Unpicklable("line", "line")


def test_an_error_in_a_worker_is_one_line_that_names_the_image():
    message = r"^blobs\[13\] cannot be loaded \(Unpicklable: line line, in a worker process\)\. With num_workers=0"
    with pytest.raises(WorkerError, match=message) as raised:
        list(loader(Blobs(spoil=fail_at_13), num_workers=2))
    assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(Unpicklable):
        list(loader(Blobs(spoil=fail_at_13)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 7, "world_size": 2}, r"batch_size is 7; .* multiple of 2, such as 8"),
        ({"batch_size": 6, "world_size": 2, "mix": MIXES[1]}, r"batch_size is 6; mixing needs pairs .* multiple of 4"),
        ({"batch_size": 0}, r"batch_size is 0"),
        ({"batch_size": 32, "drop_last": True}, r"batch_size is 32 and the data set has 22 samples.*at most 22"),
        ({"rank": 2, "world_size": 2}, r"rank is 2; it must be from 0 to 1"),
        ({"seed": -1}, r"seed -1"),
        ({"dataset": Blobs(0)}, r"'blobs' is empty"),
    ],
)
def test_sizes_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        loader(**settings)


def test_start_step_beyond_the_epoch():
    with pytest.raises(ValueError, match="start_step is 4; an epoch has 3 steps"):
        loader().epoch(0, start_step=4)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks processes up in /proc")
def test_workers_end_with_the_main_process(tmp_path):
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_loader import loader
batches = loader(num_workers=2)
next(batches.epoch(0))
print(*batches._pool._processes)
sys.stdout.flush()
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    workers = [int(pid) for pid in done.stdout.split()]
    assert len(workers) == 2, done.stderr
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() and state(pid) != "Z" for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_every_draw_depends_on_the_seed_the_epoch_and_its_place(monkeypatch):
    """The source of chance of an image, and that of mixing, is another one in each epoch, at each place, for each seed."""
    images, mixes = [], []

    def watch(image, rng):
        images.append(rng.bit_generator.state["state"]["state"])
        return torch.zeros(3, 8, 8)

    def record(config, size, rng):
        mixes.append(rng.bit_generator.state["state"]["state"])
        return draw_mix(config, size, rng)

    monkeypatch.setattr("nexus.data.loader.draw_mix", record)
    for seed in (7, 8):
        batches = Loader(Blobs(24), watch, batch_size=8, seed=seed, mix=MIXES[1])
        for epoch in (0, 1):
            assert len(list(batches.epoch(epoch))) == 3
    assert len(set(images)) == len(images) == 2 * 2 * 24
    assert len(set(mixes)) == len(mixes) == 2 * 2 * 3
