"""Damage to files that hold other files, and to pickles: what is inside changes, and checksums agree again."""

import io
import pickle
import random
import struct
import tarfile
import zipfile
import zlib
from functools import cache

from tests.fuzz.payloads import MARKER, STRANGE, as_text

_NAMES = ("../evil", "/etc/evil", "a/../../evil", "data.pkl", "x/data.pkl", "x/data/0", "C:\\evil", "", ".", "a" * 300)
BOMB_BYTES = 2 << 30


def mutate_zip(content: bytes, rng: random.Random) -> bytes:
    """One member of a zip file by its own kind, or its name, or how often it is there, or one that unpacks without end."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    number = rng.randrange(len(members))
    name, data = members[number]
    match rng.randrange(12):
        case 0:
            members[number] = (rng.choice((*_NAMES, as_text(rng.choice(STRANGE)))).replace("\ud800", "?"), data)
        case 1:
            del members[number]
        case 2:
            members.append(rng.choice(members))
        case 3:
            return _bomb(members, number)
        case _:
            members[number] = (name, _mutate_member(name, data, rng))
    return rezip(members)


def _mutate_member(name: str, data: bytes, rng: random.Random) -> bytes:
    from tests.fuzz.mutation import mutate_bytes

    if name.endswith(".pkl"):
        return mutate_pickle(data, rng)
    return mutate_npy(data, rng) if name.endswith(".npy") else mutate_bytes(data, rng)


def rezip(members: list[tuple[str, bytes]]) -> bytes:
    import warnings

    target = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w") as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name or "x"), data)
    return target.getvalue()


@cache
def _zeros() -> bytes:
    """A deflated stream of `BOMB_BYTES` zeros, made by repeating one block."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (BOMB_BYTES >> 20) + packer.flush()


def _bomb(members: list[tuple[str, bytes]], number: int) -> bytes:
    """The zip file with one member that claims, and has, two gigabytes."""
    stream = _zeros()
    name = members[number][0]
    stored = bytearray(rezip([*members[:number], (name, stream), *members[number + 1 :]]))
    central = stored.rindex(b"PK\x01\x02" + stored[stored.rindex(b"PK\x01\x02") + 4 : stored.rindex(b"PK\x01\x02") + 6])
    with zipfile.ZipFile(io.BytesIO(bytes(stored))) as archive:
        local = archive.infolist()[number].header_offset
    place = stored.index(b"PK\x01\x02", local)
    while stored[place + 46 : place + 46 + len(name.encode())] != name.encode():
        place = stored.index(b"PK\x01\x02", place + 4)
    assert place <= central
    for offset in (local + 8, place + 10):
        struct.pack_into("<H", stored, offset, zipfile.ZIP_DEFLATED)
    for offset in (local + 22, place + 24):
        struct.pack_into("<I", stored, offset, BOMB_BYTES)
    return bytes(stored)


def _evil() -> list[bytes]:
    """Pickles that call something when a trusting reader loads them."""
    path = str(MARKER).encode()
    call = b"cos\nmakedirs\n(V" + path + b"\ntR."
    names = (b"builtins\neval", b"builtins\nexec", b"os\nsystem", b"posix\nsystem", b"torch\nload", b"numpy\nload")
    names += (
        b"torch.hub\nload",
        b"runpy\nrun_path",
        b"functools\npartial",
        b"operator\nattrgetter",
        b"builtins\ngetattr",
    )
    word = f"__import__('os').makedirs({str(MARKER)!r})".encode()
    stacked = b"\x80\x04\x8c\x02os\x8c\x08makedirs\x93\x8c" + bytes([len(path)]) + path + b"\x85R."
    return [call, stacked, b"(V" + path + b"\nios\nmakedirs\n.", *(b"c" + n + b"\n(V" + word + b"\ntR." for n in names)]


