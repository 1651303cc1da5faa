"""The options of a recipe, each by what it changes."""

import pytest
import torch
from torch import nn

from nexus.core.module import NexusModule
from nexus.models.registry import create_model
from nexus.tasks import get_task
from nexus.training import Trainer, fit
from nexus.training.assembly import assemble, choose_preprocessing, make_model
from nexus.training.distributed import World
from nexus.training.engine import Engine
from nexus.training.recipe import DataRecipe
from nexus.training.trainer import cpu_threads

ONE = World(0, 1, torch.device("cpu"))


def engine(small, module=None, **changes):
    recipe = small.recipe(**changes)
    torch.manual_seed(0)
    parts = assemble(recipe, ONE, module, **small.data())
    return Engine(parts.model, parts.task, recipe, ONE, len(parts.train)), parts


def take_steps(engine, parts, count=3):
    engine.train()
    batches = parts.train.epoch(0)
    return [engine.step(next(batches)) for _ in range(count)]


QUIET = {"patch_size": 4, "embed_dim": 16, "num_layers": 2, "num_heads": 2, "weight_std": 0.2, "position_std": 0.5}


def test_learns_and_saves_a_model_that_predicts_the_same(small, tmp_path):
    recipe = small.recipe(training={"epochs": 12}, model={"config": QUIET}, augment={"pad_crop": 0})
    data = small.data()
    result = Trainer(recipe, tmp_path / "run", **data, progress="off").fit()
    assert result.metrics["top1"] > 0.9
    [kept] = [record for record in result.history if record["kind"] == "val" and record["step"] == result.step]
    assert result.metrics == {k: v for k, v in kept.items() if k not in ("kind", "step", "epoch")}
    loaded = NexusModule.from_pretrained(tmp_path / "run" / "model")
    assert loaded.class_names == data["train_data"].class_names
    assert loaded.preprocessing == recipe.data.preprocessing
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(loaded(images)["logits"], result.model(images)["logits"])
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names[-1] == "step-00000096"
    assert len(names) <= 3


def test_two_equal_runs_write_equal_files(small, tmp_path):
    for name in ("a", "b"):
        Trainer(small.recipe(training={"epochs": 2}), tmp_path / name, **small.data(), progress="off").fit()
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()


def test_accumulated_parts_equal_one_batch(small):
    whole = engine(small, model={"config": QUIET})
    parts = engine(small, model={"config": QUIET}, training={"accumulate": 4})
    losses = [torch.stack(take_steps(*pair)) for pair in (whole, parts)]
    torch.testing.assert_close(*losses, atol=1e-6, rtol=0)


def test_clipping_bounds_the_gradient(small):
    run, parts = engine(small, training={"clip_norm": 1e-3})
    norm = take_steps(run, parts, 1)[0][run.loss_names.index("gradient_norm")]
    total = torch.stack([p.grad.norm() for p in run.parameters]).norm()
    assert norm > 0.1
    assert total == pytest.approx(1e-3, rel=1e-3)


def test_fp16_may_skip_the_first_step(small):
    run, parts = engine(small, training={"precision": "fp16", "clip_norm": 1.0})
    run.precision.scaler._init_scale = 2.0**40  # overflows
    before = run.model.head.weight.detach().clone()
    row = take_steps(run, parts, 1)[0]
    assert not torch.isfinite(row[run.loss_names.index("gradient_norm")])
    assert torch.equal(run.model.head.weight, before)
    assert run.precision.scaler.get_scale() == 2.0**39


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_float32_weights(small, precision):
    run, parts = engine(small, training={"precision": precision, "clip_norm": 1.0})
    seen = []
    run.model.blocks[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    rows = take_steps(run, parts, 4)
    assert all(torch.isfinite(row).all() for row in rows)
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}
    exact = torch.stack(take_steps(*engine(small, training={"clip_norm": 1.0}), 1))
    torch.testing.assert_close(
        rows[0][None], exact, atol=2e-2, rtol=0
    )  # the norm of the gradients too, of fp16 unscaled
    assert not torch.equal(rows[0][None], exact)
    assert run.precision.scaler.is_enabled() == (precision == "fp16")


def test_linear_probe_trains_the_head_alone(small):
    model = create_model("resnet18", num_classes=4, in_channels=1, stem="cifar", hidden_dim=8, num_layers=(1, 1, 1, 1))
    run, parts = engine(small, module=model, training={"linear_probe": True})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    take_steps(run, parts)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    head = {name for name, _ in model.named_parameters() if name.startswith(("head", "fc"))}
    assert moved == head  # batch norm's statistics stay, too
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_linear_probe_without_a_head(small):
    with pytest.raises(ValueError, match="linear_probe needs a model with a layer `head`; Sequential has 0, 1"):
        engine(small, module=nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), training={"linear_probe": True})


def test_average_is_what_is_evaluated_and_saved(small, tmp_path):
    recipe = small.recipe(training={"ema": 0.5, "epochs": 2})
    result = Trainer(recipe, tmp_path / "run", **small.data(), progress="off").fit()
    parts = assemble(recipe, ONE, result.model, **small.data())
    figures = Engine(parts.model, parts.task, small.recipe(), ONE, len(parts.train)).evaluate(parts.val)
    assert figures == pytest.approx(result.metrics)


def test_channels_last_gives_the_same_losses(small):
    plain = torch.stack(take_steps(*engine(small, model={"config": QUIET})))
    other = torch.stack(take_steps(*engine(small, model={"config": QUIET}, training={"channels_last": True})))
    torch.testing.assert_close(other, plain, atol=1e-5, rtol=0)


