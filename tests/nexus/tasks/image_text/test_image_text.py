"""Training of image-text models: batches of texts, losses, figures, and what is saved with the model."""

import csv
import json
import math
import socket

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from PIL import Image
from typer.testing import CliRunner

from nexus.cli.commands import app
from nexus.core.preprocessing import Preprocessing
from nexus.data import Loader, eval_transform, load_dataset
from nexus.data.captions import CaptionTransform
from nexus.evaluation import evaluate
from nexus.models.cv import CLIP, SigLIP
from nexus.models.registry import create_model
from nexus.predict import Predictor
from nexus.tasks import ImageTextTask, get_task, task_name
from nexus.tasks.image_text import RetrievalMetrics
from nexus.tasks.image_text.tokenizers import bring_tokenizer, load_tokenizer, templates_of, word_tokenizer
from nexus.training import Trainer, load_recipe

TINY = {
    "image_size": 8, "patch_size": 4, "in_channels": 3, "embed_dim": 16, "num_layers": 1, "num_heads": 2, "text_dim": 16,
    "text_num_layers": 1, "text_num_heads": 2, "context_length": 8, "vocab_size": 30,
}  # fmt: skip
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255,) * 3, "black": (0,) * 3}
PLAIN = Preprocessing(image_size=(8, 8), resize="none", mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture
def captions(tmp_path):
    """A table of squares, each with two sentences."""
    with (tmp_path / "squares.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "caption", "split"])
        for split in ("train", "val"):
            for name, colour in COLOURS.items():
                path = f"{split}-{name}.png"
                Image.new("RGB", (8, 8), colour).save(tmp_path / path)
                rows.writerow([path, f"a {name} square", split])
                rows.writerow([path, f"{name}, and nothing else", split])
    return tmp_path / "squares.csv"


@pytest.fixture(params=[CLIP, SigLIP])
def model(request, transformers):
    torch.manual_seed(0)
    model = request.param(TINY | ({"projection_dim": 12} if request.param is CLIP else {})).eval()
    bring_tokenizer(model, "words", ["a red square", "blue, and nothing else"], ("a {} square",))
    return model


def test_both_models_have_this_task_with_and_without_a_card(model):
    assert task_name(model) == "image-text"
    assert task_name(create_model("clip_vit_base_patch32_224", **TINY)) == "image-text"
    assert isinstance(get_task("image-text"), ImageTextTask)


def test_a_tokenizer_of_words_ends_every_text_with_the_highest_id(transformers):
    tokenizer = word_tokenizer(["A photo of a Cat.", "a dog"])
    assert tokenizer("a cat. bird").input_ids == [3, 4, 2, 1, 8]  # [PAD] [UNK] . a cat dog of photo [END]
    assert tokenizer.decode([7, 6, 3, 5]) == "photo of a dog"


def test_the_tokenizer_is_saved_with_the_model(model, tmp_path):
    model.preprocessing = PLAIN
    again = type(model).from_pretrained(model.save_pretrained(tmp_path / "saved"))
    texts = ["a red square", "something blue"]
    assert torch.equal(load_tokenizer(again)(texts), load_tokenizer(model)(texts))
    assert templates_of(again) == ("a {} square",)
    assert again.files == model.files
    settings = json.loads((tmp_path / "saved" / "config.json").read_text())
    (tmp_path / "saved" / "config.json").write_text(json.dumps({**settings, "files": ["../secret"]}))
    with pytest.raises(ValueError, match=r"names the file '\.\./secret' among files; known are"):
        type(model).from_pretrained(tmp_path / "saved")


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(model):
    words = [f"word{number}" for number in range(40)]
    with pytest.raises(ValueError, match=r"'words' has 43 ids and the model knows 30.*may have vocab_size=43"):
        bring_tokenizer(model, "words", words, ("{}",))


def test_one_sentence_is_drawn_for_training_and_all_count_for_measuring(model, captions):
    data, tokenize = load_dataset(f"captions:{captions}"), load_tokenizer(model)
    assert len(data) == 5
    assert data.captions[0] == ("a red square", "red, and nothing else")
    held_out = CaptionTransform(eval_transform(PLAIN), tokenize, ("{}",), training=False)
    batch = next(iter(Loader(data, held_out, batch_size=3)))
    assert batch["images"].shape == (3, 3, 8, 8)
    assert batch["owners"].tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(batch["tokens"], tokenize([text for own in data.captions[:3] for text in own]))
    training = CaptionTransform(eval_transform(PLAIN), tokenize, ("{}",), training=True)
    drawn = {tuple(next(Loader(data, training, batch_size=5).epoch(e))["tokens"][0].tolist()) for e in range(20)}
    assert drawn == {tuple(row.tolist()) for row in tokenize(data.captions[0])}


def test_the_loss_is_the_models_own_and_clips_scale_stays_below_a_hundred(model):
    images, tokens = torch.randn(2, 3, 8, 8), load_tokenizer(model)(["a red square", "blue"])
    wanted = model(images, tokens, output_losses=True)["losses"]["contrastive"]
    _, losses = ImageTextTask().losses(model, {"images": images, "tokens": tokens})
    torch.testing.assert_close(losses["contrastive"], wanted)
    with torch.no_grad():
        model.logit_scale.fill_(7.0)
    ImageTextTask().losses(model, {"images": images, "tokens": tokens})
    assert model.logit_scale.item() == pytest.approx(math.log(100) if isinstance(model, CLIP) else 7.0)


def outputs_of(index):
    chance = np.random.default_rng(5)
    images, texts = chance.normal(size=(7, 4)), chance.normal(size=(14, 4))
    rows = [row for place in index for row in (2 * place, 2 * place + 1)]
    outputs = {"embeddings": torch.tensor(images[index]), "text_embeddings": torch.tensor(texts[rows])}
    return outputs, {"index": torch.tensor(index), "owners": torch.tensor([row // 2 for row in rows])}, images, texts


def recalls(*batches):
    metrics = RetrievalMetrics()
    for index in batches:
        metrics.update(*outputs_of(index)[:2])
    metrics.synchronize()
    return metrics.compute()


def test_recall_is_that_of_a_plain_count():
    found = recalls([4, 0, 2], [6, 5], [1, 3])
    _, _, images, texts = outputs_of([0])
    for count in (1, 5, 10):
        by_image = [any(row // 2 == i for row in np.argsort(-(texts @ images[i]))[:count]) for i in range(7)]
        by_text = [row // 2 in np.argsort(-(images @ texts[row]))[:count] for row in range(14)]
        assert found[f"image_to_text_recall@{count}"] == pytest.approx(np.mean(by_image))
        assert found[f"text_to_image_recall@{count}"] == pytest.approx(np.mean(by_text))
    with pytest.raises(ValueError, match="not one image was seen"):
        RetrievalMetrics().compute()


def one_of_two(rank, port, results):
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    results[rank] = recalls([4, 0, 2] if rank == 0 else [6, 5, 1, 3])
    dist.destroy_process_group()


def test_two_processes_measure_what_one_does():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.start_processes(one_of_two, (port, results), nprocs=2, start_method="spawn")
        assert results[0] == results[1] == pytest.approx(recalls(range(7)))


def recipe_of(captions, *changes):
    settings = ["training.epochs=60", "training.batch_size=5", "training.device=cpu", "optimizer.lr=1e-2"]
    shape = [f"model.config.{key}={value}" for key, value in TINY.items() if key != "in_channels"]
    data = [f"data.source=captions:{captions}", "augment.pad_crop=0", "training.validate_every=60"]
    pixels = ["data.preprocessing.mean=[0.5,0.5,0.5]", "data.preprocessing.std=[0.5,0.5,0.5]"]
    return load_recipe("digits/clip_tiny", [*settings, *shape, *data, *pixels, *changes])


def test_captions_are_learnt_and_found_again(captions, tmp_path, transformers):
    result = Trainer(recipe_of(captions), tmp_path / "run", progress="off").fit()
    losses = [record["loss"] for record in result.history if record["kind"] == "train"]
    assert losses[-1] < losses[0] / 3
    assert result.metrics["image_to_text_recall@1"] == result.metrics["text_to_image_recall@5"] == 1.0
    again = evaluate(tmp_path / "run", f"captions:{captions}", batch_size=2)
    assert again.metrics == pytest.approx(result.metrics)
    assert (again.num_images, again.num_texts) == (5, 10)
    done = CliRunner().invoke(app, ["eval", str(tmp_path / "run"), "--data", f"captions:{captions}", "--json"])
    assert json.loads(done.stdout) == again.to_json(), done.output
    # Now any words classify: those of the captions were learnt.
    args = [
        "predict",
        str(tmp_path / "val-red.png"),
        "--model",
        str(tmp_path / "run"),
        "--classes",
        "green,red",
        "--json",
    ]
    done = CliRunner().invoke(app, args)
    assert json.loads(done.stdout)[0]["label"] == "red", done.output
    done = CliRunner().invoke(app, [*args[:5], "red, a zebra"])
    assert "The model never saw the words 'a zebra'" in str(done.exception)
    with pytest.raises(ValueError, match=r"compares images with texts, and there is none: name the classes"):
        Predictor(tmp_path / "run")(tmp_path / "val-red.png")


def test_classes_become_sentences(tmp_path, transformers):
    """A few epochs of the shipped recipe on the digits; its run evaluates and predicts as any classifier."""
    changes = ["training.epochs=6", "schedule.warmup_epochs=1", "training.num_threads=1"]
    recipe = load_recipe("digits/clip_tiny", changes)
    result = Trainer(recipe, tmp_path / "run", progress="off").fit()
    assert result.metrics["top1"] > 0.3  # of ten classes
    report = evaluate(tmp_path / "run", "digits")
    assert report.metrics["top1"] == pytest.approx(result.metrics["top1"])
    [guess] = Predictor(tmp_path / "run")(load_dataset("digits", "val")[0].image)
    assert len(guess.probabilities) == 10
    assert templates_of(result.model) == recipe.data.templates


def test_what_does_not_fit_is_said(captions, tmp_path, transformers):
    with pytest.raises(ValueError, match="augment sets mixup or cutmix, which mix no texts along"):
        Trainer(recipe_of(captions, "augment.mixup=0.2", "training.batch_size=4"), tmp_path / "a", progress="off").fit()
    with pytest.raises(ValueError, match=r"has neither captions nor classes; use captions:PATH"):
        ImageTextTask().check_data(load_dataset("photos"))
    with pytest.raises(ValueError, match=r"'captions:.*' has captions, not a class per image"):
        evaluate(create_model("resnet18"), f"captions:{captions}")
    with pytest.raises(ValueError, match=r"templates has 'a photo', without \{\} where the class is written"):
        load_recipe("digits/clip_tiny", ["data.templates=[a photo]"])
    with pytest.raises(ValueError, match=r"vocab_size=\d+"):
        Trainer(recipe_of(captions, "model.config.vocab_size=5"), tmp_path / "b", progress="off").fit()
