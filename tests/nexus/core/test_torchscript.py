"""Archives of `torch.jit.save`: the tensors in them, without the program."""

import os
import pickle
import zipfile

import pytest
import torch
from torch import nn

from nexus.core.files import WeightsError, read_state


def scripted(path, module):
    with pytest.warns((DeprecationWarning, FutureWarning), match="torch.jit"):
        torch.jit.save(torch.jit.script(module), path)
    return path


def test_tensors_are_those_of_the_state_dict(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 2))).half()
    with torch.no_grad():
        module[0].weight.set_(torch.randn(3, 4, 3, 3).half().transpose(0, 1))  # strides survive
    found = read_state(scripted(tmp_path / "model.pt", module))
    wanted = module.state_dict()
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("never-made",)


def test_nothing_else_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("evil.pt", "w") as archive:
        archive.writestr("evil/constants.pkl", b"")
        archive.writestr("evil/data.pkl", pickle.dumps(Evil(), protocol=2))
    with pytest.raises(WeightsError, match=r"evil.pt holds more than weights and was refused.*posix.mkdir"):
        read_state(tmp_path / "evil.pt")
    assert not (tmp_path / "never-made").exists()


def test_a_damaged_archive_is_refused(tmp_path):
    path = scripted(tmp_path / "model.pt", nn.Linear(2, 2))
    broken = tmp_path / "broken.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(broken, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data[:3] if "/data/" in name else data)
    with pytest.raises(WeightsError, match=r"broken.pt is not a whole PyTorch file \(the storage 0 has 3 bytes"):
        read_state(broken)