def test_gradient_checkpointing(small):
    plain = torch.stack(take_steps(*engine(small)))
    run, parts = engine(small, training={"gradient_checkpointing": True})
    assert run.model.checkpointing
    torch.testing.assert_close(torch.stack(take_steps(run, parts)), plain, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="gradient_checkpointing needs a NexusModule, not a Sequential"):
        engine(small, module=nn.Sequential(nn.Flatten()), training={"gradient_checkpointing": True})


def test_fine_tuning_from_a_checkpoint(small, tmp_path):
    source = create_model("vit_tiny_patch16_224", image_size=8, in_channels=1, num_classes=9, **QUIET)
    source.save_pretrained(tmp_path / "model")
    recipe = small.recipe(model={"config": QUIET, "checkpoint": str(tmp_path / "model")})
    model = make_model(recipe, small.data()["train_data"])
    assert torch.equal(model.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)
    assert model.head.out_features == 4


def test_label_smoothing_reaches_the_task(small):
    _, parts = engine(small, training={"label_smoothing": 0.2})
    assert parts.task == get_task("classification", class_names=small.Stripes.class_names, label_smoothing=0.2)


def test_wrong_fits(small, tmp_path):
    with pytest.raises(ValueError, match=r"num_classes is 7, and the data 'stripes' has 4 classes; leave it out"):
        engine(small, model={"config": {"num_classes": 7}})
    with pytest.raises(ValueError, match=r"'vit_tiny_patch16_224' cannot be made: .*'num_layer'\. Did you mean"):
        engine(small, model={"config": {"num_layer": 7}})
    with pytest.raises(ValueError, match=r"batch_size is 160, and 'stripes' has 139 images"):
        engine(small, training={"batch_size": 160})
    with pytest.raises(ValueError, match=r"model.name is not set"):
        engine(small, model={"name": None})
    run, parts = engine(small, module=nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    with pytest.raises(ValueError, match=r"logits of shape .*num_classes=4"):
        take_steps(run, parts)


def test_failed_start_leaves_no_folder(small, tmp_path):
    recipe = small.recipe(optimizer={"layer_decay": 0.5})
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with pytest.raises(ValueError, match="layer_decay needs a model with blocks"):
        Trainer(recipe, tmp_path / "run", model=model, **small.data(), progress="off").fit()
    assert not (tmp_path / "run").exists()


def test_preprocessing_of_a_model_that_says_nothing(small):
    data = small.data()["train_data"]
    chosen = choose_preprocessing(DataRecipe(), nn.Flatten(), data)
    assert (chosen.image_size, chosen.in_channels, chosen.resize) == ((8, 8), 1, "none")
    model = create_model("vit_tiny_patch16_224", image_size=32, in_channels=1)
    assert choose_preprocessing(DataRecipe(), model, data).image_size == (32, 32)


def test_fit_takes_any_module_and_data(small, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    data = tuple(small.data().values())
    settings = {"epochs": 4, "lr": 0.05, "batch_size": 16, "schedule": {"warmup_epochs": 1.0}}
    result = fit(model, data, run_dir=tmp_path / "run", progress="off", **settings)
    assert result.metrics["top1"] > 0.8
    assert result.model is model
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert [record["epoch"] for record in result.history if record["kind"] == "val"] == [1, 2, 3, 4]
    without = fit(model, data[0], run_dir=tmp_path / "other", progress="off", epochs=1, batch_size=16)
    assert without.metrics == {}


def test_fit_by_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"epochs": 1, "warmup_epochs": 0, "config": {**QUIET, "patch_size": 8}, "tensorboard": True}
    result = fit("vit_tiny_patch16_224", "digits", recipe="digits/vit_tiny", progress="off", **settings)
    assert str(result.run_dir) == "runs/digits-vit_tiny_patch16_224"
    assert result.metrics["top5"] > 0.4
    assert list((result.run_dir / "tensorboard").iterdir())


def test_fit_names_the_nearest_key():
    with pytest.raises(ValueError, match=r"There is no key 'epoch'\. Did you mean"):
        fit("resnet18", "digits", epoch=3)
    with pytest.raises(ValueError, match=r"'name' is ambiguous: model.name, optimizer.name, schedule.name"):
        fit("resnet18", "digits", name="adamw")


def test_threads_are_limited_for_the_run_alone():
    before = torch.get_num_threads()
    inside = []
    with cpu_threads(1):
        inside.append(torch.get_num_threads())
    assert inside == [1]
    assert torch.get_num_threads() == before
    with cpu_threads(None):
        assert torch.get_num_threads() == before


def test_the_average_takes_in_every_step_of_the_optimizer(small):
    run, parts = engine(small, training={"ema": 0.5, "accumulate": 2})
    expected = {name: value.detach().clone() for name, value in run.model.named_parameters()}
    run.train()
    batches = parts.train.epoch(0)
    for step in range(1, 5):
        run.step(next(batches))
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in run.model.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * value.detach()
    assert run.average.updates == 4
    for name, value in expected.items():
        torch.testing.assert_close(run.average.values[name], value, rtol=1e-5, atol=1e-7)


def test_the_first_of_the_best_checkpoints_is_kept_beside_the_last(small, tmp_path, monkeypatch):
    """Of epochs that are equally good the earlier one; a worse one later does not take its place."""
    headlines = iter([0.5, 0.9, 0.9, 0.2])
    monkeypatch.setattr(Engine, "evaluate", lambda self, loader: {"top1": next(headlines), "loss": 1.0})
    recipe = small.recipe(training={"epochs": 4, "keep_checkpoints": 1})
    result = Trainer(recipe, tmp_path, **small.data(), progress="off").fit()
    ends = [record["step"] for record in result.history if record["kind"] == "val"]
    kept = sorted(int(path.name.removeprefix("step-")) for path in (tmp_path / "checkpoints").glob("step-*"))
    assert kept == [ends[1], ends[3]]
