"""Data of others: torch's data sets and loaders train and measure a model, and what cannot be understood is said."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from nexus.core.preprocessing import Preprocessing
from nexus.data import DataError, load_dataset
from nexus.data.adapt import Adapted, as_dataset
from nexus.data.facets import Annotated, Captioned, Labelled, Pictured, Rays
from nexus.data.foreign_loader import ForeignLoader
from nexus.evaluation import evaluate
from nexus.training import fit

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 90)
PIXELS = (RNG.integers(0, 100, (90, 8, 8, 3)) + 70 * LABELS[:, None, None, None]).astype(np.uint8)
TENSORS = TensorDataset(torch.tensor(PIXELS).permute(0, 3, 1, 2) / 128 - 1, torch.tensor(LABELS))


class Pairs(Dataset):
    """As torchvision's: `(image, label)`, `classes` and `targets`."""

    classes, targets = ["dark", "middle", "light"], LABELS.tolist()

    def __len__(self):
        return len(PIXELS)

    def __getitem__(self, index):
        return Image.fromarray(PIXELS[index]), int(LABELS[index])


class Mappings(Dataset):
    """As those of the hub: mappings, here with arrays, and nothing known beforehand."""

    def __len__(self):
        return len(PIXELS)

    def __getitem__(self, index):
        return {"image": PIXELS[index], "label": torch.tensor(LABELS[index]), "id": index}


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))


SETTINGS = {"epochs": 6, "batch_size": 16, "lr": 1e-2, "device": "cpu", "progress": "off"}


@pytest.mark.parametrize("kind", [Pairs, Mappings])
def test_images_of_a_torch_dataset_are_prepared_as_our_own(kind, tmp_path):
    data = kind()
    adapted = as_dataset(data)
    assert adapted.class_names == (("dark", "middle", "light") if kind is Pairs else ("0", "1", "2"))
    assert (adapted.labels == LABELS).all()
    assert (adapted.in_channels, adapted.as_input, adapted.name) == (3, False, kind.__name__)
    result = fit(model(), (data, data), run_dir=tmp_path / "run", **SETTINGS)
    assert result.metrics["top1"] > 0.8
    half = Preprocessing(image_size=(8, 8), resize="none", mean=(0.5,) * 3, std=(0.5,) * 3)
    report = evaluate(result.model, data, preprocessing=half, batch_size=7)
    assert report.metrics["top1"] == pytest.approx(result.metrics["top1"])
    assert report.predictions[3].path == f"{kind.__name__}[3]"


def test_tensors_of_floats_go_in_as_they_are(tmp_path):
    result = fit(model(), (TENSORS, TENSORS), run_dir=tmp_path / "run", **SETTINGS)
    assert result.metrics["top1"] > 0.8
    logits = result.model(TENSORS.tensors[0])
    assert (logits.argmax(1) == TENSORS.tensors[1]).float().mean().item() == pytest.approx(result.metrics["top1"])
    assert evaluate(result.model, TENSORS).metrics["top1"] == pytest.approx(result.metrics["top1"])
    with pytest.raises(ValueError, match="augment changes images, and 'TensorDataset' gives tensors"):
        fit(model(), TENSORS, run_dir=tmp_path / "other", augment={"flip": 0.5}, **SETTINGS)


def test_a_dataloader_keeps_its_batches(tmp_path):
    shuffled = DataLoader(TENSORS, batch_size=30, shuffle=True, drop_last=True)
    held_out = DataLoader(TENSORS, batch_size=50)
    result = fit(model(), (shuffled, held_out), run_dir=tmp_path / "run", **SETTINGS)
    assert result.history[-1]["step"] == 18
    assert result.metrics["top1"] > 0.7
    assert evaluate(result.model, held_out).metrics == pytest.approx(evaluate(result.model, TENSORS).metrics)


def test_the_order_of_a_dataloader_follows_from_seed_and_epoch_alone():
    loader = DataLoader(TENSORS, batch_size=16, shuffle=True)

    def order(epoch, start=0, seed=0):
        torch.rand(3)  # what others draw does not matter
        return [batch["labels"].tolist() for batch in ForeignLoader(loader, seed=seed).epoch(epoch, start)]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != order(1, seed=1)
    assert order(1, 4) == order(1)[4:]
    places = [batch["index"].tolist() for batch in ForeignLoader(loader).epoch(0, 4)]
    assert places == [[*range(64, 80)], [*range(80, 90)]]


def test_a_run_over_a_dataloader_goes_on_exactly(tmp_path):
    class Stop(Exception):
        pass

    def stop(record):
        if record["step"] == 8:
            raise Stop

    from nexus.training import Recipe, Trainer

    settings = {"epochs": 4, "batch_size": 30, "device": "cpu", "checkpoint_every": 1, "log_every": 1}
    recipe = Recipe.from_mapping({"training": settings})
    data = {"train_data": DataLoader(TENSORS, batch_size=30, shuffle=True)}
    whole = Trainer(recipe, tmp_path / "a", model=model(), **data, progress="off").fit()
    with pytest.raises(Stop):
        Trainer(recipe, tmp_path / "b", model=model(), **data, progress="off", callbacks=[stop]).fit()
    parts = Trainer(recipe, tmp_path / "b", model=model(), **data, progress="off", resume=True).fit()
    assert parts.history == whole.history


