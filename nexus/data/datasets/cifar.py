"""CIFAR-10 and CIFAR-100: 32 x 32 colour photographs, in the authors' own archives.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. https://www.cs.toronto.edu/~kriz/cifar.html

The archives hold Python pickles, which are read without running them, and are checked against the authors' digests.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PIL

from nexus.core.download import check_sha256, download, home
from nexus.data.archive import extract
from nexus.data.dataset import DataError, Sample
from nexus.data.datasets.pickles import read_arrays

SIDE = 32


@dataclass(frozen=True)
class CifarFiles:
    """Where one of the two lies and how its archive is made up.

    Attributes:
        sha256: Digest of the archive.
        folder: The folder inside of the archive.
        train: md5 of each file with training images, by name, in order.
        test: Likewise for the test images.
        names: Likewise for the one file with the names of the classes.
        names_key: Under which that file keeps them.
        labels_key: Under which the other files keep the labels.
        num_classes: How many there are.
    """

    url: str
    sha256: str
    folder: str
    train: dict[str, str]
    test: dict[str, str]
    names: dict[str, str]
    names_key: bytes
    labels_key: bytes
    num_classes: int


CIFAR = {
    "cifar10": CifarFiles(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        folder="cifar-10-batches-py",
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
        names={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
        names_key=b"label_names",
        labels_key=b"labels",
        num_classes=10,
    ),
    "cifar100": CifarFiles(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        folder="cifar-100-python",
        train={"train": "16019d7e3df5f24257cddd939b257f8d"},
        test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        names={"meta": "7973b15100ade9c7d40fb424638fde48"},
        names_key=b"fine_label_names",
        labels_key=b"fine_labels",
        num_classes=100,
    ),
}


class Cifar:
    """CIFAR-10 or CIFAR-100 in memory. "val" and "test" are both the 10,000 test images, which papers report."""

    in_channels = 3

    def __init__(
        self,
        name: str,
        split: str = "train",
        *,
        root: str | Path | None = None,
        download: bool = False,
        files: CifarFiles | None = None,
    ):
        """Reads the images; unpacks or downloads the archive first if need be.

        Args:
            root: The folder that holds the archive or what was unpacked from it; None is the library's cache.
            download: Whether the archive may be fetched.
            files: Another place and make-up of the archive, such as a smaller one.

        Raises:
            DataError: The data is not there, or not what the authors published.
            WeightsError: It could not be downloaded.
        """
        if split not in ("train", "val", "test"):
            raise ValueError(f"{name} has no split {split!r}; use 'train', 'val' or 'test' (the same as 'val').")
        files = files or CIFAR[name]
        folder = _find(name, files, Path(root).expanduser() if root else home() / "data", download)
        self.name, self._split = name, "train" if split == "train" else "test"
        self.class_names = _read_names(folder, files)
        parts = [_read_part(folder / file, md5, files) for file, md5 in getattr(files, self._split).items()]
        self._pixels = np.concatenate([pixels for pixels, _ in parts])
        self.labels = np.concatenate([labels for _, labels in parts])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """Returns the sample; its path is the place in the authors' order, as "cifar10/test[17]"."""
        return Sample(PIL.fromarray(self._pixels[index]), int(self.labels[index]), self.path(index))

    def path(self, index: int) -> str:
        """Returns the path of a sample without making its image."""
        return f"{self.name}/{self._split}[{index}]"


def _find(name: str, files: CifarFiles, root: Path, may_download: bool) -> Path:
    """Returns the folder of the unpacked files."""
    unpacked = root / name
    for folder in (unpacked / files.folder, root / files.folder):
        if folder.is_dir():
            return folder
    archive = root / files.url.rpartition("/")[2]
    if not archive.is_file():
        if not may_download:
            raise DataError(
                f"{name} is not in {root}. Allow the download (data.download=true, or download=True in Python), "
                f"or fetch {files.url} and put it at {archive}."
            )
        download(files.url, sha256=files.sha256, folder=root)
    check_sha256(archive, files.sha256)
    extract(archive, unpacked, max_members=100, max_bytes=1 << 30)
    if not (unpacked / files.folder).is_dir():
        raise DataError(f"{archive} holds no folder {files.folder}; fetch it again from {files.url}.")
    return unpacked / files.folder


def _read_names(folder: Path, files: CifarFiles) -> tuple[str, ...]:
    ((file, md5),) = files.names.items()
    names = _read_mapping(folder / file, md5).get(files.names_key)
    if not isinstance(names, list) or len(names) != files.num_classes:
        raise DataError(f"{folder / file} does not name {files.num_classes} classes; unpack its archive again.")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names)


def _read_part(path: Path, md5: str, files: CifarFiles) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (n, h, w, c) uint8 and labels (n,) int64 of one file."""
    content = _read_mapping(path, md5)
    data, labels = content.get(b"data"), content.get(files.labels_key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * SIDE * SIDE:
        raise DataError(f"{path} holds no images as uint8 (n, {3 * SIDE * SIDE}); unpack its archive again.")
    if not isinstance(labels, list) or len(labels) != len(data):
        raise DataError(f"{path} does not have one label for each of its {len(data)} images; unpack its archive again.")
    for position, label in enumerate(labels):
        if not isinstance(label, int) or not 0 <= label < files.num_classes:
            raise DataError(f"{path}: label {position} is {label!r}; it must be from 0 to {files.num_classes - 1}.")
    images = data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.array(labels, dtype=np.int64)


def _read_mapping(path: Path, md5: str) -> dict:
    if path.is_file():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if digest != md5:
            raise DataError(
                f"{path} has the md5 {digest}, but the authors' file has {md5}: it is damaged or another one. "
                f"Delete the folder {path.parent} and unpack its archive again."
            )
    return read_arrays(path)
