"""Training by simulated clicks through the calls of every kind: what learns, what stays, resuming, errors."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from typer.testing import CliRunner

import nexus
from nexus.cli.commands import app
from nexus.data.detection import Annotations, write_coco
from nexus.data.detection.rle import encode
from nexus.data.detection.scene import DetectionSample, Object, Scene, all_labels
from nexus.models.cv import SAM, MedSAM, SAMConfig
from nexus.ops.clicks import PromptConfig
from nexus.training import Interrupted, Trainer
from nexus.training.assembly import assemble
from nexus.training.distributed import World
from nexus.training.engine import Engine
from nexus.training.recipe_files import override_recipe, recipe_from_mapping

TINY = {
    "image_size": 32,
    "patch_size": 4,
    "encoder_embed_dim": 32,
    "encoder_depth": 2,
    "encoder_num_heads": 2,
    "window_size": 8,
    "embed_dim": 32,
    "decoder_num_heads": 4,
    "decoder_mlp_dim": 48,
    "iou_head_dim": 32,
    "drop_path_rate": 0.1,
}
PIXELS = {"image_size": [32, 32], "resize": "squash", "mean": [0.5] * 3, "std": [0.25] * 3}
ONE = World(0, 1, torch.device("cpu"))


class Blocks:
    """Grey noise of 32 x 32 pixels with a yellow rectangle in each image, and in every third with two."""

    name, class_names, in_channels = "blocks", ("block",), 3

    def __init__(self, count):
        rng = np.random.default_rng(0)
        self.images = rng.integers(60, 100, (count, 32, 32, 3), dtype=np.uint8)
        scenes = []
        for number, image in enumerate(self.images):
            objects = []
            for left, right in ((0, 16), (16, 32)) if number % 3 == 2 else ((0, 32),):
                width, height = rng.integers(8, 13, 2)
                x, y = rng.integers(left, right - width), rng.integers(0, 32 - height)
                mask = np.zeros((32, 32), dtype=bool)
                mask[y : y + height, x : x + width] = True
                image[mask] = (230, 200, 40)
                objects.append(Object(0, encode(mask).box, encode(mask)))
            scenes.append(Scene(f"blocks[{number}]", 32, 32, tuple(objects)))
        self.annotations = Annotations(tuple(scenes), self.class_names)
        self.labels = all_labels(scenes)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        scene = self.annotations.scenes[index]
        return DetectionSample(self.images[index], scene, scene.path)


def recipe(*changes):
    return override_recipe(
        recipe_from_mapping(
            {
                "model": {"name": "sam_vit_base", "config": {**TINY}},
                "data": {"preprocessing": PIXELS},
                "augment": {"flip": 0.5},
                "optimizer": {"lr": 2e-3},
                "training": {"epochs": 2, "batch_size": 4, "num_threads": 1, "device": "cpu", "log_every": 1},
                "prompts": {"rounds": 2, "refinements": 1},
            }
        ),
        changes,
    )


def data():
    return {"train_data": Blocks(8), "val_data": Blocks(2)}


def engine(*changes):
    torch.manual_seed(0)
    parts = assemble(recipe(*changes), ONE, None, Blocks(4), Blocks(2))
    run = Engine(parts.model, parts.task, recipe(*changes), ONE, 1)
    run.train()
    return run, next(parts.train.epoch(0))


def moved(run, batch):
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.step(batch)
    return {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}


def test_what_is_frozen_stays_and_is_encoded_once_without_a_gradient():
    run, batch = engine("training.freeze=[image_encoder.]")
    seen = []
    run.model.image_encoder.register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
    changed = moved(run, batch)
    assert changed
    assert all(name.startswith(("prompt_encoder.", "mask_decoder.")) for name in changed)
    [(images, embeddings)] = seen
    assert len(images) == 4
    assert not embeddings.requires_grad
    assert not run.model.image_encoder.training
    assert run.model.mask_decoder.training
    whole, batch = engine()
    assert any(name.startswith("image_encoder.blocks.0") for name in moved(whole, batch))
    assert whole.model.image_encoder.training


def test_targets_are_the_objects_of_their_images_filled_up():
    run, batch = engine("data.preprocessing.resize=within", "data.preprocessing.resize_size=20")
    seen = []
    run.model.register_forward_pre_hook(lambda module, given, named: seen.append((given[0], named)), with_kwargs=True)
    run.step(batch)
    [(images, named)] = seen
    targets = named["targets"]
    assert images.shape[-2:] == targets.masks.shape[-2:] == (32, 32)
    assert not images[..., 20:].any()
    expected = [(place, mask > 0) for place, one in enumerate(batch["targets"]) for mask in one["masks"]]
    assert targets.image.tolist() == [place for place, _ in expected]
    assert all(torch.equal(mask[:20, :20], own) for mask, (_, own) in zip(targets.masks, expected, strict=True))
    assert not targets.masks[:, 20:].any()
    assert targets.prompting == PromptConfig(rounds=2, refinements=1)


def test_of_many_objects_some_are_drawn():
    run, batch = engine("prompts.max_objects=1")
    seen = []
    run.model.register_forward_pre_hook(lambda module, given, named: seen.append(named["targets"]), with_kwargs=True)
    run.step(batch)
    assert seen[0].image.tolist() == [place for place, one in enumerate(batch["targets"]) if len(one["masks"])]


def test_it_learns_few_scenes(tmp_path):
    given = Blocks(8)
    changes = ["epochs=45", "validate_every=45", "batch_size=8", "optimizer.lr=4e-3", "augment.flip=0"]
    changes += ["model.config.drop_path_rate=0", "rounds=1", "refinements=0"]
    before = nexus.evaluate(assemble(recipe(), ONE, None, given, given).model, given)
    result = Trainer(recipe(*changes), tmp_path / "run", train_data=given, val_data=given, progress="off").fit()
    losses = [record["loss"] for record in result.history if record["kind"] == "train"]
    assert sum(losses[-5:]) < 0.4 * sum(losses[:5])
    for clicks in ("mIoU_1", "mIoU_3", "mIoU_box"):
        assert before.metrics[clicks] < 0.3
        assert result.metrics[clicks] > 0.4


class Stop:
    """A callback that ends this process politely at a step."""

    def __init__(self, step):
        self.step = step

    def __call__(self, record):
        if record["kind"] == "train" and record["step"] == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_stopped_run_goes_on_bit_by_bit(tmp_path):
    changes = ["training.accumulate=2", "training.ema=0.9"]
    Trainer(recipe(*changes), tmp_path / "whole", **data(), progress="off").fit()
    with pytest.raises(Interrupted):
        Trainer(recipe(*changes), tmp_path / "cut", **data(), progress="off", callbacks=[Stop(3)]).fit()
    Trainer(recipe(*changes), tmp_path / "cut", **data(), progress="off", resume=True).fit()
    for name in ("metrics.jsonl", "model/model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_commands_train_measure_and_report(tmp_path):
    def run(*words):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.output

    blocks = Blocks(6)
    for split, places in (("train", range(4)), ("val", range(4, 6))):
        files = []
        for place in places:
            path = tmp_path / "blocks" / f"{split}-{place}.png"
            path.parent.mkdir(exist_ok=True)
            PIL.Image.fromarray(blocks.images[place]).save(path)
            files.append(replace(blocks.annotations.scenes[place], path=str(path)))
        write_coco(blocks.annotations.of(files), tmp_path / "blocks" / f"{split}.json")
    folder = tmp_path / "run"
    sizes = [f"model.config.{key}={value}" for key, value in TINY.items() if key != "image_size"]
    changes = ["epochs=1", "batch_size=4", "image_size=32", "rounds=1", "refinements=0", *sizes]
    run("train", "sam_vit_base", "--data", f"coco:{tmp_path / 'blocks'}", "-o", folder, *changes)
    assert set(json.loads(run("eval", folder, "--json"))["metrics"]) == {"mIoU_1", "mIoU_3", "mIoU_5", "mIoU_box"}
    run("report", folder)
    page = (folder / "report.html").read_text()
    assert "Click by click" in page
    assert page.count("<img") >= 5


def changed(scenes, change):
    other = Blocks(len(scenes))
    made = [replace(one, objects=tuple(map(change, one.objects))) for one in scenes.annotations.scenes]
    other.annotations = scenes.annotations.of(made)
    return other


def test_errors(tmp_path):
    scenes, model = Blocks(4), SAM(SAMConfig(**TINY))
    model.preprocessing = assemble(recipe(), ONE, None, scenes, None).model.preprocessing

    def fit(what, given, **settings):
        return nexus.fit(what, given, run_dir=tmp_path / "run", progress="off", batch_size=4, **settings)

    boxes = changed(scenes, lambda one: replace(one, mask=None))
    with pytest.raises(ValueError, match="'blocks' has boxes and no masks; a model for promptable-segmentation"):
        fit(model, boxes)
    with pytest.raises(ValueError, match="'digits' has no objects in its images"):
        fit(model, "digits")
    medical = MedSAM(SAMConfig(**TINY))
    medical.preprocessing = model.preprocessing
    with pytest.raises(ValueError, match="train a SAM, not a MedSAM; load its weights as a SAM"):
        fit(medical, scenes)
    with pytest.raises(ValueError, match=r"training\.sharding is 'fsdp', which a promptable segmenter cannot use"):
        fit(model, scenes, sharding="fsdp")
    with pytest.raises(ValueError, match=r"prompts\.rounds is -1; it must be at least 0"):
        fit(model, scenes, rounds=-1)
    with pytest.raises(
        ValueError, match=r"training\.freeze: no parameter starts with 'image_encodr\.'\. Did you mean 'im"
    ):
        fit(model, scenes, freeze=["image_encodr."])
    with pytest.raises(ValueError, match="linear_probe is true, which freezes the rest too"):
        fit(model, scenes, freeze=["image_encoder."], linear_probe=True)
    with pytest.raises(ValueError, match=r"prompts is .*'rounds': 2.*, and classification has nothing that it is for"):
        fit("resnet18", "digits", prompts={"rounds": 2})