class Endless(IterableDataset):
    def __iter__(self):
        return iter(TENSORS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Endless(), "Endless without a length or without items by number"),
        ([], r"data \(list\) is empty"),
        ([(np.zeros((4, 4, 3), np.uint8),)], r"list\[0\] is 1 values; an item is \(image, label\)"),
        ([np.zeros((4, 4, 3), np.uint8)], r"list\[0\] is a ndarray; an item is \(image, label\)"),
        ([{"pixels": 1, "label": 0}], r"list\[0\] has the keys pixels, label; it needs an image \(image, images"),
        ([(np.zeros((4, 4, 3), np.uint8), "cat")], r"list\[0\]: the label is 'cat'; it must be the number of a class"),
        ([(torch.zeros(4, 4), 0)], r"list\[0\]: the tensor has the shape \(4, 4\); an image is \(c, h, w\)"),
    ],
)
def test_what_cannot_be_understood_is_said(data, message):
    with pytest.raises(DataError, match=message):
        as_dataset(data)


def test_two_processes_need_a_sampler_that_splits():
    with pytest.raises(DataError, match="gives each of 2 processes the same batches; give it a DistributedSampler"):
        ForeignLoader(DataLoader(TENSORS), world_size=2)


def test_facets_are_asked_for_where_they_are_needed():
    digits = load_dataset("digits", "val")
    assert isinstance(digits, Labelled)
    assert isinstance(digits, Pictured)
    assert not isinstance(digits, Annotated | Captioned | Rays)
    assert as_dataset(digits) is digits
    assert isinstance(as_dataset(Pairs()), Adapted)


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))


def labelled(label):
    return [(torch.zeros(3, 8, 8), label) for _ in range(8)]


@pytest.mark.parametrize("label", [torch.eye(3)[0], -1, 2**70, float("inf"), float("nan"), "cat", None, True])
def test_labels_that_are_no_class(label):
    with pytest.raises(DataError, match=r"data\[0\]: the label is .*; it must be the number of a class, 0 or above."):
        as_dataset(Named(labelled(label)))


def test_targets_that_are_no_classes():
    data = Named(labelled(1))
    data.targets = [1, 1, -3, 1, 1, 1, 1, 1]
    with pytest.raises(DataError, match=r"data\[2\]: the label is -3"):
        as_dataset(data)


class Named(list):
    """Items, and a name for the messages."""

    name = "data"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batch_size": 128, "drop_last": True}, "has no batch"), ({"batch_size": None}, "single items")],
)
def test_a_loader_without_batches(options, message, tmp_path):
    with pytest.raises(DataError, match=message):
        fit(linear(), DataLoader(TENSORS, **options), run_dir=tmp_path / "run", epochs=1, progress="off")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floats_of_any_width_train_and_measure(dtype, tmp_path):
    data = TensorDataset(TENSORS.tensors[0].to(dtype), TENSORS.tensors[1])
    result = fit(linear(), (data, data), run_dir=tmp_path / "run", epochs=1, batch_size=16, progress="off")
    assert result.metrics["top1"] == pytest.approx(evaluate(result.model, data).metrics["top1"])


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (nn.Linear, TENSORS, "model is the class Linear"),
        (3, TENSORS, "model is a int"),
        (linear(), None, "data is None"),
        (linear(), (None, TENSORS), "data is None"),
        (linear(), (TENSORS,) * 3, "data is 3 values"),
        (linear(), Path("photos"), "data is 'photos'; give a data set, or name one in a text"),
    ],
)
def test_what_fit_is_not_given(model, data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fit(model, data, run_dir=tmp_path / "run", epochs=1, progress="off")


def test_a_display_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="progress is 'of'; it must be one of auto, bar, lines, off"):
        fit(linear(), TENSORS, run_dir=tmp_path / "run", epochs=1, progress="of")


def test_a_seed_that_torch_cannot_take(tmp_path):
    with pytest.raises(ValueError, match="seed is 9223372036854775808; it must be below"):
        fit(linear(), TENSORS, run_dir=tmp_path / "run", epochs=1, seed=2**63, progress="off")


class Two(nn.Module):
    """A model that gives its logits and something else."""

    def __init__(self):
        super().__init__()
        self.line = linear()

    def forward(self, images):
        return self.line(images), images


def test_a_model_that_gives_a_tuple(tmp_path):
    with pytest.raises(ValueError, match="Two gives a tuple; a classifier gives logits"):
        fit(Two(), TENSORS, run_dir=tmp_path / "run", epochs=1, batch_size=8, progress="off")
