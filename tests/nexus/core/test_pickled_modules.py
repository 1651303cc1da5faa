"""Pickled model objects: their weights are read without their classes, and code in them is refused."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from nexus.core.files import WeightsError, read_state
from nexus.core.pickles import InertModule

WRITER = """
import sys, types, torch
from torch import nn
package, inner = types.ModuleType("ultralytics"), types.ModuleType("ultralytics.nn")
sys.modules.update({"ultralytics": package, "ultralytics.nn": inner})
class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.register_buffer("grid", torch.ones(2), persistent=False)
        self.names, self.stride, self.seen = {0: "a"}, torch.tensor([8.0]), {1, 2}
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(Conv(), nn.Linear(2, 2), nn.SiLU())
        self.tied = self.model[1]
for one in (Conv, Model):
    one.__module__, one.__qualname__ = "ultralytics.nn", one.__name__
    setattr(inner, one.__name__, one)
torch.manual_seed(0)
model = Model()
torch.save(model.state_dict(), "state.pth")
torch.save({"epoch": 3, "model": model.half(), "ema": None, "date": "today"}, "checkpoint.pt")
torch.save(model.float(), "model.pt")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files that a process wrote in which the classes exist; here they do not."""
    folder = tmp_path_factory.mktemp("pickled")
    subprocess.run([sys.executable, "-c", textwrap.dedent(WRITER)], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("name", ["checkpoint.pt", "model.pt"])
def test_the_state_dict_is_that_of_the_model(folder, name):
    assert "ultralytics" not in sys.modules
    ours, theirs = read_state(folder / name), read_state(folder / "state.pth")
    assert ours.keys() == theirs.keys()
    assert not any(key.endswith("grid") for key in ours)
    for key, value in ours.items():
        torch.testing.assert_close(value.to(theirs[key].dtype), theirs[key], atol=1e-3, rtol=1e-3)
    assert "ultralytics" not in sys.modules


class Evil:
    def __reduce__(self):
        return os.mkdir, ("caught",)


@pytest.mark.parametrize("where", ["checkpoint", "attribute"])
def test_code_beside_a_model_is_refused_and_not_run(tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    model = nn.Linear(2, 2)
    if where == "attribute":
        model.extra = Evil()
    torch.save({"model": model, **({"extra": Evil()} if where == "checkpoint" else {})}, "evil.pt")
    with pytest.raises(WeightsError, match=r"evil\.pt holds more than weights and was refused; nothing in it was run"):
        read_state(tmp_path / "evil.pt")
    assert not (tmp_path / "caught").exists()


def test_an_object_without_weights_is_refused(tmp_path):
    torch.save({"model": nn.Identity}, tmp_path / "class.pt")
    with pytest.raises(WeightsError, match=r"class\.pt"):
        read_state(tmp_path / "class.pt")


def test_a_holder_holds_and_does_nothing():
    holder = InertModule()
    holder.__setstate__({"weight": 1})
    assert vars(holder) == {"weight": 1}
