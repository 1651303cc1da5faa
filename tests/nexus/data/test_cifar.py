"""CIFAR archives in the authors' format, small and served by this test; and the reader of their pickles."""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import http.server
import io
import os
import pickle
import shutil
import tarfile
import threading
import time

import numpy as np
import pytest

from nexus.core.files import WeightsError
from nexus.data import DataError, load_dataset
from nexus.data.datasets.cifar import CIFAR, Cifar
from nexus.data.datasets.pickles import read_arrays


def part(count, seed, labels_key, num_classes):
    rng = np.random.default_rng(seed)
    return {
        b"batch_label": b"training batch",
        labels_key: rng.integers(num_classes, size=count).tolist(),
        b"data": rng.integers(256, size=(count, 3072), dtype=np.uint8),
        b"filenames": [b"image.png"] * count,
    }


def md5(data):
    return hashlib.md5(data).hexdigest()


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, which is what the authors' files hold."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, value):
        self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)

    dispatch[bytes] = save_string


def python2_pickle(content):
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def write_archive(folder, name, change=lambda file, content: content):
    """Writes a small archive like the authors' and returns its description and its parts."""
    official = CIFAR[name]
    source = folder / "source" / official.folder
    source.mkdir(parents=True)
    names = [f"class {i}".encode() for i in range(official.num_classes)]
    contents = {next(iter(official.names)): {official.names_key: names, b"num_cases_per_batch": 3}}
    for seed, file in enumerate([*official.train, *official.test]):
        contents[file] = part(3, seed, official.labels_key, official.num_classes)
    digests = {}
    for file, content in contents.items():
        data = python2_pickle(change(file, content))
        (source / file).write_bytes(data)
        digests[file] = md5(data)
    archive = folder / official.url.rpartition("/")[2]
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, official.folder)
    shutil.rmtree(folder / "source")
    files = dataclasses.replace(
        official,
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        **{key: {file: digests[file] for file in getattr(official, key)} for key in ("train", "test", "names")},
    )
    return files, contents


@contextlib.contextmanager
def served(folder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_published_digests_are_those_that_torchvision_checks(torchvision):
    for name, theirs in (("cifar10", torchvision.datasets.CIFAR10), ("cifar100", torchvision.datasets.CIFAR100)):
        ours = CIFAR[name]
        assert [list(item) for item in ours.train.items()] == theirs.train_list
        assert [list(item) for item in ours.test.items()] == theirs.test_list
        assert ours.names == {theirs.meta["filename"]: theirs.meta["md5"]}
        assert (ours.url, ours.folder) == (theirs.url, theirs.base_folder)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", CIFAR)
def test_reads_the_images_as_torchvision_does(tmp_path, torchvision, name, monkeypatch):
    files, contents = write_archive(tmp_path, name)
    train, val = (Cifar(name, split, root=tmp_path, files=files) for split in ("train", "val"))
    assert (len(train), len(val)) == (3 * len(files.train), 3)
    assert train.class_names[9] == "class 9"
    assert len(train.class_names) == files.num_classes
    pixels = contents[list(files.train)[-1]][b"data"][2].reshape(3, 32, 32).transpose(1, 2, 0)
    sample = train[len(train) - 1]
    assert np.array_equal(np.asarray(sample.image), pixels)
    assert sample.label == contents[list(files.train)[-1]][files.labels_key][2] == train.labels[-1]
    assert sample.path == f"{name}/train[{len(train) - 1}]" == train.path(len(train) - 1)

    theirs_type = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
    monkeypatch.setattr(theirs_type, "_check_integrity", lambda self: True)
    monkeypatch.setattr(theirs_type, "_load_meta", lambda self: None)
    for ours, is_train in ((train, True), (val, False)):
        theirs = theirs_type(tmp_path / name, train=is_train)
        assert theirs.targets == ours.labels.tolist()
        assert all(np.array_equal(np.asarray(theirs[i][0]), np.asarray(ours[i].image)) for i in range(len(ours)))


def test_downloads_checks_and_unpacks(tmp_path):
    place, cache = tmp_path / "server", tmp_path / "cache"
    place.mkdir()
    files, _ = write_archive(place, "cifar10")
    with served(place) as address:
        files = dataclasses.replace(files, url=f"{address}/cifar-10-python.tar.gz")
        with pytest.raises(DataError, match=r"cifar10 is not in .*cache\. Allow the download .* put it at .*\.tar\.gz"):
            Cifar("cifar10", root=cache, files=files)
        assert not cache.exists()
        assert len(Cifar("cifar10", root=cache, download=True, files=files)) == 15
    # From now on no server is needed.
    assert len(Cifar("cifar10", "test", root=cache, files=files)) == 3
    leftovers = [path for path in cache.rglob("*") if "incomplete" in path.name]
    assert not leftovers


def test_a_download_with_other_bytes_is_not_kept(tmp_path):
    place, cache = tmp_path / "server", tmp_path / "cache"
    place.mkdir()
    files, _ = write_archive(place, "cifar10")
    archive = place / "cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1] + b"\1")
    with served(place) as address, pytest.raises(WeightsError, match="sha256"):
        Cifar("cifar10", root=cache, download=True, files=dataclasses.replace(files, url=f"{address}/{archive.name}"))
    assert not [path for path in cache.rglob("*") if path.is_file() and not path.name.endswith(".lock")]


def test_a_damaged_archive_or_file_is_named(tmp_path):
    files, _ = write_archive(tmp_path, "cifar10")
    archive = tmp_path / "cifar-10-python.tar.gz"
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=r"cifar-10-python\.tar\.gz has the sha256"):
        Cifar("cifar10", root=tmp_path, files=files)
    archive.write_bytes(whole)
    Cifar("cifar10", root=tmp_path, files=files)
    damaged = tmp_path / "cifar10" / "cifar-10-batches-py" / "data_batch_3"
    damaged.write_bytes(damaged.read_bytes() + b"x")
    with pytest.raises(DataError, match=r"data_batch_3 has the md5 \w+, but the authors' file has"):
        Cifar("cifar10", root=tmp_path, files=files)
    damaged.unlink()
    with pytest.raises(DataError, match=r"data_batch_3 cannot be read"):
        Cifar("cifar10", root=tmp_path, files=files)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"labels": [0, 1]}, "one label for each of its 3 images"),
        ({b"labels": [0, 1, 10]}, "label 2 is 10; it must be from 0 to 9"),
        ({b"labels": [0, 1, b"2"]}, "label 2 is b'2'"),
        ({b"data": np.zeros((3, 3072), np.float32)}, r"no images as uint8 \(n, 3072\)"),
        ({b"data": np.zeros((3, 100), np.uint8)}, r"no images as uint8"),
        ({b"data": [1, 2, 3]}, r"no images as uint8"),
    ],
)
def test_contents_that_do_not_fit(tmp_path, change, message):
    files, _ = write_archive(
        tmp_path, "cifar10", lambda file, content: content | change if file == "data_batch_2" else content
    )
    with pytest.raises(DataError, match=f"data_batch_2.*{message}"):
        Cifar("cifar10", root=tmp_path, files=files)


