"""Two processes compute what one does with the same global batch."""

import os
import socket
import subprocess
import sys

import pytest
import torch

from nexus.core.module import NexusModule
from nexus.training import Trainer
from nexus.training.recipe_files import save_recipe

QUIET = {"dropout": 0.0, "drop_path_rate": 0.0}


def torchrun_environments():
    """What `torchrun --nproc-per-node 2` sets for its processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]


def run_two(small, folder, recipe, **settings):
    processes = [small.start(folder, recipe, distributed=env, **settings) for env in torchrun_environments()]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    return small.read_metrics(folder)


def quiet_recipe(small, **training):
    config = {**small.recipe().model.config, **QUIET}
    settings = {"log_every": 1, "clip_norm": 1.0, "ema": 0.9, **training}
    return small.recipe(model={"config": config}, training=settings, augment={"mixup": 0.5, "cutmix": 0.5})


@pytest.mark.parametrize(
    "settings", [{}, {"accumulate": 2}, {"sharding": "fsdp"}, {"sharding": "fsdp", "accumulate": 2}]
)
def test_losses_equal_those_of_one_process(small, tmp_path, settings):
    recipe = quiet_recipe(small, **settings)
    alone = Trainer(recipe, tmp_path / "alone", **small.data(), progress="off").fit()
    together = run_two(small, tmp_path / "together", recipe)
    assert len(together) == len(alone.history) == 27
    for ours, theirs in zip(together, alone.history, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6, rel=0)
    images = torch.randn(8, 1, 8, 8)  # not the weights: the gradient of a key's bias is noise, and Adam scales it up
    one, two = (NexusModule.from_pretrained(tmp_path / name / "model")(images) for name in ("alone", "together"))
    torch.testing.assert_close(two["logits"], one["logits"], atol=1e-5, rtol=0)


def test_run_of_two_sharded_processes_goes_on_alone(small, tmp_path):
    long = quiet_recipe(small, sharding="fsdp")
    whole = Trainer(long, tmp_path / "whole", **small.data(), progress="off").fit()
    run_two(small, tmp_path / "run", long)
    for folder in (tmp_path / "run" / "checkpoints").glob("step-*"):
        if folder.name > "step-00000021":
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
    result = Trainer(long, tmp_path / "run", **small.data(), resume=True, progress="off").fit()
    assert [r["step"] for r in result.history] == [r["step"] for r in whole.history]
    assert result.history[-1]["loss"] == pytest.approx(whole.history[-1]["loss"], abs=1e-5)


def test_torchrun(small, tmp_path):
    recipe = quiet_recipe(small, epochs=2)
    save_recipe(recipe, tmp_path / "recipe.yaml")
    (tmp_path / "train.py").write_text(
        "import sys; from nexus.training import Trainer, load_recipe\n"
        "import runpy; small = runpy.run_path(sys.argv[1])\n"
        "Trainer(load_recipe(sys.argv[2]), sys.argv[3], **small['small_data'](), progress='lines').fit()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
    command += [str(os.path.join(os.path.dirname(__file__), "conftest.py")), "recipe.yaml", "run"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("val epoch 2") == 1  # one process speaks
    alone = Trainer(recipe, tmp_path / "alone", **small.data(), progress="off").fit()
    for ours, theirs in zip(small.read_metrics(tmp_path / "run"), alone.history, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6, rel=0)


def test_batch_that_cannot_be_shared(small, tmp_path):
    recipe = small.recipe(training={"batch_size": 18, "accumulate": 4})
    with pytest.raises(ValueError, match=r"batch_size is 18, which 1 processes x 4 .* such as 16"):
        Trainer(recipe, tmp_path / "run", **small.data(), progress="off").fit()
    assert not (tmp_path / "run").exists()


def test_missing_device(small, tmp_path):
    with pytest.raises(ValueError, match=r"training.device is 'gpu'; it must be auto, cpu, cuda or mps"):
        Trainer(small.recipe(training={"device": "gpu"}), tmp_path / "run", **small.data()).fit()
