"""Classifiers made of words, with a small tokenizer written on the spot."""

import json

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from nexus.cli import main
from nexus.cli.commands import app
from nexus.core.module import NexusModule
from nexus.core.preprocessing import Preprocessing
from nexus.data import eval_transform, load_image
from nexus.models.cv import CLIP, SigLIP, VisionTransformer
from nexus.predict import Predictor
from nexus.proofs.image_text import CLIP_SMALL, SIGLIP_SMALL, TOKENS, hub_clip, hub_siglip
from nexus.tasks.image_text import retrieval_recall
from nexus.tasks.image_text.zero_shot import ZeroShotClassifier, embed_classes, load_tokenizer

SMALL = {
    "image_size": 16,
    "patch_size": 8,
    "embed_dim": 16,
    "num_layers": 1,
    "num_heads": 2,
    "text_dim": 16,
    "text_num_layers": 1,
    "text_num_heads": 2,
    "context_length": 10,
    "vocab_size": 40,
}
WORDS = ["[PAD]", "[UNK]", "a", "photo", "of", "cat", "dog", "sketch", ".", "[END]"]


@pytest.fixture
def folder(transformers, tmp_path):
    """A folder with a tokenizer of ten words that ends every text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A [END]", special_tokens=[("[END]", 9)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="[END]"
    )
    fast.save_pretrained(tmp_path / "words")
    return tmp_path / "words"


@pytest.fixture(params=[CLIP, SigLIP])
def model(request):
    torch.manual_seed(0)
    return request.param(SMALL | ({"projection_dim": 12} if request.param is CLIP else {})).eval()


def test_texts_are_padded_to_the_length_of_the_model(model, folder):
    tokens = load_tokenizer(model, folder)(["a photo of a cat.", "dog"])
    assert tokens.tolist() == [[2, 3, 4, 2, 5, 8, 9, 0, 0, 0], [6, 9, 0, 0, 0, 0, 0, 0, 0, 0]]


def test_siglip_reads_lower_case(model, folder):
    first, second = load_tokenizer(model, folder)(["a DOG", "a dog"])
    assert torch.equal(first, second) == isinstance(model, SigLIP)


def test_classes_are_the_mean_of_their_sentences(model, folder):
    tokenize = load_tokenizer(model, folder)
    templates = ("a photo of a {}.", "a sketch of a {}.")
    classes = embed_classes(model, ["cat", "dog"], tokenize, templates)
    cats = model.encode_text(tokenize(["a photo of a cat.", "a sketch of a cat."]))
    torch.testing.assert_close(classes[0], F.normalize(cats.sum(0), dim=-1))
    assert classes.shape[0] == 2


def test_the_logits_are_the_models_own(model, folder):
    tokenize = load_tokenizer(model, folder)
    images = torch.randn(3, 3, 16, 16)
    wanted = model(images, tokenize(["a photo of a cat.", "a photo of a dog."]))["logits"]
    found = ZeroShotClassifier(model, ["cat", "dog"], tokenize)(images)["logits"]
    torch.testing.assert_close(found, wanted)


def test_it_answers_as_a_classifier(model, folder):
    model.preprocessing = Preprocessing(image_size=(16, 16))
    classifier = ZeroShotClassifier(model, ["cat", "dog"], load_tokenizer(model, folder))
    prediction = Predictor(classifier)(np.full((20, 30, 3), 120, dtype=np.uint8))[0]
    assert set(prediction.labels) == {"cat", "dog"}


def test_mistakes_are_explained(model, folder, tmp_path):
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(ValueError, match=r"no tokenizer at .*nowhere.*holds its files, such as tokenizer\.json"):
        load_tokenizer(model, tmp_path / "nowhere")
    config = model.config.replace(vocab_size=8)
    with pytest.raises(ValueError, match="has 10 ids and the model knows 8: it is that of another model"):
        load_tokenizer(type(model)(config), folder)
    tokenize = load_tokenizer(model, folder)
    with pytest.raises(ValueError, match=r"The template 'a photo' has no \{\} where the class is written"):
        embed_classes(model, ["cat"], tokenize, ["a photo"])
    with pytest.raises(ValueError, match="at least one class"):
        embed_classes(model, [], tokenize)
    with pytest.raises(ValueError, match="made of a CLIP or SigLIP, not of a VisionTransformer"):
        ZeroShotClassifier(VisionTransformer({"image_size": 16, "embed_dim": 12, "num_layers": 1}), ["cat"], tokenize)


def test_a_siglip_without_card_needs_a_source():
    with pytest.raises(ValueError, match="has no card that names its tokenizer"):
        load_tokenizer(SigLIP(SMALL))


PHOTOS = {"cat": "chelsea", "coffee": "coffee", "astronaut": "astronaut"}


@pytest.fixture
def photos(needed, tmp_path):
    """Files of three of scikit-image's photos."""
    data = needed("skimage.data")
    for name, source in PHOTOS.items():
        PIL.Image.fromarray(getattr(data, source)()).save(tmp_path / f"{name}.png")
    return [tmp_path / f"{name}.png" for name in PHOTOS]


