"""No string of any file runs: every one of them, keys and values, is replaced by texts that would be code."""

import json
import shutil
import warnings
import xml.etree.ElementTree as ET
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import pytest

import mithril as ml
from tests.fuzz.archives import evil_pickles, rezip
from tests.fuzz.harness import Bench
from tests.fuzz.mutation import dump_json
from tests.fuzz.payloads import MARKER, PAYLOADS, as_text
from tests.fuzz.readers import READERS


def with_markers(content, kind):
    """Every version of a file with one text of it replaced by code."""
    match kind:
        case "json":
            yield from map(dump_json, planted(json.loads(content)))
        case "json lines":
            first, _, rest = content.partition(b"\n")
            yield from (text + b"\n" + rest for text in with_markers(first, "json"))
        case "yaml":
            import yaml

            yield from (yaml.safe_dump(tree).encode() for tree in planted(yaml.safe_load(content)))
            yield from (b"extra: " + text.encode() + b"\n" + content for text in PAYLOADS)
        case "xml":
            yield from marked_xml(content)
        case "table":
            yield from marked_fields(content)
        case "safetensors":
            import struct

            (length,) = struct.unpack("<Q", content[:8])
            for header in with_markers(content[8 : 8 + length], "json"):
                yield struct.pack("<Q", len(header)) + header + content[8 + length :]
        case "zip":
            yield from marked_members(content)
        case "pickle":
            yield from evil_pickles()
        case _:
            yield from (text.encode() + content for text in PAYLOADS)


def planted(tree):
    """A tree once for each of its texts: with the payloads in turn there."""
    for number, (path, is_key) in enumerate(texts(tree)):
        for text in (PAYLOADS[number % len(PAYLOADS)], PAYLOADS[(number * 7 + 5) % len(PAYLOADS)]):
            yield replaced(tree, path, is_key, text)


def texts(tree, path=()):
    """Where texts stand in nested lists and mappings, as keys and as values."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        if isinstance(key, str):
            yield (*path, key), True
        if isinstance(value, str):
            yield (*path, key), False
        yield from texts(value, (*path, key))


def replaced(tree, path, is_key, text):
    """A copy in which the text at a path is another."""
    first, *rest = path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    made = []
    for key, value in items:
        if key == first:
            value = replaced(value, rest, is_key, text) if rest else value if is_key else text
            key = text if is_key and not rest else key
        made.append((key, value))
    return dict(made) if isinstance(tree, dict) else [value for _, value in made]


def marked_xml(content):
    """The text and the attributes of every element."""
    for number, _ in enumerate(ET.fromstring(content).iter()):
        root = ET.fromstring(content)
        one = list(root.iter())[number]
        one.text = PAYLOADS[number % len(PAYLOADS)].replace("\x0c", " ")
        one.attrib = dict.fromkeys(one.attrib, one.text)
        yield ET.tostring(root)


def marked_fields(content):
    """Every field of every line."""
    lines = content.decode().splitlines()
    for row, line in enumerate(lines):
        comma = "," if "," in line else " "
        for column, _ in enumerate(line.split(comma)):
            fields = line.split(comma)
            fields[column] = PAYLOADS[(row * 5 + column) % len(PAYLOADS)]
            yield "\n".join([*lines[:row], comma.join(fields), *lines[row + 1 :]]).encode()


def marked_members(content):
    """The pickles of an archive replaced by evil ones, and every other member by code."""
    with ZipFile(BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    for number, (name, _) in enumerate(members):
        programs = evil_pickles() if name.endswith(".pkl") else [text.encode() for text in PAYLOADS[::4]]
        for data in programs:
            yield rezip([*members[:number], (name, data), *members[number + 1 :]])
        yield rezip([*members[:number], (PAYLOADS[0], members[number][1]), *members[number + 1 :]])
    for name, data in (("hubconf.py", PAYLOADS[0].encode()), ("code/__torch__.py", PAYLOADS[0].encode())):
        yield rezip([*members, (members[0][0].partition("/")[0] + "/" + name, data)])


@pytest.mark.parametrize("name", READERS)
def test_no_text_of_a_file_runs(name, tmp_path):
    reader = READERS[name]
    shutil.rmtree(MARKER, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bench = Bench(reader, tmp_path)
        for file, kind in reader.files.items():
            for content in with_markers(bench.whole[file], kind):
                for other, whole in bench.whole.items():
                    (bench.folder / other).write_bytes(content if other == file else whole)
                reader.repair(bench.folder)
                problem = read(reader, bench)
                assert not MARKER.exists(), content[:2000]
                assert not problem, (problem, content[:2000])
                shutil.rmtree(bench.folder / "out", ignore_errors=True)


def read(reader, bench):
    """What is wrong with how a reader takes what lies there."""
    try:
        reader.read(bench.folder)
    except Exception as error:
        return bench.problem(error)
    return ""


def code_files(folder: Path) -> None:
    """Puts code under every name that a library might import from a folder."""
    for name in ("modeling.py", "tokenization.py", "configuration.py", "hubconf.py", "__init__.py", "conftest.py"):
        (folder / name).write_text(PAYLOADS[0])


@pytest.mark.parametrize("name", ["saved model", "hub folder", "timm folder", "tokenizer"])
def test_code_in_a_folder_does_not_run(name, tmp_path):
    reader = READERS[name]
    bench = Bench(reader, tmp_path)
    code_files(bench.folder)
    for file in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        path = bench.folder / file
        if path.exists():
            names = {
                "AutoConfig": "configuration.A",
                "AutoModel": "modeling.A",
                "AutoTokenizer": ["tokenization.A", None],
            }
            more = {"auto_map": {**names, "AutoImageProcessor": "modeling.A"}, "trust_remote_code": True}
            path.write_text(json.dumps({**json.loads(path.read_text()), **more, "tokenizer_class": "A"}))
    problem = read(reader, bench)
    assert not MARKER.exists()
    assert not problem, problem


def compiles(text, backend):
    """Whether the model of a text is accepted, and has source that stands alone."""
    try:
        model = ml.models.Model.from_json(text)
        compiled = ml.compile(model, backend, shapes={"images": [2, 4]}, jit=False)
    except ValueError as error:
        if not type(error).__module__.startswith("mithril"):
            raise
        return False
    compile(compiled.source, "source", "exec")
    return True


@pytest.mark.parametrize("backend", ["TorchBackend", "JaxBackend", "MlxBackend", "NumpyBackend"])
def test_names_of_a_mithril_model_are_data_on_every_backend(backend, tmp_path):
    """What the reader lets through is compiled, and its source stands alone, for each framework."""
    READERS["mithril json"].seed(tmp_path)
    whole = (tmp_path / "model.json").read_text()
    assert compiles(whole, getattr(ml, backend)())
    for changed in planted(json.loads(whole)):
        compiles(json.dumps(changed), getattr(ml, backend)())
        assert not MARKER.exists(), as_text(changed)
