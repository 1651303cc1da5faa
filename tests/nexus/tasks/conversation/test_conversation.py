"""Questions about images: tiles and prompts as the authors write them, answers, the command, and mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import nexus
from nexus.cli.commands import app
from nexus.data.facets import Turn
from nexus.tasks.conversation import Answer, Chat, ConversationTask, Writing
from nexus.tasks.conversation.reading import Reader
from nexus.tasks.conversation.templates import TEMPLATES, find_template, write_prompt
from nexus.tasks.conversation.tiles import choose_grid, cut_tiles
from tests.nexus.tasks.conversation.speaking import save_tokenizer, small_model

KEPT = json.loads((Path(__file__).parent / "internvl_prompts.json").read_text(encoding="utf-8"))
GOLDEN = Path(__file__).parents[2] / "models" / "golden" / "internvl_vision_ln.safetensors"
SHORT = Writing(max_new_tokens=6)
DARK = np.zeros((9, 9, 3), np.uint8)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> str:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture
def photo(tmp_path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 130, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


@pytest.mark.parametrize("name", TEMPLATES)
def test_prompts_are_the_authors_to_the_letter(name):
    template = find_template(name)
    assert template.stop == KEPT["templates"][name]["stop_text"]
    for case, wanted in zip(KEPT["conversations"], KEPT["templates"][name]["prompts"], strict=True):
        turns = [Turn(role, text) for pair in case["history"] for role, text in zip(("user", "assistant"), pair)]
        turns.append(Turn("user", case["question"]))
        per_tile = KEPT["tokens_per_tile_used_here"]
        assert write_prompt(turns, case["tiles"], template, per_tile, case.get("system")) == wanted, case["name"]


def test_every_kept_template_is_here():
    assert TEMPLATES.keys() == KEPT["templates"].keys()


@pytest.mark.parametrize("most", [6, 12])
def test_grids_are_the_authors(most):
    kept = load_file(GOLDEN)
    sizes, grids = kept["inputs/tile_sizes"].tolist(), kept[f"outputs/tile_grid/max{most}"].tolist()
    assert len(sizes) == 30
    for (width, height), grid in zip(sizes, grids, strict=True):
        assert list(choose_grid((width, height), 448, 1, most)) == grid, (width, height)


@pytest.mark.parametrize(("most", "thumbnail"), [(4, False), (4, True), (6, False), (6, True)])
def test_tiles_are_the_authors_pixel_by_pixel(most, thumbnail):
    kept = load_file(GOLDEN)
    image = Image.fromarray(kept["inputs/tile_image"].numpy())
    tiles = cut_tiles(image, 28, 1, most, thumbnail=thumbnail)
    wanted = kept[f"outputs/tiles/max{most}_thumbnail{int(thumbnail)}"].numpy()
    assert np.array_equal(np.stack([np.asarray(tile) for tile in tiles]), wanted)


def test_a_predictor_asks_and_says(model, tokenizer, photo):
    predictor = nexus.Predictor(model, tokenizer=tokenizer)
    assert predictor.task.name == "conversation"
    other = np.full((40, 40, 3), 200, dtype=np.uint8)
    predictor.task = ConversationTask(tokenizer=tokenizer, writing=SHORT)
    both = predictor([photo, other], prompts=["What is it?", "How light is the whole of it?"])
    alone = [predictor(photo, prompts="What is it?")[0], predictor(other, prompts="How light is the whole of it?")[0]]
    assert [one.text for one in both] == [one.text for one in alone]  # texts that are filled up say the same
    assert both[0].to_json() == {"path": photo, "question": "What is it?", "answer": both[0].text}
    assert both[1].draw().size[0] >= 40


def test_answers_become_lines_of_json(tmp_path):
    answers = [Answer("a.png", "Wo?", "dort, „links“"), Answer("b.png", "Wo?", "nirgends")]
    Answer.formats[".jsonl"](answers, tmp_path / "answers.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == [one.to_json() for one in answers]


def test_a_conversation_remembers(model, tokenizer, photo):
    talk = Chat(model, [photo], tokenizer=tokenizer, writing=SHORT)
    pieces = []
    first = talk.ask("What is it?", on_text=pieces.append)
    assert "".join(pieces).strip() == first
    talk.ask("And its colour?")
    assert [turn.role for turn in talk.turns] == ["user", "assistant", "user", "assistant"]
    read = talk.reader([talk.turns[:3]], [talk.images])
    assert int(read.places.sum()) == model.config.tokens_per_tile * len(talk.reader.tiles(talk.images[0]))
    assert len(read.images) == len(talk.reader.tiles(talk.images[0]))


def test_several_images_are_numbered(model, tokenizer, photo):
    talk = Chat(model, [photo, photo], tokenizer=tokenizer, writing=SHORT)
    talk.ask("Which is larger?")
    assert talk.turns[0].text == "Image-1: <image>\nImage-2: <image>\nWhich is larger?"


def test_what_is_written_depends_on_the_image(model, tokenizer):
    reader = Reader(model, tokenizer)
    logits = []
    for level in (0, 255):
        picture = Image.new("RGB", (56, 56), (level, level, level))
        read = reader([[Turn("user", "What?")]], [[picture]])
        logits.append(model(read.images, read.tokens, read.places, attention_mask=read.mask)["logits"][:, -1])
    assert (logits[0] - logits[1]).abs().max() > 1e-6


def test_the_commands_answer(model, tokenizer, photo, tmp_path):
    model.save_pretrained(tmp_path / "model")
    given = ["--model", str(tmp_path / "model"), "--tokenizer", tokenizer]
    asked = CliRunner().invoke(app, ["chat", photo, "What?", *given, "--max-new-tokens", "5"])
    assert asked.exit_code == 0, asked.output
    said = CliRunner().invoke(app, ["chat", photo, *given, "--max-new-tokens", "5"], input="What?\nWhy?\n\n")
    assert said.exit_code == 0, said.output
    assert said.output.count("You") == 3


def test_a_saved_tokenizer_is_used_without_being_named(model, tokenizer, photo, tmp_path):
    model.files = {file.name: file.read_bytes() for file in Path(tokenizer).iterdir()}
    try:
        model.save_pretrained(tmp_path / "model")
    finally:
        model.files = {}
    predictor = nexus.Predictor(str(tmp_path / "model"))
    predictor.task = ConversationTask(writing=SHORT)
    assert isinstance(predictor(photo, prompts="What?")[0], Answer)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda p, c: p(DARK, prompts=""), "prompts are ''; ask a question"),
        (lambda p, c: p(DARK), "prompts are None; ask a question"),
        (lambda p, c: p(DARK, prompts=3), "prompts are 3; ask a question"),
        (lambda p, c: p([DARK, DARK], prompts=["a"]), "There are 1 questions and more images"),
        (lambda p, c: c.ask("  "), "Nothing is asked"),
        (lambda p, c: c.ask("<image> and <image>"), "2 places for images .* and there are 1 images"),
        (lambda p, c: c.ask("<img>"), "Turn 0 holds a mark that only images may have; write <image>"),
    ],
)
def test_mistakes_are_answered(model, tokenizer, photo, act, message):
    predictor = nexus.Predictor(model, tokenizer=tokenizer)
    with pytest.raises(ValueError, match=message):
        act(predictor, Chat(model, [photo], tokenizer=tokenizer, writing=SHORT))


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([], "Nothing is asked"),
        ([Turn("assistant", "Hm.")], "Turn 0 is of 'assistant', and user is next: a user begins"),
        ([Turn("user", "a"), Turn("user", "b")], "Turn 1 is of 'user', and assistant is next"),
        ([Turn("user", "a"), Turn("assistant", "b")], "The last turn is the assistant's"),
    ],
)
def test_turns_are_in_turn(turns, message):
    with pytest.raises(ValueError, match=message):
        write_prompt(turns, [], find_template("internvl2_5"), 4)


def test_tokenizers_that_do_not_fit_are_named(model, tmp_path):
    with pytest.raises(ValueError, match="The tokenizer does not know <img>, which InternVL needs"):
        Reader(model, save_tokenizer(tmp_path, without="<img>"))
    with pytest.raises(ValueError, match="saved without its tokenizer; name the folder or the repository"):
        Reader(small_model())
    few = small_model(language={**model.config.language, "vocab_size": 200})
    with pytest.raises(ValueError, match="The tokenizer has 262 ids and the model knows 200"):
        Reader(few, save_tokenizer(tmp_path / "all"))
    with pytest.raises(ValueError, match="There is no template 'internvl2'"):
        Reader(small_model(template="internvl2"), save_tokenizer(tmp_path / "all"))


def ask_file(folder, photo: str, *answers: str) -> str:
    """A file with one conversation about a photo, with a question for each answer."""
    turns = []
    for place, answer in enumerate(answers):
        question = "What?" if place else "<image>\nWhat?"
        turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    path = folder / "talks.jsonl"
    path.write_text(json.dumps({"image": Path(photo).name, "conversations": turns, "split": "val"}), encoding="utf-8")
    return f"conversations:{path}"


def test_answers_are_measured_by_exact_match(model, tokenizer, photo, tmp_path, monkeypatch):
    source, said = ask_file(tmp_path, photo, "a  cat", "a dog"), []

    def write_cat(model, read, stop, writing, streamer=None):
        said.append((read.tokens.shape[1], writing.max_new_tokens))
        return Reader(model, tokenizer).tokenizer("a cat ", return_tensors="pt")["input_ids"]

    monkeypatch.setattr("nexus.tasks.conversation.session.write", write_cat)
    report = nexus.evaluate(model, source, tokenizer=tokenizer)
    assert report.metrics == {"exact_match": 0.5}
    assert [one["right"] for one in report.to_json()["answers"]] == [True, False]
    assert report.tables()["wrong answers"][0] | {"path": ""} == {
        "path": "", "question": "What?", "answer": "a cat", "wanted": "a dog",
    }  # fmt: skip
    (first, most), (second, _) = said
    assert most == len("a  cat") + 32  # the tokenizer's words are bytes
    assert second - first > len("a  cat What?")  # the second question comes after the data's first answer


def test_a_question_is_shown_the_images_that_came_before_it(model, tokenizer, photo, tmp_path, monkeypatch):
    turns = [("human", "Ready?"), ("gpt", "Yes."), ("human", "<image>\nWhat?"), ("gpt", "A cat.")]
    row = {"image": Path(photo).name, "conversations": [{"from": one, "value": text} for one, text in turns]}
    (tmp_path / "talks.jsonl").write_text(json.dumps({**row, "split": "val"}), encoding="utf-8")
    shown = []

    def write_nothing(model, read, stop, writing, streamer=None):
        shown.append(read.images is not None)
        return torch.zeros(1, 0, dtype=torch.long)

    monkeypatch.setattr("nexus.tasks.conversation.session.write", write_nothing)
    nexus.evaluate(model, f"conversations:{tmp_path / 'talks.jsonl'}", tokenizer=tokenizer)
    assert shown == [False, True]


def test_the_model_itself_is_measured_with_its_own_answers(model, tokenizer, photo, tmp_path):
    said = Chat(model, [photo], tokenizer=tokenizer, writing=Writing(40)).ask("<image>\nWhat?")
    report = nexus.evaluate(model, ask_file(tmp_path, photo, "?"), tokenizer=tokenizer)
    (answer,) = report.judged
    assert answer.answer == Chat(model, [photo], tokenizer=tokenizer, writing=Writing(33)).ask("<image>\nWhat?")
    assert said.startswith(answer.answer[:4])
    assert report.metrics == {"exact_match": 0.0}


def test_what_is_not_done_yet_is_said(model):
    with pytest.raises(ValueError, match="has no conversations; take conversations:FILE"):
        nexus.evaluate(model, "digits")
    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        Writing(max_new_tokens=0)
    with pytest.raises(ValueError, match="A Linear holds no conversations"):
        ConversationTask().session(torch.nn.Linear(1, 1), "What?")