def test_real_photos_are_classified_by_the_command(model, folder, photos, tmp_path):
    """With random weights; the scores are the softmax of the model's own logits."""
    model.preprocessing = Preprocessing(image_size=(16, 16))
    model.save_pretrained(tmp_path / "model")
    words = ["--classes", "cat, dog, sketch", "--tokenizer", str(folder), "--json"]
    result = CliRunner().invoke(app, ["predict", *map(str, photos), "--model", str(tmp_path / "model"), *words])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    names = ("cat", "dog", "sketch")
    tokens = load_tokenizer(model, folder)([f"a photo of a {name}." for name in names])
    for photo, prediction in zip(photos, found, strict=True):
        image = eval_transform(model.preprocessing)(load_image(photo), np.random.default_rng(0))
        wanted = dict(zip(names, model(image[None], tokens)["logits"][0].softmax(-1).tolist()))
        scores = {guess["label"]: guess["score"] for guess in prediction["top"]}
        assert scores == pytest.approx(wanted, rel=1e-4)


def test_mistakes_of_the_command_are_one_line(model, folder, photos, tmp_path, monkeypatch, capsys):
    model.preprocessing = Preprocessing(image_size=(16, 16))
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "empty").mkdir()
    ask = ["predict", str(photos[0]), "--model", str(tmp_path / "model"), "--classes"]
    for arguments, message in (
        (["cat,dog", "--tokenizer", str(tmp_path / "empty")], "There is no tokenizer at"),
        (["cat,,dog", "--tokenizer", str(folder)], "A class has no name: 'cat', '', 'dog'"),
        (["cat,zebra", "--tokenizer", str(folder)], "The model never saw the words 'zebra'"),
    ):
        monkeypatch.setattr("sys.argv", ["nexus", *ask, *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert ended.value.code == 2
        assert message in line


@pytest.mark.parametrize("kind", [CLIP, SigLIP])
def test_converted_weights_rank_real_photos_and_texts_as_transformers_does(kind, transformers, photos, tmp_path):
    """A folder of the hub is converted; photos find their texts, and texts their photos, in the same order as there."""
    hub, small = (hub_clip, CLIP_SMALL) if kind is CLIP else (hub_siglip, SIGLIP_SMALL)
    torch.manual_seed(0)
    config = kind.config_class.from_mapping(small)
    theirs = hub(transformers, config).eval()
    theirs.save_pretrained(tmp_path / "hub")
    ours = NexusModule.from_pretrained(tmp_path / "hub")
    assert isinstance(ours, kind)
    transform = eval_transform(Preprocessing(image_size=(32, 32)))
    images = torch.stack([transform(load_image(photo), np.random.default_rng(0)) for photo in photos])
    with torch.no_grad():
        logits, wanted = ours(images, TOKENS)["logits"], theirs(TOKENS, images).logits_per_image
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(logits.argsort(dim=1), wanted.argsort(dim=1))
    recall = retrieval_recall(logits, torch.arange(3), at=(1, 3))
    places = wanted.argsort(dim=1, descending=True)[:, 0] == torch.arange(3)
    assert recall["image_to_text_recall@1"] == pytest.approx(100 * places.double().mean().item())
    assert recall["text_to_image_recall@3"] == 100
