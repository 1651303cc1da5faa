"""A run that is stopped anywhere goes on as if it had not been."""

import math
import os
import random
import shutil
import signal
import time

import pytest
import torch

from nexus.training import CheckpointError, Interrupted, Trainer, TrainingError
from nexus.training.assembly import make_model

SIGKILL = -signal.SIGKILL


@pytest.fixture(scope="module")
def recipe(small):
    return small.recipe(training={"ema": 0.9, "clip_norm": 1.0, "accumulate": 2}, augment={"mixup": 0.2})


@pytest.fixture(scope="module")
def uninterrupted(small, recipe, tmp_path_factory):
    """The folder of the run that nothing stopped."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    process = small.start(folder, recipe)
    process.join()
    assert process.exitcode == 0
    return folder


def assert_same_run(folder, other):
    assert (folder / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
    weights, expected = (path / "model" / "model.safetensors" for path in (folder, other))
    assert weights.read_bytes() == expected.read_bytes()


def test_run_is_what_it_should_be(small, uninterrupted):
    records = small.read_metrics(uninterrupted)
    assert [r["step"] for r in records if r["kind"] == "train"] == [3, 6, 8, 9, 12, 15, 16, 18, 21, 24]
    assert [r["epoch"] for r in records if r["kind"] == "val"] == [1, 2, 3]
    assert all(r["gradient_norm"] > 0 for r in records if r["kind"] == "train")


# In the weights of the first checkpoint and before its rename; in the second one's manifest and after its rename.
@pytest.mark.parametrize("flush", [4, 8, 13, 15])
def test_killed_while_writing_a_checkpoint(small, recipe, uninterrupted, tmp_path, flush):
    process = small.start(tmp_path / "run", recipe, die_at_flush=flush)
    process.join()
    assert process.exitcode == SIGKILL
    process = small.start(tmp_path / "run", recipe)
    process.join()
    assert process.exitcode == 0
    assert_same_run(tmp_path / "run", uninterrupted)
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_thirty_random_moments(small, tmp_path, recipe):
    recipe = recipe.replace(training=recipe.training.replace(epochs=12))
    started = time.monotonic()
    process = small.start(tmp_path / "whole", recipe)
    process.join()
    seconds = time.monotonic() - started
    rng, kills, finished = random.Random(0), 0, False
    folder = tmp_path / "killed"
    while kills < 30 or not finished:
        if finished:  # fewer than 30 kills hit a living run: begin the next one
            assert_same_run(folder, tmp_path / "whole")
            shutil.rmtree(folder)
        process = small.start(folder, recipe)
        process.join(rng.uniform(0.0, seconds / 4) if kills < 30 else None)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        kills += process.exitcode == SIGKILL
        finished = process.exitcode == 0
        assert process.exitcode in (0, SIGKILL)
    assert_same_run(folder, tmp_path / "whole")


class Stop:
    """A callback that sends this process a signal at a step."""

    def __init__(self, number, step):
        self.number, self.step = number, step

    def __call__(self, record):
        if record["kind"] == "train" and record["step"] == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("number", "step"), [(signal.SIGTERM, 12), (signal.SIGINT, 16)])  # 16 ends an epoch
def test_signal_saves_and_ends(small, recipe, uninterrupted, tmp_path, number, step):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"Stopped by {number.name}; the checkpoint .*step-000000{step} is saved"):
        Trainer(recipe, tmp_path / "run", **small.data(), progress="off", callbacks=[Stop(number, step)]).fit()
    assert signal.getsignal(number) is before
    result = Trainer(recipe, tmp_path / "run", **small.data(), resume=True, progress="off").fit()
    assert_same_run(tmp_path / "run", uninterrupted)
    assert result.history == small.read_metrics(uninterrupted)


def stopped_run(small, recipe, folder, step=12):
    with pytest.raises(Interrupted):
        Trainer(recipe, folder, **small.data(), progress="off", callbacks=[Stop(signal.SIGTERM, step)]).fit()


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest"])
def test_corrupt_newest_checkpoint_falls_back(small, recipe, uninterrupted, tmp_path, damage):
    stopped_run(small, recipe, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "step-00000012"
    match damage:
        case "flip":
            flip(newest / "state.pt")
        case "truncate":
            os.truncate(newest / "state.pt", 1000)
        case "remove":
            (newest / "metrics.jsonl").unlink()
        case "manifest":
            (newest / "manifest.json").write_text("[1")
    with pytest.warns(UserWarning, match=r"step-00000012 is damaged \(.+\); falling back to the one before"):
        Trainer(recipe, tmp_path / "run", **small.data(), resume=True, progress="off").fit()
    assert_same_run(tmp_path / "run", uninterrupted)


def test_all_checkpoints_corrupt(small, recipe, tmp_path):
    stopped_run(small, recipe, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("step-*/state.pt"):
        flip(path)
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(CheckpointError, match=r"Every checkpoint in .* is damaged"),
    ):
        Trainer(recipe, tmp_path / "run", **small.data(), resume=True, progress="off").fit()


def test_finished_run_is_only_reported(small, recipe, uninterrupted, tmp_path):
    shutil.copytree(uninterrupted, tmp_path / "run")
    result = Trainer(recipe, tmp_path / "run", **small.data(), resume=True, progress="off").fit()
    assert result.history == small.read_metrics(uninterrupted)
    assert_same_run(tmp_path / "run", uninterrupted)


def test_other_recipe_is_refused(small, recipe, uninterrupted):
    changed = recipe.replace(
        optimizer=recipe.optimizer.replace(lr=1e-4),
        model=recipe.model.replace(config={**recipe.model.config, "num_layers": 3}),
        training=recipe.training.replace(keep_checkpoints=5),
    )
    with pytest.raises(
        ValueError, match=r"these keys differ: model\.config\.num_layers, optimizer\.lr\. Put them back"
    ):
        Trainer(changed, uninterrupted, **small.data(), resume=True, progress="off").fit()


def test_folder_of_another_run_is_refused(small, recipe, uninterrupted):
    with pytest.raises(ValueError, match="holds a run already; resume it"):
        Trainer(recipe, uninterrupted, **small.data(), progress="off").fit()


def test_nan_stops_and_keeps_the_last_good_checkpoint(small, tmp_path):
    recipe, data = small.recipe(training={"log_every": 1}), small.data()
    model = make_model(recipe, data["train_data"])

    def poison(record):
        if record["step"] == 10:
            torch.nn.init.constant_(model.head.weight, float("nan"))

    with pytest.raises(TrainingError) as raised:
        Trainer(recipe, tmp_path / "run", model=model, **data, progress="off", callbacks=[poison]).fit()
    message = str(raised.value)
    assert "cross_entropy is nan at step 11 (epoch 2, learning rate" in message
    assert "Lower optimizer.lr" in message
    assert "Checkpoints up to step 9 are kept" in message
    assert not (tmp_path / "run" / "model").exists()
    assert {"step-00000008", "step-00000009"} <= {p.name for p in (tmp_path / "run" / "checkpoints").iterdir()}
    assert all(math.isfinite(r["loss"]) for r in small.read_metrics(tmp_path / "run"))


def test_weights_that_broke_are_not_saved(small, tmp_path):
    recipe, data = small.recipe(), small.data()
    model = make_model(recipe, data["train_data"])

    def poison(record):
        if record["step"] == 6:  # the checkpoint of step 6 comes next
            torch.nn.init.constant_(model.head.bias, float("inf"))

    with pytest.raises(
        TrainingError, match=r"The weight 'head.bias' is nan at step 6 \(epoch 1.* up to step 3 are kept"
    ):
        Trainer(recipe, tmp_path / "run", model=model, **data, progress="off", callbacks=[poison]).fit()
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000003"]
