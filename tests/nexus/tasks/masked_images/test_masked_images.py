"""Masked-image pre-training: losses, figures that do not depend on chance, pictures, and the encoder afterwards."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nexus.core.preprocessing import Preprocessing
from nexus.models.cv import MAE, VisionTransformer
from nexus.models.registry import create_model
from nexus.predict import Predictor
from nexus.tasks import MaskedImageTask, get_task, task_name
from nexus.training import Trainer, load_recipe

TINY = {
    "image_size": 16,
    "patch_size": 4,
    "embed_dim": 16,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_dim": 8,
    "decoder_num_layers": 1,
    "decoder_num_heads": 2,
    "norm_pix_loss": False,
}


@pytest.fixture
def model() -> MAE:
    torch.manual_seed(0)
    model = MAE(TINY).eval()
    model.preprocessing = Preprocessing(image_size=(16, 16), resize="squash", mean=(0.5,) * 3, std=(0.25,) * 3)
    return model


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return {"images": torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)), "index": torch.arange(3)}


def test_a_masked_autoencoder_has_this_task_with_and_without_a_card(model):
    assert task_name(model) == "masked-image-modeling"
    assert task_name(create_model("mae_vit_base_patch16_224", **TINY)) == "masked-image-modeling"
    assert isinstance(get_task("masked-image-modeling"), MaskedImageTask)


def test_losses_are_the_models_own(model, batch):
    torch.manual_seed(3)
    _, losses = MaskedImageTask().losses(model, batch)
    torch.manual_seed(3)
    assert torch.equal(losses["reconstruction"], model(batch["images"])["losses"]["reconstruction"])
    with pytest.raises(ValueError, match=r"VisionTransformer gives logits.*a model for masked-image-modeling gives"):
        MaskedImageTask().losses(model.to_classifier(2), batch)


def test_masks_of_measuring_follow_the_place_in_the_data(model, batch):
    task = MaskedImageTask()
    together = task.predict(model, batch)["mask"]
    swapped = task.predict(model, {name: value[[2, 0, 1]] for name, value in batch.items()})["mask"]
    assert torch.equal(together[[2, 0, 1]], swapped)
    assert not torch.equal(together[0], together[1])


def test_figures_are_those_of_the_definition(model, batch):
    task = MaskedImageTask()
    whole, first, second = task.metrics(), task.metrics(), task.metrics()
    outputs = task.predict(model, batch)
    whole.update(outputs, batch)
    for metrics, part in ((first, slice(0, 1)), (second, slice(1, 3))):
        rows = {name: value[part] for name, value in batch.items()}
        metrics.update(task.predict(model, rows), rows)
    first.state()["sums"] += second.state()["sums"]  # as synchronize does
    hidden = outputs["mask"].bool()
    target = model.patchify(batch["images"])[hidden].double().numpy()
    error = ((outputs["predictions"][hidden].detach().double().numpy() - target) ** 2).mean()
    assert whole.compute() == pytest.approx({"explained": 1 - error / target.var(), "loss": error})
    assert first.compute() == pytest.approx(whole.compute())
    with pytest.raises(ValueError, match="not one hidden patch was seen"):
        task.metrics().compute()


def test_what_is_painted_perfectly_is_explained_wholly(model, batch):
    task = MaskedImageTask()
    metrics = task.metrics()
    outputs = task.predict(model, batch)
    metrics.update(outputs | {"predictions": outputs["target"]}, batch)
    assert metrics.compute() == {"explained": 1.0, "loss": 0.0}


def test_a_picture_shows_what_was_seen_and_what_was_painted(model):
    image = np.full((16, 16, 3), 200, dtype=np.uint8)
    (result,) = Predictor(model)(image)
    assert result.hidden.mean() == 0.75
    picture = np.asarray(result.draw())
    assert picture.shape[1] > 3 * 112
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert (200, 200, 200) in colours  # the image
    assert (128, 128, 128) in colours  # what was hidden
    assert json.loads(json.dumps(result.to_json())) == {"path": "image", "loss": result.loss, "hidden": 0.75}
    assert result.to_rows() == [result.to_json()]
    seen = result.hidden[None].expand(3, -1, -1) == 0
    assert torch.equal(result.painted[seen], result.image[seen])


def test_pre_training_a_recipe_then_reading_its_encoder(tmp_path):
    recipe = load_recipe("digits/mae_tiny", ["training.epochs=2", "training.device=cpu", "schedule.warmup_epochs=0"])
    result = Trainer(recipe, tmp_path, progress="off").fit()
    losses = [record["loss"] for record in result.history if record["kind"] == "train"]
    assert losses[-1] < losses[0]
    assert 0 < result.metrics["explained"] < 1
    pretrained = MAE.from_pretrained(tmp_path / "model")
    assert task_name(pretrained) == "masked-image-modeling"
    assert pretrained.preprocessing == recipe.data.preprocessing
    classifier = pretrained.to_classifier(10)
    config = classifier.config.to_dict()
    read = VisionTransformer.from_pretrained(tmp_path / "model" / "model.safetensors", **config)
    assert torch.equal(read.blocks[3].attn.qkv.weight, pretrained.blocks[3].attn.qkv.weight)
    assert read(torch.zeros(1, 1, 8, 8))["logits"].shape == (1, 10)


def test_labels_cannot_be_smoothed_where_there_are_none(tmp_path):
    recipe = load_recipe("digits/mae_tiny", ["training.label_smoothing=0.1"])
    with pytest.raises(
        ValueError, match=r"label_smoothing is 0\.1, and masked-image-modeling has nothing that it is for"
    ):
        Trainer(recipe, tmp_path, progress="off").fit()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_pre_training_helps_where_labels_are_few(tmp_path):
    path = Path(__file__).resolve().parents[4] / "benchmarks" / "mae_digits.py"
    spec = importlib.util.spec_from_file_location("mae_digits", path)
    bench = importlib.util.module_from_spec(spec)
    sys.modules["mae_digits"] = bench
    spec.loader.exec_module(bench)
    pretrained = bench.pretrain(tmp_path / "mae", [])
    train, held_out = bench.load_dataset("digits", "train"), bench.load_dataset("digits", "val")
    for seed in (0, 1):
        labelled = bench.draw_labels(train, 10, seed)
        recipe = bench.recipe_of([], seed)
        arms = zip(bench.encoders(pretrained, recipe, seed), ("tuned", "scratch"))
        tuned, scratch = (bench.accuracy(m, labelled, recipe, held_out, tmp_path / f"{n}{seed}") for m, n in arms)
        assert tuned > scratch + 0.05
