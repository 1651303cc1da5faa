"""Five kinds of model that the frame does not know train, evaluate, predict, draw and explain, by calls and by commands.

Each is one folder of `toys/` and one line of the table.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from nexus.cli.commands import app
from nexus.evaluation import evaluate
from nexus.predict import Predictor, draw_predictions, write_predictions
from nexus.tasks import Report, get_task
from nexus.training import Recipe, Trainer
from tests.registered import forgotten

HEADLINES = {"pointing": "top1", "watching": "top1", "words": "top1", "rays": "psnr", "answers": "exact_match"}
GOOD = {"pointing": 0.95, "watching": 0.9, "words": 0.95, "rays": 20, "answers": 0.9}
LENGTH = {"rays": {"steps": 300, "validate_every": 150}}
PROMPTS = {
    "pointing": ["2,3"],
    "words": ["red", "blue"],
    "rays": ["0.1,0.2", "0.5,0.5"],
    "answers": ["How light is it?"],
}


@pytest.fixture(scope="module")
def toys():
    """The toys, known for the tests of this file alone."""
    sys.path.insert(0, str(Path(__file__).parent))
    with forgotten():
        import toys as package

        yield package
    sys.path.remove(str(Path(__file__).parent))
    for name in [name for name in sys.modules if name.partition(".")[0] == "toys"]:
        del sys.modules[name]


def recipe_of(kind):
    training = {
        "batch_size": 16,
        "device": "cpu",
        "num_threads": 1,
        "log_every": 50,
        **LENGTH.get(kind, {"epochs": 60}),
    }
    plain = {"image_size": [8, 8], "mean": [0.5] * 3, "std": [0.25] * 3}
    return {
        "model": {"name": f"toy_{kind}"},
        "data": {"source": f"toy-{kind}", **({} if kind == "rays" else {"preprocessing": plain})},
        "optimizer": {"lr": 0.05, "weight_decay": 0.0},
        "training": {**training, "accumulate": 2},
    }


@pytest.fixture(scope="module")
def runs(toys, tmp_path_factory):
    """A run of each kind, made by the command."""
    folder = tmp_path_factory.mktemp("toys")
    for kind in toys.KINDS:
        (folder / f"{kind}.yaml").write_text(yaml.safe_dump(recipe_of(kind)))
        command("train", folder / f"{kind}.yaml", "--run-dir", folder / kind)
    return folder


def command(*words):
    done = CliRunner().invoke(app, [*map(str, words), "--import", "toys"])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, value in (("a", (200, 0, 0)), ("b", (250, 250, 250)), ("c", (0, 0, 200))):
        Image.new("RGB", (8, 8), value).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("kind", HEADLINES)
def test_a_kind_is_trained_and_measured_by_commands(kind, runs):
    lines = [json.loads(line) for line in (runs / kind / "metrics.jsonl").read_text().splitlines()]
    assert [line for line in lines if line["kind"] == "val"][-1][HEADLINES[kind]] > GOOD[kind]
    report = json.loads(command("eval", runs / kind, "--data", f"toy-{kind}", "--json"))
    assert report["task"] == f"toy-{kind}"
    assert report["metrics"][HEADLINES[kind]] == pytest.approx(lines[-1][HEADLINES[kind]])
    assert HEADLINES[kind] in command("eval", runs / kind, "--data", f"toy-{kind}")


@pytest.mark.parametrize("kind", HEADLINES)
def test_a_kind_predicts_and_draws_by_the_command(kind, runs, pictures, tmp_path):
    images = [] if kind == "rays" else [pictures / f"{name}.png" for name in "abc"]
    images = images[:1] if kind == "pointing" else images
    asked = [word for prompt in PROMPTS.get(kind, []) for word in ("--prompt", prompt)]
    out = ("--output", tmp_path / "said.csv", "--draw", tmp_path / "drawn", "--json")
    found = json.loads(command("predict", *images, "--model", runs / kind, *asked, *out))
    assert len(found) == (2 if kind == "rays" else len(images))
    assert len(list((tmp_path / "drawn").glob("*.png"))) == len(found)
    assert (tmp_path / "said.csv").read_text().count("\n") == len(found) + 1
    wanted = {"pointing": ["dark"], "words": ["red"], "answers": ["light"]}
    if kind in wanted:
        assert (
            found[0]["text"] in {"pointing": ("dark", "light"), "words": ("red",), "answers": ("dark", "light")}[kind]
        )


def test_calls_do_what_the_commands_do(toys, tmp_path):
    recipe = Recipe.from_mapping({**recipe_of("words"), "training": {"epochs": 20, "batch_size": 20, "device": "cpu"}})
    result = Trainer(recipe, tmp_path / "run", progress="off").fit()
    report = evaluate(result.model, "toy-words", batch_size=7)
    assert isinstance(report, Report)
    assert report.metrics["top1"] == pytest.approx(result.metrics["top1"])
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 2] = 220
    predictor = Predictor(result.model)
    (one,) = predictor(image, prompts=["red", "blue"])
    assert one.text == "blue"
    assert predictor(image)[0].text == "blue", "without prompts the classes of the data are the words"
    assert draw_predictions([one], tmp_path / "drawn")[0].is_file()
    assert "blue" in write_predictions([one], tmp_path / "one.json").read_text()


def test_each_image_has_its_prompt(runs):
    image = np.zeros((8, 8, 3), np.uint8)
    image[3, 5] = 255
    found = Predictor(runs / "pointing", batch_size=2)([image] * 3, prompts=[(5, 3), (3, 5), (5, 3)])
    assert [one.text for one in found] == ["light", "dark", "light"]


def test_frames_are_remembered_within_a_call_and_forgotten_after_it(runs):
    frames = [np.full((8, 8, 3), value, np.uint8) for value in (100, 60, 180, 120)]
    predictor = Predictor(runs / "watching", batch_size=3)
    for _ in range(2):
        said = [one.text for one in predictor(frames)]
        assert said == ["lightest so far", "darker", "lightest so far", "darker"]
    assert predictor(frames[1])[0].text == "lightest so far", "alone, every frame is the lightest"


def test_rays_have_no_epochs(runs, toys, tmp_path):
    lines = [json.loads(line) for line in (runs / "rays" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "val"] == [150, 300]
    assert not any("epoch" in line for line in lines)
    for change, message in (
        ({"epochs": 3}, "training.epochs is 3, and this data has no epochs; set training.steps"),
        ({"steps": 3}, "schedule.warmup_epochs counts epochs, and this data has none; set schedule.warmup_steps"),
    ):
        recipe = {**recipe_of("rays"), "training": {"device": "cpu", **change}, "schedule": {"warmup_epochs": 1.0}}
        with pytest.raises(ValueError, match=message):
            Trainer(Recipe.from_mapping(recipe), tmp_path / f"run{change}", progress="off").fit()


def test_a_run_of_rays_goes_on_exactly(toys, tmp_path):
    """Stopped between two validations, and resumed: the same lines as of a run in one go."""
    tree = recipe_of("rays")
    tree["training"] |= {"steps": 40, "validate_every": 10, "checkpoint_every": 7, "log_every": 5}
    tree["schedule"] = {"name": "step", "warmup_steps": 4, "milestone_steps": [20]}
    recipe = Recipe.from_mapping(tree)
    whole = Trainer(recipe, tmp_path / "whole", progress="off").fit()

    class Stop(Exception):
        pass

    def stop(record):
        if record["step"] == 25:
            raise Stop

    with pytest.raises(Stop):
        Trainer(recipe, tmp_path / "parts", progress="off", callbacks=[stop]).fit()
    parts = Trainer(recipe, tmp_path / "parts", progress="off", resume=True).fit()
    assert parts.history == whole.history
    first, second = whole.model.state_dict(), parts.model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_explain_is_offered_by_kinds_that_can(runs, pictures, tmp_path):
    said = command("explain", pictures / "a.png", "--model", runs / "words", "--output", tmp_path / "why.png")
    assert said.startswith("The words are red, green, blue.")
    done = CliRunner().invoke(app, ["explain", str(pictures / "a.png"), "--model", str(runs / "answers")])
    assert "is a model for toy-answers. Use nexus predict." in str(done.exception)


def test_a_command_that_one_kind_alone_has(runs, tmp_path):
    picture = tmp_path / "seen.png"
    done = CliRunner().invoke(app, ["--import", "toys", "render", str(runs / "rays"), "-o", str(picture)])
    assert done.stdout == f"Drawn into {picture}.\n", (done.output, done.exception)
    with Image.open(picture) as seen:
        assert seen.size == (8, 8)
    assert "--camera" in CliRunner().invoke(app, ["render", "--help"]).stdout
    done = CliRunner().invoke(app, ["rendre"])
    assert done.exit_code == 2
    assert "No such command 'rendre'" in done.output


def test_what_a_kind_does_not_take_is_refused(runs, toys, pictures, tmp_path):
    with pytest.raises(ValueError, match="answers 'How light is it\\?' alone"):
        Predictor(runs / "answers")(pictures, prompts="Who are you?")
    with pytest.raises(ValueError, match="A model for toy-rays looks at no images; give prompts alone"):
        Predictor(runs / "rays")(pictures, prompts=[(0, 0)])
    with pytest.raises(ValueError, match="There is nothing to look at"):
        Predictor(runs / "rays")()
    with pytest.raises(ValueError, match="tokenizer is 'words', and a Namer reads no texts"):
        evaluate(runs / "words", "toy-words", tokenizer="words")
    with pytest.raises(ValueError, match="'toy-answers' has no class per image"):
        get_task("classification").check_data(toys.answers.Data())
    with pytest.raises(ValueError, match="tiles are for detectors; this model's task is toy-words"):
        Predictor(runs / "words", tiles=100)
