"""Trackers: what each is told, by stand-ins that have the calls of the packages; TensorBoard itself in test_log."""

import sys
from types import SimpleNamespace

import pytest

import nexus
from nexus.training.loggers import make_loggers

TRAIN = {"kind": "train", "step": 20, "epoch": 0.5, "loss": 1.5, "lr": 0.001}
VAL = {"kind": "val", "step": 20, "epoch": 1, "top1": 0.75}
RECIPE = {"training": {"seed": 3}, "model": {"name": "resnet18"}}
SENT = [(20, {"train/epoch": 0.5, "train/loss": 1.5, "train/lr": 0.001}), (20, {"val/epoch": 1, "val/top1": 0.75})]


class Run:
    """A run of W&B or trackio."""

    def __init__(self, **settings):
        self.settings, self.sent, self.ended = settings, [], 0

    def log(self, numbers, step=None):
        self.sent.append((step, numbers))

    def finish(self):
        self.ended += 1


class Client:
    """MLflow's, as far as it is called; what was written is kept by address."""

    stores: dict = {}

    def __init__(self, tracking_uri):
        self.store = Client.stores.setdefault(tracking_uri, {"experiments": {}, "runs": [], "params": {}, "sent": []})

    def get_experiment_by_name(self, name):
        return self.store["experiments"].get(name)

    def create_experiment(self, name):
        self.store["experiments"][name] = SimpleNamespace(experiment_id="1")
        return "1"

    def search_runs(self, experiments, text):
        return [run for run in self.store["runs"] if text == f"tags.nexus_run = '{run.tags['nexus_run']}'"]

    def create_run(self, experiment, run_name, tags):
        info = SimpleNamespace(run_id=f"run{len(self.store['runs'])}")
        self.store["runs"].append(SimpleNamespace(info=info, tags=tags, name=run_name, ended=0))
        return self.store["runs"][-1]

    def log_param(self, run, key, value):
        self.store["params"][key] = value

    def log_metric(self, run, name, value, step):
        self.store["sent"].append((run, step, name, value))

    def set_terminated(self, run):
        next(one for one in self.store["runs"] if one.info.run_id == run).ended += 1


def send(names, folder):
    for logger in make_loggers(names, folder, RECIPE):
        logger(TRAIN)
        logger(VAL)
        logger.close()


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_runs_of_wandb_and_trackio(name, monkeypatch, tmp_path):
    runs = []
    package = SimpleNamespace(init=lambda **settings: runs.append(Run(**settings)) or runs[-1])
    monkeypatch.setitem(sys.modules, name, package)
    send([name, name], tmp_path / "digits")
    send([name], tmp_path / "digits")
    assert [run.sent for run in runs] == [SENT, SENT]
    assert [run.ended for run in runs] == [1, 1]
    settings = runs[0].settings
    assert (settings["project"], settings["name"], settings["config"]) == ("nexus", "digits", RECIPE)
    assert settings == runs[1].settings  # a resumed run is the same run
    assert settings["resume"] == "allow"
    if name == "wandb":
        assert settings["dir"] == str(tmp_path / "digits")
        send(["wandb"], tmp_path / "other")
        assert runs[2].settings["id"] != settings["id"]


def test_runs_of_mlflow_lie_in_the_folder_unless_an_address_is_set(monkeypatch, tmp_path):
    monkeypatch.setattr(Client, "stores", {})
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    send(["mlflow"], tmp_path)
    send(["mlflow"], tmp_path)
    ((address, store),) = Client.stores.items()
    assert address == f"sqlite:///{(tmp_path / 'mlflow' / 'mlflow.db').resolve()}"
    assert [(run.name, run.ended) for run in store["runs"]] == [(tmp_path.name, 2)]
    assert store["params"] == {"training.seed": 3, "model.name": "resnet18"}
    assert ("run0", 20, "train/loss", 1.5) in store["sent"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker")
    send(["mlflow"], tmp_path)
    assert "http://tracker" in Client.stores


def test_a_tracker_that_fails_is_told_once(monkeypatch, tmp_path):
    class Broken(Run):
        def log(self, numbers, step=None):
            raise ConnectionError("the network\nis gone")

    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=Broken))
    with pytest.warns(UserWarning, match=r"trackio takes no more figures \(the network is gone\)") as told:
        send(["trackio"], tmp_path)
    assert len(told) == 1


def test_what_is_missing_or_refuses_is_said_at_the_start(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"training\.loggers has 'wandb', which needs the package wandb: pip install"):
        make_loggers(["wandb"], tmp_path, RECIPE)

    def init(**settings):
        raise RuntimeError("api_key not configured")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    with pytest.raises(ValueError, match="wandb does not take the run: api_key not configured WANDB_MODE=offline"):
        make_loggers(["wandb"], tmp_path, RECIPE)


def test_a_run_tells_all_its_loggers(monkeypatch, tmp_path, needed):
    needed("tensorboard")
    runs = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **s: runs.append(Run(**s)) or runs[-1]))
    small = {"patch_size": 4, "embed_dim": 16, "num_layers": 1, "num_heads": 2, "image_size": 8, "in_channels": 1}
    result = nexus.fit(
        "vit_tiny_patch16_224",
        "digits",
        config=small,
        epochs=1,
        schedule={"warmup_epochs": 0},
        batch_size=512,
        loggers=["wandb"],
        tensorboard=True,
        run_dir=tmp_path / "run",
        progress="off",
    )
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    told = {name for _, numbers in runs[0].sent for name in numbers}
    assert {"train/loss", "train/lr", "val/top1"} <= told
    assert runs[0].ended == 1
    assert runs[0].sent[-1][1]["val/top1"] == result.metrics["top1"]
    assert runs[0].settings["config"]["training"]["loggers"] == ["wandb"]
    with pytest.raises(ValueError, match="must be one of 'tensorboard', 'wandb', 'mlflow', 'trackio'"):
        nexus.fit("resnet18", "digits", loggers=["wandbb"])
