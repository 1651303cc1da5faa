"""What a person brings along: a loss, callbacks that end the run, a frozen backbone, a script for two processes."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

import nexus
from nexus.models.cv import MAE

X = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(X[:, :, None, None], (X[:, 0] > 0).long())
SETTINGS = {"epochs": 3, "batch_size": 16, "lr": 0.05, "log_every": 1, "progress": "off"}


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 2))


def test_a_loss_of_ones_own_is_what_is_trained(tmp_path):
    seen = []

    def hinge(logits, labels):
        seen.append((logits.shape, labels.dtype))
        return F.multi_margin_loss(logits, labels)

    run = nexus.fit(linear(), (DATA, DATA), loss=hinge, run_dir=tmp_path / "a", **SETTINGS)
    plain = nexus.fit(linear(), (DATA, DATA), run_dir=tmp_path / "b", **SETTINGS)
    assert seen[0] == (torch.Size([16, 2]), torch.int64)
    first = [next(line for line in one.history if line["kind"] == "train")["loss"] for one in (run, plain)]
    assert first[0] != first[1]
    assert run.metrics["top1"] > 0.8
    assert not torch.equal(run.model[1].weight, plain.model[1].weight)
    assert not torch.equal(run.model[1].weight, linear()[1].weight)


def test_cross_entropy_as_a_loss_is_the_usual_run(tmp_path):
    given = nexus.fit(linear(), (DATA, DATA), loss=nn.CrossEntropyLoss(), run_dir=tmp_path / "a", **SETTINGS)
    usual = nexus.fit(linear(), (DATA, DATA), run_dir=tmp_path / "b", **SETTINGS)
    assert torch.equal(given.model[1].weight, usual.model[1].weight)


@pytest.mark.parametrize(
    ("loss", "more", "message"),
    [
        (
            lambda logits, labels: F.cross_entropy(logits, labels, reduction="none"),
            {},
            r"gives a tensor \(16,\); it must give a sc",
        ),
        (lambda logits, labels: 3.0, {}, r"The loss gives a float; it must give a scalar tensor"),
        ("focal", {}, r"loss is 'focal'; it is called with logits and labels"),
        (nn.CrossEntropyLoss(), {"label_smoothing": 0.1}, r"label_smoothing or class_weights, which it does not see"),
    ],
)
def test_wrong_losses_are_named(loss, more, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        nexus.fit(linear(), (DATA, DATA), loss=loss, run_dir=tmp_path / "run", **SETTINGS, **more)


def test_kinds_that_make_their_losses_say_so(tmp_path):
    tiny = {"image_size": 16, "patch_size": 8, "embed_dim": 16, "num_layers": 1, "num_heads": 2, "decoder_dim": 16,
            "decoder_num_layers": 1, "decoder_num_heads": 2}  # fmt: skip
    model = MAE(tiny)
    model.preprocessing = nexus.Preprocessing(image_size=(16, 16))
    images = TensorDataset(torch.rand(16, 3, 16, 16), torch.zeros(16, dtype=torch.long))
    with pytest.raises(ValueError, match=r"models for masked-image-modeling make their own; leave it out"):
        nexus.fit(
            model, images, loss=nn.CrossEntropyLoss(), run_dir=tmp_path / "run", epochs=1, batch_size=8, progress="off"
        )


def test_a_callback_ends_the_run_which_is_then_finished(tmp_path):
    def enough(record):
        if record["kind"] == "train" and record["step"] == 4:
            raise StopIteration

    run = nexus.fit(linear(), (DATA, DATA), callbacks=[enough], run_dir=tmp_path / "run", **SETTINGS)
    assert run.step == run.history[-1]["step"] == 4
    assert (tmp_path / "run" / "model").is_dir()
    assert nexus.evaluate(run.model, DATA).metrics["top1"] >= 0


def test_a_callback_ends_it_after_a_validation(tmp_path):
    seen = []

    def first_validation(record):
        seen.append(record["kind"])
        if record["kind"] == "val":
            raise StopIteration

    run = nexus.fit(
        linear(), (DATA, DATA), callbacks=[first_validation, lambda record: None], run_dir=tmp_path / "run", **SETTINGS
    )
    assert seen.count("val") == 1
    assert run.history[-1]["kind"] == "val"
    assert run.step == 6


def test_a_frozen_backbone_does_not_move(tmp_path):
    model = nexus.create_model("resnet18", hidden_dim=4, num_classes=2)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    before = {name: value.clone() for name, value in model.named_parameters()}
    images = TensorDataset(torch.rand(32, 3, 32, 32), torch.arange(32) % 2)
    run = nexus.fit(model, images, epochs=1, batch_size=8, lr=0.1, run_dir=tmp_path / "run", progress="off")
    moved = {name for name, value in run.model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"head.weight", "head.bias"}


SCRIPT = """
import sys, torch
from torch import nn
from torch.utils.data import TensorDataset
import nexus

x = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
data = TensorDataset(x[:, :, None, None], (x[:, 0] > 0).long())
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))

def enough(record):
    if record["kind"] == "train" and record["step"] == 9:
        raise StopIteration

run = nexus.fit(model, (data, data), loss=nn.CrossEntropyLoss(), callbacks=[enough], epochs=3, batch_size=16, lr=0.05,
                log_every=1, device="cpu", progress="off", run_dir=sys.argv[1])
"""


@pytest.mark.slow
def test_a_script_of_ones_own_on_two_processes_is_the_run_of_one(tmp_path):
    (tmp_path / "train.py").write_text(textwrap.dedent(SCRIPT))
    one = [sys.executable, "train.py", "one"]
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py", "two"]
    for command in (one, two):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
    first, second = (nexus.training.load_recipe(tmp_path / name / "recipe.yaml") for name in ("one", "two"))
    assert first == second
    from nexus.visualization.curves import read_metrics

    alone, together = (read_metrics(tmp_path / name) for name in ("one", "two"))
    assert [line["step"] for line in alone] == [line["step"] for line in together]
    assert alone[-1]["step"] == 9
    for a, b in zip(alone, together):
        assert np.allclose([a[key] for key in a if key != "kind"], [b[key] for key in a if key != "kind"], atol=1e-6)
