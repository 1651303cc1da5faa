"""Recipes: safe typed YAML, changes from a command line, errors with the key's path."""

import errno
import os

import pytest
import torch

from nexus.core.documents import parse_yaml
from nexus.training import Recipe, list_recipes, load_recipe
from nexus.training.assembly import make_model
from nexus.training.recipe import differing_keys
from nexus.training.recipe_files import override_recipe, recipe_from_mapping, save_recipe


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipes_load_and_name_a_model_that_can_be_built(small, name):
    # Weights are fetched, or made by another recipe, where this one is used.
    changes = ["pretrained=false", "checkpoint=null", "backbone_checkpoint=null"]
    recipe = load_recipe(name, [f"model.{change}" for change in changes])
    data = small.Stripes(4, 0)
    data.in_channels = recipe.data.preprocessing.in_channels
    with torch.device("meta"):
        model = make_model(recipe, data)
    assert model.num_parameters() > 0
    assert name.startswith((recipe.data.source.partition(":")[0], "imagenet/"))


def test_round_trip(tmp_path):
    recipe = load_recipe("digits/vit_tiny", ["schedule.milestones=[3, 4.5]", "model.config.num_layers=7"])
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        (".5e1", 5.0),
        ("7", 7),
        ("0x10", 16),
        ("e4", "e4"),
        ("1e", "1e"),
    ],
)
def test_numbers_are_those_of_yaml_1_2(text, value):
    assert parse_yaml(text, "here") == value
    assert type(parse_yaml(text, "here")) is type(value)


def test_overrides():
    recipe = load_recipe("digits/vit_tiny", ["optimizer.lr=3e-4", "model.config.num_layers=4", "training.ema=0.99"])
    assert (recipe.optimizer.lr, recipe.model.config["num_layers"], recipe.training.ema) == (3e-4, 4, 0.99)
    assert override_recipe(recipe, ["training.ema=null"]).training.ema is None
    sized = override_recipe(Recipe(), ["data.preprocessing.image_size=[32, 32]"])
    assert sized.data.preprocessing.image_size == (32, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimizer.lrr=1", r"There is no key 'optimizer.lrr'\. Did you mean 'optimizer.lr'\?"),
        ("lrr=1", r"There is no key 'lrr'\. Did you mean 'optimizer.lr'\?"),
        ("name=sgd", r"'name' is ambiguous: model\.name, optimizer\.name, schedule\.name; give its section\."),
        ("imgsz=64", r"There is no key 'imgsz'\. Did you mean 'data.image_size'\?"),
        ("image_size=0", r"data.image_size is 0; it must be at least 1\."),
        ("trainig.epochs=1", r"There is no key 'trainig'\. Did you mean 'training"),
        ("optimizer.lr=fast", r"optimizer.lr is 'fast'; it must be float"),
        ("optimizer.lr=-1", r"optimizer.lr is -1.0; it must be above 0"),
        ("optimizer=3", r"optimizer is 3; it must be a section"),
        ("training.epochs=1.5", r"training.epochs is 1.5; it must be int"),
        ("training.epochs=0", r"training.epochs is 0; it must be at least 1"),
        ("training.precision=fp8", r"training.precision is 'fp8'; it must be one of 'fp32', 'bf16', 'fp16'"),
        ("training.ema=1", r"training.ema is 1.0; it must be above 0 and below 1"),
        ("augment.flip=2", r"augment: flip is 2.0"),
        ("schedule.name=step", r"schedule.milestones is empty"),
        ("optimizer.lr.x=3", r"'optimizer.lr.x' goes through 'lr', which is 0.00\d+ and has no keys"),
        ("optimizer.lr", r"is not of the form section.key=value"),
        ("data.preprocessing.std=[0]", r"data.preprocessing"),
    ],
)
def test_wrong_changes(change, message):
    with pytest.raises(ValueError, match=message):
        load_recipe("digits/vit_tiny", [change])


def test_unknown_recipe():
    with pytest.raises(ValueError, match=r"There is no recipe 'digits/vit_tny'\. Did you mean 'digits/vit_tiny'\?"):
        load_recipe("digits/vit_tny")
    with pytest.raises(ValueError, match=r"There is no recipe file '.*missing.yaml'"):
        load_recipe("missing.yaml")
    with pytest.raises(ValueError, match="There is no recipe"):
        load_recipe("../recipes/digits/vit_tiny")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer: {lr: 1.0}\noptimizer: {lr: 2.0}", r"line 2, column 1\): the key 'optimizer' occurs twice"),
        ("a: !!python/object/apply:os.system ['true']", "not plain YAML"),
        ("[1, 2]", "A recipe is a mapping"),
        ("", "A recipe is a mapping"),
        ("a: [", r"is not YAML \(line 2, column 1\)"),
        ("optimizer: 3", "optimizer is 3; it must be a section"),
    ],
)
def test_broken_files(tmp_path, text, message):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        load_recipe(path)
    assert str(path) in str(raised.value)


def test_two_sources_of_weights():
    with pytest.raises(ValueError, match="weights have one source"):
        recipe_from_mapping({"model": {"name": "resnet18", "pretrained": True, "checkpoint": "x.pth"}})


def test_differing_keys_leave_out_how_it_runs():
    one = load_recipe("digits/vit_tiny")
    other = override_recipe(one, ["data.num_workers=2", "training.device=cpu", "optimizer.lr=1", "model.config.x=1"])
    assert differing_keys(one, other) == ["model.config.x", "optimizer.lr"]
    assert differing_keys(one, one) == []


def test_a_recipe_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "recipe.yaml"
    save_recipe(load_recipe("digits/vit_tiny"), path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_recipe(load_recipe("digits/resnet_tiny"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
