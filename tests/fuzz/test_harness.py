"""The harness notices each kind of fault, and takes neither acceptance nor a good refusal for one."""

import json
import random
import re
import zipfile
from io import BytesIO

import pytest

from tests.fuzz import harness
from tests.fuzz.archives import BOMB_BYTES, _bomb, evil_pickles, rezip
from tests.fuzz.mutation import KINDS, mutate

FAULTS = {
    "hangs": "more than 2 s of the processor",
    "sleeps": "no answer",
    "grows": "MB more than before",
    "dies": "the process ended with -11",
    "runs code": "code of the file ran",
    "starts a program": "subprocess.Popen",
    "writes elsewhere": "os.mkdir .*nexus-fuzz-elsewhere",
    "several lines": "several lines: ValueError",
    "names no file": "names no file",
    "raw error": "KeyError",
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_noticed(name, monkeypatch):
    monkeypatch.setattr(harness, "WALL_SECONDS", 8 if name == "sleeps" else 60)
    tally = harness.run(name, 0, 2, most_faults=1, table="tests.fuzz.toys")
    assert [fault.example for fault in tally.faults] == [0]
    assert re.search(FAULTS[name], tally.faults[0].problem)


@pytest.mark.parametrize("name", ["accepts", "refuses"])
def test_no_fault(name):
    tally = harness.run(name, 0, 20, table="tests.fuzz.toys")
    assert not tally.faults
    assert (tally.examples, getattr(tally, name.replace("ts", "ted").replace("ses", "sed"))) == (20, 20)


def test_examples_repeat():
    content = json.dumps({"a": [1, {"b": "c"}], "d": None}).encode()
    first = [mutate(content, "json", random.Random(n)) for n in range(200)]
    assert first == [mutate(content, "json", random.Random(n)) for n in range(200)]
    assert len(set(first)) > 150
    assert any(text.count(b"[" * 1000) for text in first)


def test_a_bomb_is_a_zip_file_that_unpacks():
    data = _bomb([("a", b"1"), ("b", b"2"), ("c", b"3")], 1)
    assert len(data) < 4 << 20
    with zipfile.ZipFile(BytesIO(data)) as archive:
        assert archive.infolist()[1].file_size == BOMB_BYTES
        with archive.open("b") as file:
            assert file.read(1 << 20) == bytes(1 << 20)
        assert archive.read("c") == b"3"
    assert rezip([("a", b"1")])


def test_pickles_act_when_they_are_trusted(tmp_path, monkeypatch):
    """They would prove nothing if they were harmless."""
    import pickle
    import shutil

    from tests.fuzz.payloads import MARKER

    for program in (*evil_pickles()[:3], *evil_pickles()[-6:]):
        shutil.rmtree(MARKER, ignore_errors=True)
        pickle.loads(program)
        assert MARKER.is_dir()
        shutil.rmtree(MARKER)


def test_every_kind_changes_its_seed():
    assert set(KINDS) == {kind for reader in _readers() for kind in reader.files.values()} | {"bytes"}


def _readers():
    from tests.fuzz.readers import READERS

    return READERS.values()
