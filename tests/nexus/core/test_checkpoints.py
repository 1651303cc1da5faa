"""Checkpoints of training programs: the model's weights are found wherever they are kept, or two places are named."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import nexus
from nexus.core.files import WeightsError, read_state
from nexus.core.loading import load_weights

SMALL = {"hidden_dim": 4, "num_classes": 5}


@pytest.fixture(scope="module")
def weights():
    """A small model's weights, and others of the same names."""
    state = nexus.create_model("resnet18", **SMALL).state_dict()
    return state, {key: value + 1 if value.is_floating_point() else value for key, value in state.items()}


def under(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def lightning(state):
    """What Lightning saves of a LightningModule whose network is `model` and whose loss has a weight."""
    return {
        "state_dict": {**under("model.", state), "criterion.weight": torch.ones(5)},
        "pytorch-lightning_version": "2",
    }


CASES = {
    "DataParallel": lambda state, other: under("module.", state),
    "torch.compile": lambda state, other: under("_orig_mod.", state),
    "compiled in DistributedDataParallel": lambda state, other: {
        "model": under("module._orig_mod.", state),
        "epoch": 3,
    },
    "AveragedModel": lambda state, other: {"n_averaged": torch.tensor(3), **under("module.", state)},
    "AveragedModel beside a model": lambda state, other: {
        "model": other,
        "model_ema": {"n_averaged": torch.tensor(3), **under("module.", state)},
    },
    "timm": lambda state, other: {
        "state_dict": other,
        "state_dict_ema": state,
        "optimizer": {"state": {0: torch.ones(3)}},
    },
    "Lightning": lambda state, other: lightning(state),
    "Lightning with another name": lambda state, other: {
        "state_dict": {**under("backbone_net.", state), "loss_fn.weight": torch.ones(5), "acc.total": torch.zeros(())}
    },
    "Lightning with an average": lambda state, other: {
        "state_dict": {
            **under("model.", other),
            **under("ema_model.module.", state),
            "ema_model.n_averaged": torch.ones(()),
        }
    },
    "a place of one's own": lambda state, other: {"run": {"student": state}, "lr": 0.1},
    "an optimizer by names": lambda state, other: {"model": state, "optimizer": {"exp_avg": other}},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["w.pth", "w.ckpt", "W.PTH", "w.Pt"])
def test_weights_are_found(tmp_path, weights, case, name):
    torch.save(CASES[case](*weights), tmp_path / name)
    model = nexus.create_model("resnet18", **SMALL)
    load_weights(model, tmp_path / name)
    assert all(torch.equal(value, weights[0][key]) for key, value in model.state_dict().items())


def test_places_that_nothing_tells_apart_are_named(tmp_path, weights):
    torch.save({"student": weights[0], "teacher": weights[1]}, tmp_path / "w.pth")
    model = nexus.create_model("resnet18", **SMALL)
    with pytest.raises(
        WeightsError, match=r"w.pth holds the weights more than once: 'student' and 'teacher' fit equally"
    ):
        load_weights(model, tmp_path / "w.pth")


def test_a_real_averaged_model(tmp_path):
    model = nn.Linear(2, 3)
    torch.save(AveragedModel(model).state_dict(), tmp_path / "w.pt")
    assert read_state(tmp_path / "w.pt").keys() == {"weight", "bias"}


def test_a_checkpoint_that_holds_itself_ends(tmp_path):
    content = {"epoch": 3}
    content["model"] = content["state_dict"] = content
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w.pth holds no weights; its content is a mapping with 'epoch'"):
        read_state(tmp_path / "w.pth")
