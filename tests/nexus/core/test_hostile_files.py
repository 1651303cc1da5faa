"""Files made to harm: each ends in one line that names it, in no time and with no memory."""

import io
import json
import pickle
import resource
import struct
import time
import zipfile

import pytest
import torch
from safetensors.torch import save_file

import nexus
from nexus.core.documents import FileError
from nexus.core.files import read_state
from nexus.core.loading import load_weights, misfits
from nexus.core.pickles import unpickle

MEGABYTES = 100


def zipped(path, entries, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def torch_file(path, program):
    zipped(path, {"a/data.pkl": program, "a/data/0": bytes(16)})


DOUBLING = b"\x80\x02]" + b"".join(b"q%c" % i + b"h%ch%c\x86" % (i, i) for i in range(100)) + b"."
BOMBS = {
    "a zip that unpacks to 2 GB": lambda path: zipped(path, {f"a/data/{i}": bytes(64 << 20) for i in range(5)}, 8),
    "many small files": lambda path: zipped(path, {f"a/{i}": b"" for i in range(40_000)}),
    "a place in the memo of 2^31": lambda path: torch_file(path, b"\x80\x02]r\xff\xff\xff\x7f."),
    "bytes that claim 2^60": lambda path: torch_file(path, b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"."),
    "a tuple of tuples as a key": lambda path: torch_file(path, DOUBLING[:-1] + b"}h\x63h\x63s."),
    "copies of a long list": lambda path: torch_file(
        path, b"\x80\x02(" + b"N" * 50_000 + b"lq\x01" + b"cbuiltins\nset\nh\x01\x85R0" * 10_000 + b"h\x01."
    ),
    "millions of steps": lambda path: torch_file(path, b"\x80\x02" + b"N0" * 5_000_000 + b"N."),
}


@pytest.mark.parametrize("bomb", list(BOMBS))
def test_bombs_are_refused_in_no_time(tmp_path, bomb):
    path = tmp_path / "bomb.pt"
    BOMBS[bomb](path)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(FileError, match=r"bomb\.pt") as refused:
        read_state(path)
    assert time.process_time() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": {"a": 1}, "data_offsets": [0, 8]}},
        {"w": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 1 << 60]}},
        {f"w{i}": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for i in range(3)},
        {"w": None},
        ["w"],
        None,
    ],
)
def test_headers_that_cannot_be_are_refused(tmp_path, header):
    text = json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(FileError, match=r"w\.safetensors"):
        read_state(tmp_path / "w.safetensors")


def test_numbers_that_repeat_without_end_are_refused(tmp_path):
    model = nexus.create_model("vit_tiny_patch16_224", num_layers=6)
    state = {key: torch.zeros(1).expand(value.shape) for key, value in model.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(FileError, match="repeats its numbers more than 4 times"):
        load_weights(model, tmp_path / "w.pth")


@pytest.mark.parametrize("weight_map", [{}, [], None, {"w": 3}, {"w": "../w.safetensors"}, {"w": "/etc/passwd"}])
def test_an_index_names_files_in_its_folder_alone(tmp_path, weight_map):
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    (folder / "m.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(FileError, match=r"index\.json"):
        read_state(folder / "m.safetensors.index.json")


@pytest.mark.parametrize(
    "weight_map", [{"w": "out.safetensors"}, {"w": "m.safetensors.index.json"}, {"v": "in.safetensors"}]
)
def test_an_index_follows_no_link_out_and_not_itself(tmp_path, weight_map):
    folder = tmp_path / "model"
    folder.mkdir()
    for place in (tmp_path / "w.safetensors", folder / "in.safetensors"):
        save_file({"w": torch.ones(2)}, place)
    (folder / "out.safetensors").symlink_to(tmp_path / "w.safetensors")
    (folder / "m.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(FileError, match=r"index\.json"):
        read_state(folder / "m.safetensors.index.json")


def test_a_name_in_a_pickle_is_never_looked_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numpy_trap.py").write_text("open('ran', 'w')")
    for program in (
        b"cnumpy_trap\nx\n.",
        b"\x80\x04\x8c\x0anumpy_trap\x8c\x01x\x93.",
        b"(inumpy_trap\nx\n.",
        b"\x82\x01.",
    ):
        torch_file(tmp_path / "evil.pt", program)
        with pytest.raises(FileError, match=r"evil\.pt"):
            read_state(tmp_path / "evil.pt")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"w": print}))
    with pytest.raises(FileError, match=r"plain\.pth"):
        read_state(tmp_path / "plain.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("config", "num_layers"), [-1, 1, 1, 1]),
        (("preprocessing", "image_size"), [10**30, 8]),
        (("preprocessing", "resize_size"), 10**30),
        (("preprocessing", "resize_size"), 0),
        (("preprocessing", "resize_size"), -5),
        (("class_names",), 0),
        (("class_names",), ""),
        (("class_names",), {}),
    ],
)
def test_settings_at_their_edges(tmp_path, place, value):
    model = nexus.create_model("resnet18", num_layers=(1, 1, 1, 1), hidden_dim=8, num_classes=2)
    model.preprocessing = nexus.Preprocessing(image_size=(32, 32))
    path = model.save_pretrained(tmp_path / "model") / "config.json"
    settings = json.loads(path.read_text())
    inner = settings if len(place) == 1 else settings[place[0]]
    inner[place[-1]] = value
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=place[-1]) as refused:
        nexus.NexusModule.from_pretrained(tmp_path / "model")
    assert "\n" not in str(refused.value)


def test_items_of_a_set_are_added_to_a_set_alone():
    def nothing(*_):
        raise AssertionError("a name was looked up")

    whole = pickle.dumps({"names": {"a", "b"}}, protocol=4)
    assert unpickle(io.BytesIO(whole), nothing, nothing) == {"names": {"a", "b"}}
    into_a_list = pickle.PROTO + b"\x04" + pickle.EMPTY_LIST + pickle.MARK + b"K\x01" + pickle.ADDITEMS + pickle.STOP
    with pytest.raises(pickle.UnpicklingError, match="its pickle adds items to a list"):
        unpickle(io.BytesIO(into_a_list), nothing, nothing)


def test_an_archive_without_a_pickle_is_told(tmp_path):
    zipped(tmp_path / "a.pt", {"other/readme": b"1"})
    with pytest.raises(FileError, match=r"a\.pt.*it is a zip archive without data\.pkl"):
        read_state(tmp_path / "a.pt")


def test_some_names_of_many_are_told_with_how_many_more():
    few, many = ({name: torch.ones(1) for name in names} for names in ("abcdef", "abcdefgh"))
    assert misfits({}, few, ()) == ["it lacks a, b, c, d, e, f"]
    assert misfits({}, many, ()) == ["it lacks a, b, c, d, e, f and 2 more"]