def _endless() -> list[bytes]:
    """Pickles that hold themselves, are deeper than a stack, or are larger unpacked than a memory."""
    tenfold = b"".join(b"(" + (b"h" + bytes([n])) * 10 + b"lq" + bytes([n + 1]) for n in range(30))
    return [
        b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
        b"\x80\x02]q\x00h\x00a.",
        b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
        b"\x80\x02]q\x00" + tenfold + b".",
        b"\x80\x04\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x02r\xff\xff\xff\x7f.",
        b"\x80\x02\x8a\xff" + b"\xff" * 255 + b".",
    ]


def mutate_pickle(content: bytes, rng: random.Random) -> bytes:
    """Another program in the place of the pickle or within it, another name, or other bytes."""
    from tests.fuzz.mutation import mutate_bytes

    match rng.randrange(5):
        case 0:
            return rng.choice(_evil())
        case 1:
            return rng.choice(_endless())
        case 2:
            return rng.choice(_evil())[:-1] + b"0" + content[2:]  # acts, forgets what came of it, goes on
        case 3:
            for name in rng.sample((b"_rebuild_tensor_v2", b"torch", b"collections", b"OrderedDict", b"storage"), 5):
                if name in content:
                    return content.replace(name, rng.choice((b"os", b"system", b"builtins", b"eval", b"x")), 1)
    return mutate_bytes(content, rng)


def evil_pickles() -> list[bytes]:
    """All pickles that would act; each is whole."""
    return [*_evil(), *(pickle.dumps(_Acts(), protocol) for protocol in range(6))]


class _Acts:
    def __reduce__(self) -> tuple[object, ...]:
        import os

        return os.makedirs, (str(MARKER), 0o777, True)


def mutate_npy(content: bytes, rng: random.Random) -> bytes:
    """The header of a .npy file: another type, another shape, another length; else its bytes."""
    from tests.fuzz.mutation import mutate_bytes

    head, brace, rest = content.partition(b"{")
    body, _, tail = rest.partition(b"}")
    if not brace or rng.random() < 0.3:
        return mutate_bytes(content, rng)
    kinds = (b"'|O'", b"'<f8'", b"'<U9999999'", b"'V8'", b"[('a', '<f4')]", b"'<M8[s]'", b"'x'", b"8")
    shapes = (b"(1000000000000,)", b"(-1,)", b"()", b"(0,)", b"(9" + b"9" * 30 + b",)", b"None", b"(1.5,)", b"'a'")
    if rng.random() < 0.5:
        body = body.replace(b"'<f4'", rng.choice(kinds))
    else:
        start, end = body.find(b"("), body.find(b")")
        body = body[:start] + rng.choice(shapes) + body[end + 1 :]
    text = b"{" + body + b"}" + tail
    return head + text


def mutate_tar(content: bytes, rng: random.Random) -> bytes:
    """One member of a tar file: its name, kind, size or link; or the plain bytes under the compression."""
    import gzip

    from tests.fuzz.mutation import mutate_bytes

    plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    if rng.random() < 0.4:
        return gzip.compress(mutate_bytes(plain, rng), 1)
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        members = [(info, archive.extractfile(info).read() if info.isreg() else b"") for info in archive]  # type: ignore[union-attr]
    info, data = members[rng.randrange(len(members))]
    match rng.randrange(5):
        case 0:
            info.name = rng.choice((*_NAMES, as_text(rng.choice(STRANGE)).encode("utf-8", "replace").decode()))
        case 1:
            kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"S", b"Z")
            info.type, info.linkname = rng.choice(kinds), rng.choice(("/etc/passwd", "../../x", "a"))
        case 2:
            members.append((info, data))
        case 3:
            info.pax_headers = {
                rng.choice(("path", "size", "GNU.sparse.map", "hdrcharset")): as_text(rng.choice(STRANGE)).replace(
                    "\ud800", "?"
                )
            }
        case 4:
            info.mode = rng.choice((0, 0o777, 0o4777))
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for info, data in members:
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(target.getvalue(), 1)
