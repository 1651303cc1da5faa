"""Images per second: JPEG files -> random resized crop 224 -> flip -> normalize -> batches.

This project's loader against one written plainly with PIL and torch's DataLoader, in one run. Both draw crops of the
same distribution, resize bicubically with Pillow, and use as many worker processes. Rounds alternate;
medians are shown.

    python benchmarks/input_pipeline.py
"""

import argparse
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from nexus.core.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from nexus.data import AugmentConfig, Loader, load_dataset, train_transform

BATCH = 32
# (width, height): the size of ImageNet's median photograph, and a small photograph of a telephone.
SIZES = {"500 x 375": (500, 375), "1600 x 1200": (1600, 1200)}


class PlainFolder(Dataset):
    """What one writes first: open, crop, resize, flip, to tensor, normalize."""

    def __init__(self, files: list[Path], classes: list[str]):
        self.files, self.classes = files, classes
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.open(self.files[index]).convert("RGB")
        box = plain_crop(*image.size)
        image = image.crop(box).resize((224, 224), Image.Resampling.BICUBIC)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return (tensor - self.mean) / self.std, self.classes.index(self.files[index].parent.name)


def plain_crop(width: int, height: int) -> tuple[int, int, int, int]:
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    return 0, 0, width, height


def write_photos(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """Writes JPEGs of real photographs in two classes, each a little different."""
    from skimage import data

    photos = [Image.fromarray(make()) for make in (data.astronaut, data.cat, data.coffee, data.rocket)]
    files = []
    for i in range(count):
        path = folder / "train" / f"class{i % 2}" / f"{i:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo = photos[i % len(photos)].rotate(i % 7, Image.Resampling.BICUBIC).resize(size, Image.Resampling.BICUBIC)
        photo.save(path, quality=90)
        files.append(path)
    return files


def images_per_second(epoch: Callable[[], int]) -> float:
    start = time.perf_counter()
    count = epoch()
    return count / (time.perf_counter() - start)


def compare(folder: Path, files: list[Path], num_workers: int, rounds: int) -> tuple[float, float]:
    """Returns images per second of this project and of the plain loader."""
    preprocessing = Preprocessing(image_size=(224, 224))
    transform = train_transform(preprocessing, AugmentConfig(crop_scale=(0.08, 1.0), flip=0.5))
    ours = Loader(load_dataset(f"folder:{folder}"), transform, batch_size=BATCH, shuffle=True, num_workers=num_workers)
    plain = DataLoader(
        PlainFolder(files, ["class0", "class1"]),
        batch_size=BATCH,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )

    def our_epoch(number: int = 0) -> int:
        return sum(len(batch["labels"]) for batch in ours.epoch(number))

    def plain_epoch() -> int:
        return sum(len(labels) for _, labels in plain)

    our_epoch(), plain_epoch()  # processes start, files enter the cache
    pairs = [(images_per_second(lambda n=n: our_epoch(n)), images_per_second(plain_epoch)) for n in range(rounds)]
    return statistics.median(ours for ours, _ in pairs), statistics.median(plain for _, plain in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="eight images, one round: to see that it runs")
    arguments = parser.parse_args()
    images, rounds = (8, 1) if arguments.quick else (arguments.images, arguments.rounds)
    torch.set_num_threads(1)
    print(f"{'JPEG':12} {'workers':>7} {'nexus':>9} {'plain':>9}  images/s   ratio")
    for name, size in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            files = write_photos(Path(folder), size, images)
            for num_workers in (0, 2):
                ours, plain = compare(Path(folder), files, num_workers, rounds)
                print(f"{name:12} {num_workers:7} {ours:9.0f} {plain:9.0f} {ours / plain:16.2f}")


if __name__ == "__main__":
    main()