def test_an_unknown_split():
    with pytest.raises(ValueError, match=r"cifar100 has no split 'dev'"):
        load_dataset("cifar100", "dev")


@pytest.mark.parametrize("protocol", range(5))  # the authors' archives use 2
@pytest.mark.parametrize("dtype", ["u1", "<i4", ">f8"])
def test_arrays_of_every_protocol_are_read(tmp_path, protocol, dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    content = {b"data": array, b"columns": np.asfortranarray(array), b"list": [1, 2.5, b"text", None]}
    (tmp_path / "x").write_bytes(pickle.dumps(content, protocol=protocol))
    read = read_arrays(tmp_path / "x")
    for key in (b"data", b"columns"):
        assert np.array_equal(read[key], array)
        assert read[key].dtype == array.dtype
    assert read[b"list"] == [1, 2.5, b"text", None]


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments  # what a pickle calls when it is read

    def __reduce__(self):
        return self.call


def hostile_pickles(marker):
    write = f"open({str(marker)!r}, 'w').close()"
    objects = np.empty(1, object)
    objects[0] = Evil(exec, write)
    yield from (
        pickle.dumps(content, protocol=2)
        for content in (
            Evil(os.system, f"touch {marker}"),
            Evil(exec, write),
            {b"data": np.zeros(2), b"x": Evil(exec, write)},
            {b"data": Evil(eval, write)},
            [[[[Evil(exec, write)]]]],
            objects,
            np.array(["text"]),
            np.zeros(2, dtype=[("a", "u1")]),
            collections.OrderedDict(a=1),
            np.float64(1.0),
            Evil(__import__, "os"),
        )
    )
    yield b"cos\nsystem\n(S'touch %s'\ntR." % str(marker).encode()
    yield b"cnumpy\nndarray\n(tR."
    yield b"cnumpy\nndarray\n(dS'a'\nS'b'\nstb."  # changing the class itself
    yield b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR."
    yield b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I99999999999\ntS'O'\ntR(I1\n(I1\ntS'x'\nI00\n(lt b."
    yield b"cnumpy.lib.npyio\nload\n(S'/etc/passwd'\ntR."
    yield b""
    yield b"\x80\x02"
    yield b"\x80\x02]q\x00(K\x01"
    yield b"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\x00abc."
    yield b"\x80\x02]r\xff\xff\xff\x7f."  # a place in the memo for which C reserves 16 GB
    yield b"\x80\x02]" + b"".join(b"q%ch%ch%c\x86" % (i, i, i) for i in range(99)) + b"}h\x62h\x62s."
    yield b"not a pickle at all"
    yield pickle.dumps([1, 2, 3])
    yield pickle.dumps({b"data": np.zeros(5000, np.uint8)}, protocol=2)[:-100]


def test_hostile_pickles_are_refused_and_never_run(tmp_path):
    marker = tmp_path / "executed"
    for data in hostile_pickles(marker):
        (tmp_path / "x").write_bytes(data)
        start = time.perf_counter()
        with pytest.raises(DataError, match=str(tmp_path / "x")):
            read_arrays(tmp_path / "x")
        assert time.perf_counter() - start < 1
        assert not marker.exists()
