"""Archives of strangers: nothing outside, nothing but files, nothing left behind."""

import gzip
import io
import stat
import struct
import tarfile
import time
import zipfile

import pytest

from nexus.data.archive import extract
from nexus.data.dataset import DataError


def make_tar(path, *members, mode="w:gz"):
    """Members are (name, content) or TarInfo."""
    with tarfile.open(path, mode) as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def make_zip(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def assert_refused(tmp_path, archive, message, **limits):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    start = time.perf_counter()
    with pytest.raises(DataError, match=message) as caught:
        extract(archive, tmp_path / "target", **limits)
    assert time.perf_counter() - start < 2
    assert str(archive) in str(caught.value)
    assert set(tmp_path.rglob("*")) == set(before)
    assert not (tmp_path.parent / "escaped").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_plain_archives_are_unpacked(tmp_path, mode):
    folder = special("a/b", tarfile.DIRTYPE)
    archive = make_tar(tmp_path / "x", folder, ("a/b/one", b"1"), ("a/two", b"2" * 5000), mode=mode)
    extract(archive, tmp_path / "target")
    assert (tmp_path / "target/a/b/one").read_bytes() == b"1"
    assert (tmp_path / "target/a/two").read_bytes() == b"2" * 5000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target", "x"]


def test_zip_is_unpacked_and_an_earlier_result_stays(tmp_path):
    archive = make_zip(tmp_path / "x.zip", ("a/", ""), ("a/one", "1"))
    extract(archive, tmp_path / "target")
    assert (tmp_path / "target/a/one").read_text() == "1"
    (tmp_path / "target/a/one").write_text("mine")
    extract(archive, tmp_path / "target")
    assert (tmp_path / "target/a/one").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_member_without_a_name(tmp_path):
    archive = make_zip(tmp_path / "x", ("a", b"1"), ("b", b"2"))
    content = archive.read_bytes()
    place = content.rindex(b"PK\x01\x02")  # the name of the last one is cut off from the table of contents
    cut = content[: place + 28] + b"\0\0" + content[place + 30 : place + 46] + content[place + 47 :]
    archive.write_bytes(
        cut[:-22] + cut[-22:-10] + struct.pack("<I", len(cut) - 22 - content.index(b"PK\x01\x02")) + cut[-6:]
    )
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == ["a", ""]
    assert_refused(tmp_path, archive, "holds the path ''")


@pytest.mark.parametrize("make", [make_tar, make_zip])
@pytest.mark.parametrize(
    "name", ["../escaped", "a/../../escaped", "/tmp/escaped", "..\\escaped", "C:\\escaped", "a/.."]
)
def test_paths_that_lead_outside(tmp_path, make, name):
    archive = make(tmp_path / "x", ("fine", b"1"), (name, b"evil"))
    if make is make_zip and "/" in name and name.startswith("/"):
        assert zipfile.ZipFile(archive).namelist()[1].startswith("/")
    assert_refused(tmp_path, archive, "leads out of its folder")


@pytest.mark.parametrize(
    ("member", "kind"),
    [
        (special("a", tarfile.SYMTYPE, "/etc/passwd"), "a link"),
        (special("a", tarfile.SYMTYPE, ".."), "a link"),
        (special("a", tarfile.LNKTYPE, "fine"), "a link"),
        (special("a", tarfile.LNKTYPE, "../../etc/passwd"), "a link"),
        (special("a", tarfile.CHRTYPE), "a device"),
        (special("a", tarfile.BLKTYPE), "a device"),
        (special("a", tarfile.FIFOTYPE), "a device"),
    ],
)
def test_links_and_devices(tmp_path, member, kind):
    archive = make_tar(tmp_path / "x.tar", ("fine", b"1"), member, ("a/b", b"through the link"))
    assert_refused(tmp_path, archive, f"'a', which is {kind}")


def test_a_link_in_a_zip(tmp_path):
    link = zipfile.ZipInfo("a")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = make_zip(tmp_path / "x.zip", ("fine", "1"), (link, "/etc/passwd"))
    assert_refused(tmp_path, archive, "'a', which is a link")


def test_a_file_that_is_there_twice(tmp_path):
    assert_refused(tmp_path, make_tar(tmp_path / "x", ("a", b"1"), ("./a", b"2")), "holds 'a' twice|holds './a' twice")
    assert_refused(tmp_path, make_tar(tmp_path / "y", ("a", b"1"), ("a/b", b"2")), "cannot be unpacked")


def test_too_many_and_too_large_members(tmp_path):
    many = make_tar(tmp_path / "many", *[(f"{i}", b"") for i in range(12)])
    assert_refused(tmp_path, many, "more than 10 members", max_members=10)
    large = make_tar(tmp_path / "large", ("a", b"0" * 600), ("b", b"0" * 600))
    assert_refused(tmp_path, large, "'b' makes it larger than 1,000 bytes", max_bytes=1000)
    zipped = make_zip(tmp_path / "large.zip", ("a", b"0" * 10_000_000))
    assert_refused(tmp_path, zipped, "'a' makes it larger than 1,000,000 bytes", max_bytes=1_000_000)


def test_a_header_that_promises_10_gigabytes(tmp_path):
    info = tarfile.TarInfo("huge")
    info.size = 10 << 30
    archive = tmp_path / "huge.tar.gz"
    archive.write_bytes(gzip.compress(info.tobuf() + bytes(1024)))
    assert_refused(tmp_path, archive, "'huge' makes it larger than", max_bytes=1 << 30)


def test_a_header_that_is_a_bomb_itself(tmp_path):
    info = tarfile.TarInfo("bomb")
    info.type, info.size = tarfile.XHDTYPE, 50 << 20
    archive = tmp_path / "bomb.tar.gz"
    archive.write_bytes(gzip.compress(info.tobuf() + bytes(50 << 20), 1))
    assert_refused(tmp_path, archive, "unpacks to more than the limit", max_bytes=1 << 20, max_members=100)


def test_a_zip_whose_header_lies_about_the_size(tmp_path):
    archive = make_zip(tmp_path / "x.zip", ("a", b"0" * 100_000))
    data = bytearray(archive.read_bytes())
    size = (100_000).to_bytes(4, "little")
    while (at := data.find(size)) >= 0:
        data[at : at + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(data)
    assert_refused(tmp_path, archive, "truncated or corrupt|larger than its header")


@pytest.mark.parametrize("cut", [0, 1, 10, 60, 200, -1, -9])
def test_truncated_archives(tmp_path, cut):
    import random

    content = random.Random(0).randbytes(5000)
    whole = make_tar(tmp_path / "x.tar.gz", ("a", content)).read_bytes()
    (tmp_path / "x.tar.gz").write_bytes(whole[:cut])
    assert_refused(tmp_path, tmp_path / "x.tar.gz", "truncated or corrupt")


def test_flipped_bytes_and_other_files(tmp_path):
    import random

    content = random.Random(0).randbytes(5000)
    whole = bytearray(make_tar(tmp_path / "x.tar.gz", ("a", content)).read_bytes())
    whole[2500] ^= 255
    (tmp_path / "x.tar.gz").write_bytes(whole)
    assert_refused(tmp_path, tmp_path / "x.tar.gz", "truncated or corrupt")
    (tmp_path / "page.tar.gz").write_text("<!DOCTYPE html><html>not found</html>" * 50)
    assert_refused(tmp_path, tmp_path / "page.tar.gz", "truncated or corrupt")
