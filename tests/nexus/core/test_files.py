"""Weight files: whole ones are read, hostile and damaged ones are refused by name, and writing is all or nothing."""

import argparse
import pickle
import random
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nexus.core.files import WeightsError, read_state, write_whole

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1.0, 2.0])}


def same(state):
    return state.keys() == STATE.keys() and all(torch.equal(state[key], STATE[key]) for key in STATE)


def test_reads_safetensors_torch_and_numpy(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    torch.save(STATE, tmp_path / "w.pth")
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    np.savez(tmp_path / "w.npz", **{key: value.numpy() for key, value in STATE.items()})
    for name in ("w.safetensors", "w.pth", "old.pt", "w.npz"):
        assert same(read_state(tmp_path / name)), name


@pytest.mark.parametrize(
    "key", ["model", "state_dict", "model_state", "model_state_dict", "module", "ema", "model_ema"]
)
def test_unwraps_training_checkpoints(tmp_path, key):
    payload = {
        key: {f"module.{name}": value for name, value in STATE.items()},
        "optimizer": {"state": {0: torch.zeros(3)}},
        "args": argparse.Namespace(lr=0.1),
        "epoch": 3,
        "best": np.float64(0.5),
        "loss": torch.tensor(1.0),
    }
    torch.save(payload, tmp_path / "w.pth")
    assert same(read_state(tmp_path / "w.pth"))


def test_prefers_averaged_weights_and_strips_wrappers(tmp_path):
    averaged = {f"module._orig_mod.{name}": value for name, value in STATE.items()}
    torch.save({"model": {name: value + 1 for name, value in STATE.items()}, "ema": averaged}, tmp_path / "w.pth")
    assert same(read_state(tmp_path / "w.pth"))


def test_reads_files_in_parts(tmp_path):
    save_file({"a.weight": STATE["a.weight"]}, tmp_path / "model-1.safetensors")
    save_file({"a.bias": STATE["a.bias"]}, tmp_path / "model-2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a.weight": "model-1.safetensors", "a.bias": "model-2.safetensors"}}')
    assert read_state(index).keys() == STATE.keys()


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, new_format):
    path, target = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save({"model": STATE, "x": Evil(target)}, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(WeightsError, match=r"evil.pth holds more than weights and was refused; nothing in it was run"):
        read_state(path)
    assert not target.exists()


def test_a_plain_pickle_is_refused(tmp_path):
    (tmp_path / "plain.bin").write_bytes(pickle.dumps({"w": Evil(tmp_path / "ran")}))
    with pytest.raises(WeightsError, match=r"plain\.bin"):
        read_state(tmp_path / "plain.bin")
    assert not (tmp_path / "ran").exists()


def test_an_npz_of_an_array_without_numbers(tmp_path):
    np.savez(tmp_path / "w.npz", none=np.zeros((0, 3), np.float32), one=np.float32(2.5))
    state = read_state(tmp_path / "w.npz")
    assert state["none"].shape == (0, 3)
    assert state["one"].item() == 2.5


def test_objects_in_npz_are_refused(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.array([Evil(tmp_path / "ran")], dtype=object))
    (tmp_path / "ran").unlink(missing_ok=True)
    with pytest.raises(WeightsError, match=r"w.npz holds something other than plain arrays"):
        read_state(tmp_path / "w.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".npz"])
def test_files_cut_anywhere_are_refused_by_name(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file(STATE, path)
    elif suffix == ".pth":
        torch.save(STATE, path)
    else:
        np.savez(path, **{key: value.numpy() for key, value in STATE.items()})
    whole = path.read_bytes()
    for cut in [0, 1, 4, 8, 9, *range(16, len(whole) - 1, max(1, len(whole) // 20))]:
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightsError, match=f"w{suffix}"):
            read_state(path)


def test_mutated_headers_are_refused_or_read_whole(tmp_path):
    path, chance = tmp_path / "w.safetensors", random.Random(0)
    save_file(STATE, path)
    whole = bytearray(path.read_bytes())
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    refused = []
    for _ in range(200):
        mutated = bytearray(whole)
        mutated[chance.randrange(header)] = chance.randrange(256)
        path.write_bytes(mutated)
        try:
            assert len(read_state(path)) == 2
        except WeightsError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert all("w.safetensors" in message for message in refused)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", {"epoch": 3, "note": "x"}, "w.pth holds no weights; its content is a mapping with 'epoch', 'note'"),
        ("w.pt", [1, 2], "w.pt holds no weights; its content is a list"),
    ],
)
def test_files_without_weights(tmp_path, name, content, message):
    torch.save(content, tmp_path / name)
    with pytest.raises(WeightsError, match=message):
        read_state(tmp_path / name)


def test_unknown_and_missing_files(tmp_path):
    (tmp_path / "w.h5").write_bytes(b"x")
    with pytest.raises(
        WeightsError, match=r"w.h5 is not a weight file that is known here; it must end in .safetensors"
    ):
        read_state(tmp_path / "w.h5")
    with pytest.raises(WeightsError, match="There is no weight file"):
        read_state(tmp_path / "absent.pth")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_whole(path, lambda temporary: temporary.write_text("old"))

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
