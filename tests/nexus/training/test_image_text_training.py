"""Image-text training on two processes and after an interruption: the numbers of one process that was never stopped."""

import csv
import os
import shutil
import socket

import pytest
import torch.multiprocessing as multiprocessing
from PIL import Image

from nexus.training import Trainer, load_recipe

MODEL = {
    "image_size": 8, "patch_size": 4, "embed_dim": 16, "num_layers": 1, "num_heads": 2, "text_dim": 16,
    "text_num_layers": 1, "text_num_heads": 2, "context_length": 8, "vocab_size": 30,
}  # fmt: skip


@pytest.fixture
def captions(tmp_path, transformers):
    """A table of 16 grey squares to train on and 5 held out, which two processes share unevenly."""
    with (tmp_path / "squares.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "caption", "split"])
        for number in range(21):
            Image.new("L", (8, 8), 12 * number).save(tmp_path / f"{number}.png")
            rows.writerow([f"{number}.png", f"grey number {number % 16}", "train" if number < 16 else "val"])
    return tmp_path / "squares.csv"


def recipe_of(captions, name, *changes):
    steps = ["training.epochs=3", "training.batch_size=8", "training.log_every=1", "training.validate_every=1"]
    settings = [*steps, "training.device=cpu", "training.num_threads=1"]
    shape = [f"model.config.{key}={value}" for key, value in MODEL.items()]
    return load_recipe(f"digits/{name}_tiny", [*settings, *shape, f"data.source=captions:{captions}", *changes])


def train(recipe, folder, **settings):
    return Trainer(recipe, folder, progress="off", **settings).fit()


def one_of_two(rank, port, recipe, folder):
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update({**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"})
    train(recipe, folder)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_two_processes_train_on_the_pairs_of_both(captions, small, tmp_path, name):
    """Each image is compared with the texts of both processes: alone with half of them, the loss would be another."""
    recipe = recipe_of(captions, name)
    alone = train(recipe, tmp_path / "alone").history
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = (port, recipe, tmp_path / "together")
    multiprocessing.start_processes(one_of_two, arguments, nprocs=2, start_method="spawn")
    together = small.read_metrics(tmp_path / "together")
    assert len(together) == len(alone) == 9  # two steps and a validation in each of three epochs
    for ours, theirs in zip(together, alone):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_a_run_goes_on_with_the_same_words(captions, tmp_path):
    recipe = recipe_of(captions, "clip", "training.checkpoint_every=1", "training.keep_checkpoints=9")
    whole = train(recipe, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    for folder in (tmp_path / "run" / "checkpoints").glob("step-*"):
        if folder.name > "step-00000003":
            shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "run" / "model")
    again = train(recipe, tmp_path / "run", resume=True)
    assert again.history == whole.history
    assert again.model.files == whole.model.files


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_weights_of_two_towers_are_not_sharded(captions, tmp_path, name):
    with pytest.raises(
        ValueError, match=r"training\.sharding is 'fsdp', which (CLIP|SigLIP) cannot use; 'none' is DDP"
    ):
        train(recipe_of(captions, name, "training.sharding=fsdp"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
