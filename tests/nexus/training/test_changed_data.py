"""Data that changed between stop and resume is named, and refused unless that is allowed."""

import gzip
import os
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from nexus.core.documents import FileError, Limits
from nexus.data import load_dataset
from nexus.training import Interrupted, Trainer
from nexus.training import fingerprint as module
from nexus.training.fingerprint import differences, fingerprint, pack, unpack
from nexus.training.resuming import ChangedError, check_data
from tests.nexus.training.test_damaged_runs import Stop


def paint(path, seed, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of images, with held-out ones."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    for split, count in (("train", 9), ("val", 3)):
        for name in ("cat", "dog"):
            for number in range(count):
                paint(folder / split / name / f"{number}.png", number)
    return folder


def prints(folder):
    return {split: fingerprint(load_dataset(f"folder:{folder}", split)) for split in ("train", "val")}


def rename_class(photos):
    for split in ("train", "val"):
        (photos / split / "dog").rename(photos / split / "wolf")


def swap_classes(photos):
    for split in ("train", "val"):
        (photos / split / "dog").rename(photos / split / "a")


def same_size(path):
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)


CHANGES = {
    "removed": (lambda p: (p / "train/cat/3.png").unlink(), r"train: 1 image is gone \(cat/3\.png\)\."),
    "added": (lambda p: paint(p / "train/dog/new.png", 1), r"train: 1 image is new \(dog/new\.png\)\."),
    "replaced": (
        lambda p: paint(p / "train/dog/2.png", 77, (9, 9)),
        r"train: 1 image has other content \(dog/2\.png\)\.",
    ),
    "same size": (lambda p: same_size(p / "train/cat/8.png"), r"train: 1 image has other content \(cat/8\.png\)\."),
    "held-out": (lambda p: (p / "val/cat/1.png").unlink(), r"checkpoint: val: 1 image is gone \(cat/1\.png\)\."),
    "renamed": (
        rename_class,
        r"train: classes were renamed \('dog' is now 'wolf'\), 9 images are gone \(dog/0\.png, .*\.\.\.\)",
    ),
    "order": (swap_classes, r"train: classes were renamed \('cat' is now 'a', 'dog' is now 'cat'\)"),
    "class": (
        lambda p: paint(p / "train/bird/0.png", 1),
        r"train: there were 2 classes and are 3, 1 image is new \(bird/0",
    ),
    "moved": (
        lambda p: (p / "train/cat/3.png").rename(p / "train/dog/c3.png"),
        r"train: 1 image is gone \(cat/3\.png\), 1 image is new \(dog/c3\.png\)\.",
    ),
    "split": (
        lambda p: (p / "train/cat/3.png").rename(p / "val/cat/30.png"),
        r"train: 1 image is gone \(cat/3\.png\); val: 1 image is new \(cat/30\.png\)\.",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_change_is_named(photos, tmp_path, name):
    copy = shutil.copytree(photos, tmp_path / "elsewhere")
    before = pack(prints(copy))
    change, message = CHANGES[name]
    change(copy)
    now = {split: load_dataset(f"folder:{copy}", split) for split in ("train", "val")}
    with pytest.raises(ChangedError, match=message) as raised:
        check_data(tmp_path / "run", before, now, False)
    assert len(str(raised.value).splitlines()) == 1
    assert "allow_changes=True, --allow-changes" in str(raised.value)
    with pytest.warns(UserWarning, match="has changed since its last checkpoint"):
        after = check_data(tmp_path / "run", before, now, True)
    assert unpack(after, "it") == {split: fingerprint(dataset) for split, dataset in now.items()}


def test_same_data_elsewhere_is_the_same(photos, tmp_path):
    copy = shutil.copytree(photos, tmp_path / "moved")
    for path in copy.rglob("*.png"):
        os.utime(path, (0, 0))
    assert differences(unpack(pack(prints(photos)), "it"), prints(copy)) == ""


def test_no_held_out_data_any_more(photos):
    both = prints(photos)
    assert differences(both, {"train": both["train"]}) == "val: there was such a split, and there is none"


def test_a_run_notices(small, photos, tmp_path):
    copy = shutil.copytree(photos, tmp_path / "photos")
    preprocessing = {"image_size": [8, 8], "resize": "none", "mean": [0.5], "std": [0.25]}
    data = {"source": f"folder:{copy}", "preprocessing": {**preprocessing, "mean": [0.5] * 3, "std": [0.25] * 3}}
    recipe = small.recipe(data=data, training={"batch_size": 2})
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        Trainer(recipe, run, progress="off", callbacks=[Stop()]).fit()
    removed = (copy / "train" / "cat" / "0.png").read_bytes()
    (copy / "train" / "cat" / "0.png").unlink()
    with pytest.raises(ChangedError, match=r"train: 1 image is gone \(cat/0\.png\)\. Put it back"):
        Trainer(recipe, run, resume=True, progress="off").fit()
    (copy / "train" / "cat" / "0.png").write_bytes(removed)
    Trainer(recipe, run, resume=True, progress="off").fit()
    (copy / "train" / "cat" / "0.png").unlink()
    longer = recipe.replace(training=recipe.training.replace(epochs=4))
    with pytest.warns(UserWarning, match="1 image is gone"):
        Trainer(longer, run, resume=True, allow_changes=True, progress="off").fit()


def test_data_in_memory(small):
    before = {"train": fingerprint(small.Stripes(40, 0))}
    assert differences(before, {"train": fingerprint(small.Stripes(40, 0))}) == ""
    assert "images have other content" in differences(before, {"train": fingerprint(small.Stripes(40, 1))})
    assert "1 image is gone ([39])" in differences(before, {"train": fingerprint(small.Stripes(39, 0))})


def test_objects_and_captions(tmp_path):
    from tests.fuzz import seeds

    content = seeds.coco(tmp_path)
    before = fingerprint(load_dataset(f"coco:{tmp_path}"))
    content["annotations"][0]["bbox"] = [1, 1, 7, 5]
    seeds.put(tmp_path / "train.json", content)
    now = fingerprint(load_dataset(f"coco:{tmp_path}"))
    assert differences({"train": before}, {"train": now}) == (
        "train: 1 image has another label, object or caption (2.png)"
    )
    seeds.captions_csv(tmp_path / "texts")
    before = fingerprint(load_dataset(f"captions:{tmp_path}/texts/c.csv"))
    seeds.put(tmp_path / "texts" / "c.csv", 'file,caption,split\na.png,"a cat",train\nb.png,a dog,train\na.png,x,val\n')
    now = fingerprint(load_dataset(f"captions:{tmp_path}/texts/c.csv"))
    assert "another label, object or caption (a.png)" in differences({"train": before}, {"train": now})


@pytest.mark.slow
def test_a_hundred_thousand_files_take_less_than_a_second(tmp_path):
    class Many:
        class_names, labels = ("a",), np.zeros(100_000, dtype=np.int64)

        def __len__(self):
            return 100_000

        def path(self, index):
            return f"{tmp_path}/{index // 1000:03d}/{index:06d}.jpg"

    for number in range(100):
        (tmp_path / f"{number:03d}").mkdir()
    for index in range(100_000):
        with open(Many().path(index), "wb") as file:
            file.write(b"x" * (index % 7))
    seconds = []
    for _ in range(3):
        started = time.process_time()
        data = pack({"train": fingerprint(Many())})
        seconds.append(time.process_time() - started)
    print(f"{min(seconds):.2f} s, {len(data) / 1e6:.2f} MB")
    assert min(seconds) < 2  # a second where nothing else runs


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is cut, or unpacks to more than"),
        (b"no archive", "cannot be unpacked"),
        (pack({})[:-9], "is cut, or unpacks to more than"),
        (gzip.compress(b"[]"), "holds no fingerprints"),
        (gzip.compress(b'{"train": {"names": []}}'), "holds no fingerprints"),
        (gzip.compress(b"[" * 10_000), "nests deeper"),
        (gzip.compress(bytes(2 << 20)), "is cut, or unpacks to more than 1,048,576 bytes"),
    ],
)
def test_fingerprints_of_strangers(monkeypatch, data, words):
    monkeypatch.setattr(module, "UNPACKED", Limits(size=1 << 20))
    with pytest.raises(FileError, match=rf"^The data of x {words}"):
        unpack(data, "The data of x")
