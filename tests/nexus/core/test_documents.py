"""Files of strangers become plain values within limits, or one line that names the file and the place."""

import os
import time

import pytest
import torch

from nexus.core.documents import FileError, Limits, parse_json, parse_yaml, read_bytes, read_json, read_yaml
from nexus.core.stored import Damaged, Storage, Stored

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi")
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1, column 1"),
        ("{", "line 1, column 2"),
        ('{"a": 1,\n "b": }', "line 2, column 7"),
        ("[" * 100_000, "nests deeper than 64 levels"),
        ("[" * 65 + "]" * 65, "nests deeper than 64 levels"),
        ('{"a": NaN}', "holds NaN"),
        ('{"a": -Infinity}', "holds -Infinity"),
        ("9" * 5000, "4300"),
        ("[" + "0," * 2_000_000 + "0]", "more than 2,000,000 values"),
    ],
    ids=range(9),
)
def test_json_that_is_none_is_named(tmp_path, text, problem):
    path = tmp_path / "some.json"
    path.write_text(text)
    with pytest.raises(FileError) as refused:
        read_json(path)
    assert str(path) in str(refused.value)
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


def test_json_within_the_limits_is_read():
    assert parse_json("[" * 64 + "]" * 64, "here")
    assert parse_json(b'\xef\xbb\xbf{"a": [1, 2.5, null, true, "\xc3\xa4"]}', "here") == {
        "a": [1, 2.5, None, True, "ä"]
    }
    assert parse_json('"a"'.encode("utf-16"), "here") == "a"
    assert parse_json("[Infinity]", "here", nan=True) == [float("inf")]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LAUGHS, "more than 200,000 values"),
        ("a: &a [*a]", "stands for nothing that is complete"),
        ("[" * 5000, "nest"),
        ("[" * 70 + "]" * 70, "deeper than 64"),
        ("a:\n  - &x [1]\n" + "b: *y", "*y"),
        ("a: 1\na: 2", "(line 2, column 1): the key 'a' occurs twice"),
        ("1: a\ntrue: b", "occurs twice"),
        ("!!python/object/apply:os.system [echo]", "asks for an object"),
        ("!!timestamp 2001-01-01", "asks for an object"),
        ("!!set {a}", "asks for an object"),
        ("? [a]\n: b", "where a key must be"),
        ("a: 1\n---\nb: 2", "second document"),
        ("a: [1", "(line "),
        ("a: \x07", "is not YAML"),
        ("9" * 5000, "cannot be read"),
        ("<<: 3", "merges mappings"),
        ("base: &b {" + ", ".join(f"k{i}: 1" for i in range(500)) + "}\n" + "x:\n" + "- <<: *b\n" * 500, "more than"),
    ],
    ids=range(17),
)
@pytest.mark.parametrize("parser", ["libyaml", "python"])
def test_yaml_that_is_not_plain_is_named_at_once(tmp_path, text, problem, parser, monkeypatch):
    if parser == "python":
        monkeypatch.delattr("yaml.CSafeLoader", raising=False)
    path = tmp_path / "some.yaml"
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(FileError) as refused:
        read_yaml(path)
    assert time.process_time() - start < 2
    assert str(path) in str(refused.value)
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


def test_yaml_scalars_are_those_of_yaml_1_2():
    text = "[3e-4, 010, 0x10, 1_000, .5, -.inf, yes, 'yes', null, ~, 2001-01-01, 1:30, 1.10, !!str 3, '']"
    expected = [3e-4, 10, 16, 1000, 0.5, float("-inf"), True, "yes", None, None, "2001-01-01", "1:30", 1.1, "3", ""]
    assert parse_yaml(text, "here") == expected
    assert parse_yaml("", "here") is None


def test_yaml_scalars_may_stay_the_text_that_stands_there():
    text = "names: {0: no, 1: 010, 2: 1.10, 3: null, 4: 'x', 5: , 6: 2001-01-01}"
    expected = {"0": "no", "1": "010", "2": "1.10", "3": "null", "4": "x", "5": None, "6": "2001-01-01"}
    assert parse_yaml(text, "here", as_text=True) == {"names": expected}


def test_yaml_aliases_and_merges_within_the_limits_are_read():
    text = "base: &b {x: 1, y: [2]}\nmore: {<<: *b, x: 3}\nlist: [*b, *b]"
    base = {"x": 1, "y": [2]}
    assert parse_yaml(text, "here") == {"base": base, "more": {"x": 3, "y": [2]}, "list": [base, base]}


def test_only_regular_files_within_the_size_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 11)
    for name, problem in (("pipe", "is not a file"), ("", "is not a file"), ("none", "no file"), ("large", "11 bytes")):
        with pytest.raises(FileError, match=problem):
            read_bytes(tmp_path / name, 10)
    (tmp_path / "latin").write_bytes(b"\xe4")
    with pytest.raises(FileError, match="UTF-8"):
        read_json(tmp_path / "latin")
    with pytest.raises(FileError, match="cannot be read"):
        read_bytes(tmp_path / "a\0b")


def test_limits_are_the_callers():
    with pytest.raises(FileError, match="deeper than 2"):
        parse_json("[[[]]]", "here", Limits(depth=2))


def test_of_several_merged_mappings_the_first_counts():
    assert parse_yaml("<<: [{a: 1, b: 1}, {a: 2}]\nb: 3", "here") == {"a": 1, "b": 3}


def test_a_tensor_ends_with_its_storage():
    storage = Storage(torch.float32, 4, lambda: bytearray(12))
    with pytest.raises(Damaged, match="beyond its storage"):
        Stored(storage, 1, (4,), (1,))
    with pytest.raises(Damaged, match="12 bytes instead of 16"):
        Stored.dense(storage, (4,)).load({})
