"""How seeds are damaged: bytes as a disk or a network damages them, structures as a hostile or careless author writes them.

A mutation takes the content of a file and a source of chance, and returns other content. Which ones a file gets is
said by the kind of its structure, one of `KINDS`; every kind also gets the mutations of bytes.
"""

import copy
import json
import random
import re
import struct
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable
from typing import Any

from tests.fuzz.archives import mutate_npy, mutate_pickle, mutate_tar, mutate_zip
from tests.fuzz.payloads import DEEP, DEEP_LEVELS, STRANGE, as_text

Mutation = Callable[[bytes, random.Random], bytes]


def mutate(content: bytes, kind: str, rng: random.Random) -> bytes:
    """Returns the content damaged once or several times: its structure in three of four cases, else its bytes."""
    if kind == "bytes" or rng.random() < 0.25:
        return mutate_bytes(content, rng)
    return KINDS[kind](content, rng)


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flips, cuts, repeats and overwrites."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        place, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 8, 64, 1024))
        match rng.randrange(7):
            case 0 if data:
                data[min(place, len(data) - 1)] ^= 1 << rng.randrange(8)
            case 1:
                del data[place : place + length]
            case 2:
                data[place:place] = data[place : place + length] * rng.choice((1, 2, 100))
            case 3:
                data[place : place + length] = rng.randbytes(length)
            case 4:
                width = rng.choice("bhiq")
                limit = 1 << (8 * struct.calcsize(width) - 1)
                number = rng.choice((0, 1, -1, limit - 1, -limit, limit // 2))
                packed = struct.pack(rng.choice("<>") + width, number)
                data[place : place + len(packed)] = packed
            case 5:
                data[place:place] = as_text(rng.choice(STRANGE)).encode("utf-8", "surrogatepass")
            case 6:
                data = data[:place]
    return bytes(data)


def mutate_tree(tree: Any, rng: random.Random) -> Any:
    """Changes one to four places of nested lists and mappings."""
    root = [copy.deepcopy(tree)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = _places(root)
        box, key = rng.choice(places)
        _edit(box, key, places, rng)
    return root[0]


def _places(box: Any) -> list[tuple[Any, Any]]:
    """Every value in nested lists and mappings, by what holds it and under what."""
    found = []
    for key in box if isinstance(box, dict) else range(len(box)):
        found.append((box, key))
        if isinstance(box[key], dict | list):
            found += _places(box[key])
    return found


def _edit(box: Any, key: Any, places: list[tuple[Any, Any]], rng: random.Random) -> None:
    match rng.randrange(9):
        case 0 | 1 | 2:
            box[key] = copy.deepcopy(rng.choice(STRANGE))
        case 3 if isinstance(box, dict) or len(box) > 1:
            del box[key]
        case 4:
            other, place = rng.choice(places)
            box[key] = copy.deepcopy(other[place]) if isinstance(place, str) or place < len(other) else None
        case 5:
            box[key] = rng.choice(([box[key]], {"a": box[key]}, str(box[key])))
        case 6 if isinstance(box, dict):
            box[as_text(rng.choice(STRANGE))] = box.pop(key)
        case 7 if isinstance(box[key], list):
            box[key] = box[key] * rng.choice((2, 100))
        case 8:
            box[key] = DEEP
        case _ if isinstance(box[key], int | float):
            box[key] = box[key] * rng.choice((-1, 0, 2, 1000, 10**9, 0.5))


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """Another tree, or the same one with a key twice, a mark before it, other quotes."""
    if rng.random() < 0.1:
        text = content.decode()
        before, after = rng.choice(
            ((":", ":,"), ('"', "'"), ("{", '{"a": 1, "a": 2,'), ("{", "\ufeff{"), ("[", "[NaN,"))
        )
        return text.replace(before, after, 1).encode()
    return dump_json(mutate_tree(json.loads(content), rng))


def dump_json(tree: Any) -> bytes:
    """The tree as JSON; the mark `DEEP` becomes more lists within each other than any program's stack holds."""
    text = json.dumps(tree)
    return text.replace(json.dumps(DEEP), "[" * DEEP_LEVELS + "]" * DEEP_LEVELS).encode()


def mutate_json_lines(content: bytes, rng: random.Random) -> bytes:
    """One line of JSON lines, or their order."""
    lines = content.splitlines()
    place = rng.randrange(len(lines))
    if rng.random() < 0.2:
        lines.insert(place, rng.choice((b"", b"[]", b"null", b"7", lines[0], b"{")))
    else:
        lines[place] = mutate_json(lines[place], rng)
    return b"\n".join(lines) + b"\n"


_YAML_LINES = (
    "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\n"
    "d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d]\nf: [*e, *e, *e, *e, *e, *e, *e, *e]",
    "? [a, b]\n: c",
    "? {a: b}\n: c",
    "<<: {a: 1}",
    "self: &self [*self]",
    "names: !!timestamp 2001-13-45",
    "names: !!binary '!'",
    "names: !!int x",
    "names: !!set {a, b}",
    "names: !!omap [1]",
    "names: 2001-99-99",
    "names: 1:99:99",
    "\tnames: x",
    "%YAML 9.9",
    "---\na: 1\n---",
    "names: *nothing",
    "10: 1\nx: 2\n~: 3",
    "names: 0x" + "f" * 5000,
    "names: 1" + "0" * 5000,
)


def mutate_yaml(content: bytes, rng: random.Random) -> bytes:
    """Another tree, or a line that YAML gives a meaning of its own."""
    import yaml

    if rng.random() < 0.35:
        lines = content.decode().splitlines()
        lines.insert(rng.randrange(len(lines) + 1), rng.choice((*_YAML_LINES, as_text(rng.choice(STRANGE)))))
        return "\n".join(lines).encode("utf-8", "surrogatepass")
    text = yaml.safe_dump(mutate_tree(yaml.safe_load(content), rng), allow_unicode=rng.random() < 0.5)
    return re.sub(f"['\"]?{DEEP}['\"]?", "[" * 2000 + "]" * 2000, text).encode("utf-8", "surrogatepass")


_DOCTYPES = (
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>',
    "<!DOCTYPE a>",
    '<?xml-stylesheet href="x"?>',
)


def mutate_xml(content: bytes, rng: random.Random) -> bytes:
    """Other text, tags and attributes; a document type; another encoding; tags within tags."""
    root = ET.fromstring(content)  # our own seed
    every = list(root.iter())
    for _ in range(rng.choice((1, 1, 2, 4))):
        one, other = rng.choice(every), rng.choice(every)
        strange = _xml_text(rng.choice(STRANGE))
        match rng.randrange(7):
            case 0 | 1:
                one.text = strange
            case 2 if one.attrib:
                one.attrib[rng.choice(sorted(one.attrib))] = strange
            case 3 if len(one):
                one.remove(one[rng.randrange(len(one))])
            case 4 if len(one):
                one.append(copy.deepcopy(one[rng.randrange(len(one))]))
            case 5:
                one.tag = other.tag
            case _:
                one.text, other.text = other.text, one.text
    text = ET.tostring(root, encoding="unicode")
    match rng.randrange(12):
        case 0:
            text = rng.choice(_DOCTYPES) + text
        case 1:
            return (rng.choice(_DOCTYPES) + text).encode("utf-16")
        case 2:
            text = text.replace("</", "<b>" * 5000 + "</b>" * 5000 + "</", 1)
        case 3:
            return text.encode(rng.choice(("utf-16", "utf-8-sig", "utf-32")), "replace")
    return text.encode("utf-8", "replace")


def _xml_text(value: Any) -> str:
    return "".join(letter for letter in as_text(value) if letter >= " " and not 0xD800 <= ord(letter) < 0xE000)


def mutate_table(content: bytes, rng: random.Random) -> bytes:
    """Fields and lines of a text whose fields stand between commas or spaces."""
    text = content.decode()
    comma = "," if "," in text else " "
    rows = [line.split(comma) for line in text.splitlines()]
    for _ in range(rng.choice((1, 1, 2, 4))):
        row = rng.choice(rows)
        match rng.randrange(6):
            case 0 | 1 | 2 if row:
                row[rng.randrange(len(row))] = as_text(rng.choice(STRANGE))
            case 3:
                rows.insert(rng.randrange(len(rows) + 1), list(rng.choice(rows)))
            case 4 if row:
                del row[rng.randrange(len(row))]
            case _:
                row.insert(rng.randrange(len(row) + 1), rng.choice(('"', "'", "", "1", "\0", "x" * 200_000)))
    return "\n".join(comma.join(row) for row in rows).encode(
        rng.choice(("utf-8", "utf-8", "utf-8", "utf-16")), "replace"
    )


def mutate_safetensors(content: bytes, rng: random.Random) -> bytes:
    """The header of a safetensors file, with the length that belongs to it."""
    (length,) = struct.unpack("<Q", content[:8])
    header = mutate_json(content[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def mutate_png(content: bytes, rng: random.Random) -> bytes:
    """One chunk of a PNG file, with a checksum that agrees."""
    chunks, place = [], 8
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    number = rng.randrange(len(chunks))
    name, body = chunks[number]
    match rng.randrange(4):
        case 0:
            chunks.insert(number, (rng.choice((b"tEXt", b"iCCP", b"eXIf", b"acTL", b"PLTE", b"tRNS", b"zTXt")), body))
        case 1:
            chunks.insert(rng.randrange(len(chunks) + 1), chunks.pop(number))
        case _:
            chunks[number] = (name, mutate_bytes(body, rng))
    parts = [struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks]
    return content[:8] + b"".join(parts)


KINDS: dict[str, Mutation] = {
    "bytes": mutate_bytes,
    "json": mutate_json,
    "json lines": mutate_json_lines,
    "yaml": mutate_yaml,
    "xml": mutate_xml,
    "table": mutate_table,
    "safetensors": mutate_safetensors,
    "png": mutate_png,
    "zip": mutate_zip,
    "tar": mutate_tar,
    "pickle": mutate_pickle,
    "npy": mutate_npy,
}
