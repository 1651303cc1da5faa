"""`batch_size=auto`: as much as fits, counted by what a step really keeps."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from typer.testing import CliRunner

import nexus
from nexus.cli.commands import app
from nexus.training import batch_size
from nexus.training.fit import make_trainer

DATA = TensorDataset(torch.rand(400, 3, 8, 8), torch.randint(2, (400,)))


class Net(nn.Module):
    """Keeps the input of each of two layers: 3 * 64 and 4 * 64 numbers an item, and a mask of its ReLU."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, images):
        return self.head(self.norm(self.conv(images)).relu().mean(dim=(2, 3)))


def chosen(monkeypatch, free, **settings):
    monkeypatch.setattr(batch_size, "free_memory", lambda device: free)
    trainer = make_trainer(Net(), DATA, progress="off", overrides=settings | {"batch_size": "auto"})
    return trainer.recipe.training.batch_size


def bytes_of_an_item():
    """What is kept for the backward pass of one item, counted by hand: inputs of convolution, norm, ReLU and head."""
    return 4 * (3 * 64 + 4 * 64 + 4 * 64 + 4)


@pytest.mark.parametrize("items", [8, 20, 63])
def test_as_many_items_as_fit(monkeypatch, items):
    weights = 4 * 4 * sum(p.numel() for p in Net().parameters())
    free = int((weights + items * bytes_of_an_item()) / 0.6)
    size = chosen(monkeypatch, free)
    assert 0.4 * items <= size <= 1.2 * items  # a power of two; the count by hand is a little more than torch keeps
    assert chosen(monkeypatch, 4 * free) == min(4 * size, 64)


def test_at_most_a_quarter_of_the_data(monkeypatch):
    assert chosen(monkeypatch, 1 << 40) == 64


def test_a_multiple_of_the_accumulated_parts(monkeypatch):
    assert chosen(monkeypatch, 1 << 40, accumulate=3) == 96


def test_too_little_memory_is_told(monkeypatch):
    with pytest.raises(ValueError, match="Not one item fits into the free memory"):
        chosen(monkeypatch, 1000)


def test_the_model_is_left_as_it_was(monkeypatch):
    model = Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setattr(batch_size, "free_memory", lambda device: 1 << 30)
    make_trainer(model, DATA, progress="off", overrides={"batch_size": "auto"})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_run_is_trained_with_it_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(batch_size, "free_memory", lambda device: 1 << 40)
    result = nexus.fit(Net(), (DATA, DATA), batch_size="auto", epochs=1, run_dir=tmp_path / "run", progress="off")
    assert "batch_size: 64" in (tmp_path / "run" / "recipe.yaml").read_text()
    assert result.history[-1]["step"] == 400 // 64


def test_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(batch_size, "free_memory", lambda device: 1 << 40)
    words = ["train", "digits/vit_tiny", "batch_size=auto", "--dry-run", "--run-dir", str(tmp_path / "run")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "256 items each" in result.output
