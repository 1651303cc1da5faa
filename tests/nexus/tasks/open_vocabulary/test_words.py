"""Detection of what words name: classes and captions, from Python and from the shell."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import nexus
from nexus.cli.commands import app
from nexus.core.preprocessing import Preprocessing
from nexus.data.transforms import eval_transform
from nexus.models.cv import GroundingDINO, GroundingDINOConfig
from nexus.models.cv.grounding_dino.phrases import class_chances
from nexus.proofs.grounding_dino import SMALL
from nexus.proofs.parity import randomize
from nexus.tasks.image_text.tokenizers import tokenizer_files
from nexus.tasks.open_vocabulary.phrases import answering, phrase_at, places_of, read_caption
from nexus.tasks.open_vocabulary.vocabulary import Words, load_words
from tests.words import WORDS, bert_tokenizer

PIXELS = Preprocessing(image_size=(64, 96), resize="within", resize_size=64, interpolation="bilinear")
SIZE = (90, 120)
GOLDEN = Path(__file__).parents[2] / "models" / "golden"


def made(transformers, folder, **changes):
    torch.manual_seed(0)
    model = GroundingDINO(GroundingDINOConfig(**SMALL | {"max_text_len": 32} | changes)).eval()
    randomize(model)
    with torch.no_grad():  # scores spread
        model.decoder.norm.weight.mul_(0.2)
    model.preprocessing = PIXELS
    model.files = tokenizer_files(bert_tokenizer(transformers, folder))
    return model


@pytest.fixture(scope="module")
def model(transformers, tmp_path_factory):
    return made(transformers, tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture
def saved(model, image, tmp_path):
    model.save_pretrained(tmp_path / "model")
    PIL.Image.fromarray(image).save(tmp_path / "photo.png")
    return tmp_path


def test_classes_are_the_labels(model, image):
    found = nexus.Predictor(model)(image, prompts=["cat", "red car", "fire hydrants"])[0]
    assert found.class_names == ("cat", "red car", "fire hydrants")
    ids = [101, 200, 1012, 202, 203, 1012, 206, 207, 208, 224, 1012, 102]
    spans = torch.zeros(3, 12, dtype=torch.bool)
    spans[0, 1] = spans[1, 3:5] = spans[2, 6:10] = True
    with torch.no_grad():
        wanted = model(eval_transform(PIXELS)(image)[None], torch.tensor([ids]), spans=spans)
    scale = np.array([120 / 85, 90 / 64] * 2)
    assert found.found.scores == pytest.approx(wanted["scores"][0].numpy(), abs=1e-6)
    assert found.found.labels.tolist() == wanted["labels"][0].tolist()
    assert found.found.boxes == pytest.approx(wanted["boxes"][0].numpy() * scale, rel=1e-4, abs=1e-3)
    chances = class_chances(wanted["pred_logits"][0], spans)
    assert found.found.scores[0] == pytest.approx(chances.max().item(), abs=1e-6)


def test_more_classes_than_a_caption_holds_are_asked_in_parts(model, image):
    """Each part is a caption of its own: the same as asked alone, merged by score; the image is encoded once."""
    names = [word for word in WORDS if not word.startswith("##")]
    words = load_words(model)
    parts = words.captions(names)
    assert [len(one.labels) for one in parts] == [15, 9]
    assert all(one.tokens.shape[1] <= 32 for one in parts)
    calls = []
    hook = model.backbone.patch_embed.register_forward_hook(lambda *_: calls.append(1))
    together = nexus.Predictor(model)(image, prompts=names)[0]
    hook.remove()
    assert len(calls) == 1
    alone = [nexus.Predictor(model)(image, prompts=part)[0] for part in (names[:15], names[15:])]
    rows = sorted((one for part in alone for one in part.top()), key=lambda one: -one.score)[:20]
    assert [one.label for one in together.top()] == [one.label for one in rows]
    assert [one.score for one in together.top()] == pytest.approx([one.score for one in rows])


def test_words_are_encoded_once(model, image):
    calls = []
    hook = model.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    nexus.Predictor(model, batch_size=1)([image] * 3, prompts=["cat", "dog"])
    hook.remove()
    assert len(calls) == 1


def test_a_caption_names_its_phrases_with_their_place(model, image):
    found = nexus.Predictor(model)(image, prompts="A cat beside a red car. The fire hydrants")[0]
    assert found.caption == "a cat beside a red car. the fire hydrants."
    assert len(found) == 12
    for name, places in zip(found.class_names, found.class_places, strict=True):
        assert name == " ".join(found.caption[start:end] for start, end in places)
        assert "." not in name
    row = found.to_json()["objects"][0]
    label = found.class_names.index(row["label"])
    assert row["places"] == [list(one) for one in found.class_places[label]]
    assert found.to_json()["caption"] == found.caption
    sure = nexus.Predictor(model)(image, prompts={"caption": "a cat. a car.", "box_threshold": 0.92})[0]
    assert (sure.found.scores > 0.92).all()
    assert 0 < len(sure) < 12


def test_pieces_of_a_word_are_the_whole_word(transformers, tmp_path, model):
    asked = read_caption("A fire hydrants? cat", Words(model, bert_tokenizer(transformers, tmp_path), "here"))
    assert asked.tokens.tolist() == [[101, 204, 206, 207, 208, 224, 1029, 200, 1012, 102]]
    places = places_of([4], asked)
    assert phrase_at(places, asked.text) == "hydrants"
    assert places == ((7, 15),)
    assert phrase_at(places_of([1, 4, 7], asked), asked.text) == "a hydrants cat"
    assert places_of([2, 3], asked) == ((2, 15),)


@pytest.mark.parametrize(("case", "caption"), [("b1", "cat. a dog."), ("b1_long", None)])
def test_phrases_are_those_of_the_authors(transformers, tmp_path, model, case, caption):
    """But separators are no words here, a piece is its whole word, and phrases are not merged across a '?'."""
    kept = json.loads((GOLDEN / "grounding_dino.json").read_text())
    golden = load_file(GOLDEN / "grounding_dino.safetensors")
    words = Words(model, bert_tokenizer(transformers, tmp_path), "here")
    asked = read_caption(caption or kept["text"]["captions"]["b1_long"][0], words)
    chances = golden[f"outputs/{case}/logits"][0].sigmoid()
    for number, setting in enumerate(kept["post"]["settings"]):
        best = chances.amax(1)
        boxes = best > setting["box_threshold"]
        scores = golden[f"outputs/post/{case}/{number}/scores"]
        torch.testing.assert_close(best[boxes], scores)
        if case == "b1_long" and number == 1:
            continue  # merged across "?"
        combined = not setting["remove_combined"]
        answers = answering(chances[boxes], asked, setting["text_threshold"], combined=combined)
        phrases = [phrase_at(places_of(row.nonzero().flatten().tolist(), asked), asked.text) for row in answers]
        wanted = [
            text.replace("?", "").replace("catnt", "cat hydrant")
            for text in kept["post"]["phrases"][f"{case}/{number}"]
        ]
        assert phrases == wanted


def test_tiles_and_drawing_are_a_detectors(model, image, tmp_path):
    for prompts in (["cat", "dog"], "a cat. the dog."):
        found = nexus.Predictor(model, tiles=64)(image, prompts=prompts)[0]
        assert (found.height, found.width) == SIZE
        assert len(found) > 12
        assert set(found.found.labels.tolist()) <= set(range(len(found.class_names)))
        assert found.draw(min_score=0.0).size[0] >= 120
    assert len(found.class_places) == len(found.class_names)


def test_the_command_line_asks_in_words(saved):
    def run(*given):
        arguments = ["predict", str(saved / "photo.png"), "--model", str(saved / "model"), "--json", *given]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)[0]

    objects = run("--classes", "cat, red car")["objects"]
    assert {one["label"] for one in objects} <= {"cat", "red car"}
    answer = run("--caption", "a cat beside a red car")
    assert answer["caption"] == "a cat beside a red car."
    assert all(one["label"] in answer["caption"] for one in answer["objects"] if len(one["places"]) == 1)
    assert run("--prompt", "a cat. a car.")["caption"] == "a cat. a car."
    assert len(run("--classes", "cat", "--min-score", "0.99")["objects"]) < len(objects)


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (None, "GroundingDINO finds what words name, and there is none: prompts="),
        ([], "finds what words name, and there is none"),
        (["cat", " "], "A class has no name: 'cat', ''"),
        (["cat", "Cat"], "The class 'cat' is named twice"),
        (["cat. dog"], "The class 'cat. dog' has a '.' or '[?]', which end a phrase"),
        (["cat " * 40], "has 40 tokens; a caption of the model has 32"),
        (["cat", "zebra"], "The model never saw the words 'zebra'"),
        ([3], r"Classes are \(3,\); name them in a list"),
        ("", "The caption '' names nothing"),
        (" . ? .", "names nothing; write what to look for"),
        ("cat " * 40, "The caption has 43 tokens, and the model reads 32; ask in parts"),
        ("a zebra.", "The model never saw the words 'zebra'"),
        ({"caption": "cat", "box_treshold": 0.2}, "There is no prompt 'box_treshold'. Did you mean 'box_threshold'?"),
        ({"box_threshold": 0.2}, "The caption is None; it is a text"),
        ({"caption": "cat", "text_threshold": 2}, "text_threshold is 2; it must lie in 0 to 1"),
    ],
)
def test_what_cannot_be_asked_is_refused(model, image, prompts, said):
    with pytest.raises(ValueError, match=said):
        nexus.Predictor(model)(image, prompts=prompts)


def test_a_tokenizer_of_another_model_is_refused(transformers, tmp_path):
    with pytest.raises(ValueError, match="has 1030 ids and the model knows 1013: it is that of another model"):
        load_words(made(transformers, tmp_path, vocab_size=1013, separator_ids=(101, 102, 1012)))
    other = made(transformers, tmp_path, separator_ids=(101, 102, 7))
    with pytest.raises(ValueError, match=r"ends phrases with the ids \[101, 102, 1012\], and the model with \[7, 101"):
        load_words(other)
    other.files = {}
    with pytest.raises(ValueError, match="no card that names its tokenizer"):
        load_words(other)


def test_without_transformers_the_error_says_what_to_install(model, image, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="Tokenizers come from transformers: pip install transformers"):
        nexus.Predictor(model)(image, prompts=["cat"])
