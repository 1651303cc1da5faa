"""One process works in a run's folder at a time, and a start that fails leaves it free."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from nexus.cli import main
from nexus.training import Interrupted, Trainer
from nexus.training.run_folder import LOCK, RunFolder, RunFolderError, is_taken, write_model

HOLD = """
import sys, time
from pathlib import Path
from nexus.training.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])):
    print("held", flush=True)
    {then}
    time.sleep(60)
"""


def hold(folder, then=""):
    """A process that holds a folder."""
    command = [sys.executable, "-c", HOLD.format(then=then), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("resume", [False, True])
def test_second_start_is_told_apart_at_once(small, tmp_path, resume):
    process = hold(tmp_path / "run")
    try:
        started = time.monotonic()
        with pytest.raises(RunFolderError, match=f"run is in use by process {process.pid} on .*; wait until it ends"):
            Trainer(small.recipe(), tmp_path / "run", **small.data(), resume=resume, progress="off").fit()
        assert time.monotonic() - started < 2
    finally:
        process.kill()
        process.communicate()


def test_lock_ends_with_its_process(tmp_path):
    process = hold(tmp_path / "run")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with RunFolder(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / ".owner.json").read_text())["pid"] == os.getpid()


def test_a_worker_that_outlives_a_killed_run_for_a_moment(tmp_path):
    """A forked worker has the lock's file open, too."""
    process = hold(tmp_path / "run", "import os; os.fork() or (time.sleep(2), os._exit(0))")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with RunFolder(tmp_path / "run"):
        pass
    process.communicate()


def test_twice_in_one_process(tmp_path):
    with RunFolder(tmp_path / "run"), pytest.raises(RunFolderError, match=f"process {os.getpid()} on"):
        RunFolder(tmp_path / "run").__enter__()
    assert not (tmp_path / "run").exists()


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"file/run cannot hold a run: Not a directory\. .*another run_dir"):
        RunFolder(tmp_path / "file" / "run").__enter__()


def impossible(small):
    """A recipe whose model cannot be made."""
    return small.recipe(model={"config": {**small.recipe().model.config, "drop_path_rate": 7.0}})


def test_failed_start_leaves_the_folder_free(small, tmp_path):
    class Broken(small.Stripes):
        def __getitem__(self, index):
            raise ValueError("stripes[0] is broken")

    data = small.data()
    broken = {**data, "train_data": Broken(139, 0)}
    with pytest.raises(ValueError, match="is broken"):
        Trainer(small.recipe(), tmp_path / "deep" / "run", **broken, progress="off").fit()
    assert not (tmp_path / "deep").exists()
    with pytest.raises(ValueError, match=r"DropPath is 7\.0"):
        Trainer(impossible(small), tmp_path / "run", **data, progress="off").fit()
    assert not (tmp_path / "run").exists()


def test_failed_start_keeps_what_is_not_its_own(small, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    broken = impossible(small)
    with pytest.raises(ValueError, match=r"DropPath is 7\.0"):
        Trainer(broken, tmp_path, **small.data(), progress="off").fit()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_start_after_one_that_came_to_no_checkpoint(small, tmp_path):
    """Killed before its first checkpoint, it left a recipe and lines of metrics; another recipe may have the folder."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("training: {epochs: 7}\n")
    (run / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "epoch": 0.1, "loss": 2.0}\n')
    result = Trainer(small.recipe(training={"epochs": 2}), run, **small.data(), progress="off").fit()
    assert is_taken(run)
    assert result.history == small.read_metrics(run)
    assert result.history[-1]["epoch"] == 2
    assert {path.name for path in run.iterdir()} == {
        "recipe.yaml",
        "metrics.jsonl",
        "result.json",
        "checkpoints",
        "model",
    }
    with pytest.raises(RunFolderError, match="holds a run already; resume it"):
        Trainer(small.recipe(training={"epochs": 2}), run, **small.data(), progress="off").fit()
    assert not (run / LOCK).exists()


class Stop:
    """A callback that asks this process to stop at a step."""

    def __call__(self, record):
        if record["kind"] == "train" and record["step"] == 12:
            os.kill(os.getpid(), signal.SIGTERM)


def stopped(small, folder, **changes):
    with pytest.raises(Interrupted):
        Trainer(small.recipe(**changes), folder, **small.data(), progress="off", callbacks=[Stop()]).fit()


def test_more_epochs_and_another_rate_on_resume(small, tmp_path, capsys):
    stopped(small, tmp_path)
    longer = small.recipe(training={"epochs": 4}, optimizer={"lr": 1e-3})
    result = Trainer(longer, tmp_path, **small.data(), resume=True, progress="lines").fit()
    said = capsys.readouterr().err
    assert "The run goes on at step 12 with other values of optimizer.lr, training.epochs.\n" in said
    assert result.history[-1]["epoch"] == 4
    rates = {record["step"]: record["lr"] for record in result.history if record["kind"] == "train"}
    assert max(rate for step, rate in rates.items() if step > 12) < 1e-3 < rates[12]
    assert rates[32] < rates[27] < rates[15]


def test_what_decides_the_model_is_refused_on_resume(small, tmp_path):
    stopped(small, tmp_path)
    other = small.recipe(training={"epochs": 4, "batch_size": 32})
    with pytest.raises(
        ValueError, match=r"differ: training\.batch_size, training\.epochs\. Put them back, or use anot"
    ):
        Trainer(other, tmp_path, **small.data(), resume=True, allow_changes=True, progress="off").fit()


@pytest.fixture
def nexus(monkeypatch, capsys, tmp_path):
    """The command line within this process: from arguments to exit status and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nexus", "train", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, capsys.readouterr().err

    return run


def test_resume_with_only_the_folder(nexus, tmp_path):
    settings = ["digits/vit_tiny", "training.epochs=1", "schedule.warmup_epochs=0", "training.device=cpu"]
    tiny = ["model.config.embed_dim=16", "model.config.num_heads=2", "model.config.num_layers=1"]
    assert nexus(*settings, *tiny, "--run-dir", "run")[0] == 0
    assert nexus("--resume", "-o", "run")[0] == 0
    status, said = nexus("--resume", "-o", "run", "seed=2")
    assert (status, len(said.splitlines())) == (2, 1)
    assert "keys differ: training.seed" in said
    assert "Only training.epochs, training.steps" in said
    status, said = nexus("--resume", "run", "epochs=2")
    assert status == 0
    assert "with other values of training.epochs.\n" in said
    assert '"epoch": 2,' in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert nexus("--resume", "-o", "none") == (2, "nexus: none holds no run to go on with: there is no recipe.yaml.\n")


def test_two_processes_share_a_refusal(small, tmp_path):
    """With torchrun the main process alone looks; the others must not wait for it."""
    from tests.nexus.training.test_distributed import torchrun_environments

    holder = hold(tmp_path / "run")
    processes = [small.start(tmp_path / "run", small.recipe(), distributed=env) for env in torchrun_environments()]
    for process in processes:
        process.join(60)
    holder.kill()
    holder.communicate()
    assert [process.exitcode for process in processes] == [1, 1]
    assert not torch.distributed.is_initialized()


def test_a_plain_module_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """What writes it may stop in the middle of a file: the weights of before stay, and nothing half-written."""
    write_model(torch.nn.Linear(2, 2), tmp_path)
    file = tmp_path / "model" / "model.safetensors"
    before = file.read_bytes()

    def stop(model, path):
        with open(path, "wb") as part:
            part.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_model", stop)
    with pytest.raises(RunFolderError, match=r"model cannot be written \(No space left on device\)"):
        write_model(torch.nn.Linear(2, 2), tmp_path)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
