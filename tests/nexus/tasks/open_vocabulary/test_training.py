"""Grounding DINO is trained and measured as every detector, with the names of classes as words."""

import random

import pytest
import torch

import nexus
from nexus.core.preprocessing import Preprocessing
from nexus.models.cv import GroundingDINO, GroundingDINOConfig
from nexus.proofs.grounding_dino import SMALL
from nexus.proofs.parity import randomize
from nexus.tasks.image_text.tokenizers import tokenizer_files
from nexus.tasks.open_vocabulary import OpenVocabularyTask
from nexus.tasks.open_vocabulary.vocabulary import load_words
from tests.drawn_sets import write_coco
from tests.words import WORDS, bert_tokenizer

PIXELS = {"image_size": [48, 64], "resize": "squash", "interpolation": "bilinear"}
OWN = {"vocab_size": 6, "separator_ids": (2, 5), "text_positions": 16, "max_text_len": 8}
"""[PAD], [UNK], the dot, disc, square, [END]: what the tokenizer "words" makes of the two classes."""
RUN = {"epochs": 2, "batch_size": 8, "lr": 1e-3, "seed": 0, "progress": "off", "preprocessing": PIXELS}


@pytest.fixture
def discs(tmp_path):
    write_coco(tmp_path / "boxes")
    return f"coco:{tmp_path / 'boxes'}"


@pytest.fixture
def model(transformers, tmp_path):
    torch.manual_seed(0)
    found = GroundingDINO(GroundingDINOConfig(**SMALL)).eval()
    randomize(found)
    found.preprocessing = Preprocessing(image_size=(48, 64), resize="squash", interpolation="bilinear")
    found.files = tokenizer_files(bert_tokenizer(transformers, tmp_path))
    return found


def test_a_run_from_nothing_has_its_own_words(discs, tmp_path):
    """The tokenizer is saved with the run, which is asked for classes, measured, and resumed as every run."""
    model = {"model": "grounding_dino_tiny", "data": discs, "tokenizer": "words", "run_dir": tmp_path / "run"}
    result = nexus.fit(**model, **RUN, **SMALL | OWN)
    assert 0 <= result.metrics["AP"] <= 1
    predictor = nexus.Predictor(tmp_path / "run")
    found = predictor(tmp_path / "boxes" / "val" / "00.png")[0]
    assert found.class_names == ("disc", "square")
    found = predictor(tmp_path / "boxes" / "val" / "00.png", prompts=["square"])[0]
    assert found.class_names == ("square",)
    with pytest.raises(ValueError, match="The model never saw the words 'zebra'"):
        predictor(tmp_path / "boxes" / "val" / "00.png", prompts=["zebra"])
    measured = nexus.evaluate(tmp_path / "run", discs)
    assert measured.metrics["AP"] == pytest.approx(result.metrics["AP"], abs=1e-6)


def test_it_is_measured_by_the_names_of_the_datas_classes(model, discs):
    measured = nexus.evaluate(model, discs)
    assert 0 <= measured.metrics["AP"] <= 1
    assert tuple(measured.class_names) == ("disc", "square")


def test_training_is_refused_without_a_tokenizer_that_fits(discs, tmp_path):
    with pytest.raises(ValueError, match=r"ends phrases with the ids \[2, 5\], and the model with \[101, 102"):
        nexus.fit("grounding_dino_tiny", discs, tokenizer="words", run_dir=tmp_path / "run", **RUN, **SMALL)


def batch_of(labels):
    images = torch.rand(len(labels), 3, 48, 64)
    boxes = torch.tensor([[4.0, 4, 30, 30], [20.0, 8, 60, 40]])
    targets = [{"boxes": boxes[: len(one)], "labels": torch.tensor(one, dtype=torch.long)} for one in labels]
    return {"images": images, "targets": targets, "image_sizes": [(48, 64)] * len(labels)}


def test_one_caption_with_all_classes_gives_the_models_own_losses(model):
    words = load_words(model)
    task = OpenVocabularyTask(("cat", "red car", "dog"), words=words)
    batch = batch_of([[1, 0], []])
    losses = task.losses(model, batch)[1]
    tokens = torch.tensor([[101, 200, 1012, 202, 203, 1012, 201, 1012, 102]])
    spans = torch.zeros(3, 9, dtype=torch.bool)
    spans[0, 1] = spans[1, 3:5] = spans[2, 6] = True
    wanted = model(batch["images"], tokens, batch["targets"], spans=spans, image_sizes=[(48, 64)] * 2)["losses"]
    assert losses.keys() == wanted.keys()
    for name, value in losses.items():
        torch.testing.assert_close(value, wanted[name])


def test_more_classes_than_a_caption_holds_are_drawn_for_each_image(model, monkeypatch):
    """An image's own are always among them; others are drawn anew each time."""
    names = tuple(word for word in WORDS if not word.startswith("##"))
    task = OpenVocabularyTask(names, words=load_words(model))
    asked = []
    forward = model.forward

    def watch(images, tokens, targets, **given):
        asked.append((tokens, targets, given["spans"]))
        return forward(images, tokens, targets, **given)

    monkeypatch.setattr(model, "forward", watch)
    random.seed(0)
    labels = [[20, 3], [11]]
    for _ in range(5):
        losses = task.losses(model, batch_of(labels))[1]
        assert all(value.isfinite() for value in losses.values())
    ids = {name: load_words(model).ids(name) for name in names}
    for tokens, targets, spans in asked:
        assert tokens.shape[1] <= 16
        for row, target, span, own in zip(tokens, targets, spans, labels):
            named = [row[span[label]].tolist() for label in target["labels"].tolist()]
            assert named == [ids[names[label]] for label in own]
    assert len({tuple(tokens.flatten().tolist()) for tokens, _, _ in asked}) == 5


def test_more_classes_of_one_image_than_a_caption_holds_are_an_error(model):
    names = tuple(word for word in WORDS if not word.startswith("##"))
    task = OpenVocabularyTask(names, words=load_words(model))
    batch = batch_of([[0, 1]])
    batch["targets"] = [{"boxes": torch.tensor([[4.0, 4, 30, 30]] * 20), "labels": torch.arange(20)}]
    with pytest.raises(ValueError, match="An image has 20 classes, and a caption of the model holds 7 of them"):
        task.losses(model, batch)
