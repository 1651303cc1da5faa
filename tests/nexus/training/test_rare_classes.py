"""Rare classes: weights of the loss, and balanced drawing; kinds without classes per image refuse both."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nexus.data import Loader, Sample
from nexus.tasks import get_task
from nexus.tasks.classification.classes import class_weights
from nexus.training import Recipe, load_recipe
from nexus.training.assembly import assemble, check_settings
from nexus.training.distributed import World
from nexus.training.recipe_files import override_recipe

ONE = World(0, 1, torch.device("cpu"))


class Rare:
    """90 images of the first class, 10 of the second, none of the third; the pixels tell the image."""

    name, in_channels, class_names = "rare", 1, ("often", "seldom", "never")
    labels = np.repeat([0, 1], [90, 10])

    def __len__(self):
        return 100

    def __getitem__(self, index):
        return Sample(np.full((8, 8, 1), index, np.uint8), int(self.labels[index]), f"rare[{index}]")


def parts(small, **changes):
    recipe = small.recipe(**changes)
    return assemble(recipe, ONE, None, Rare(), Rare())


def test_weights_make_classes_count_alike():
    weights = class_weights(Rare())
    assert weights == [pytest.approx(100 / 2 / 90), pytest.approx(5.0), 0.0]
    assert np.asarray(weights)[Rare.labels].mean() == pytest.approx(1)


def test_the_loss_is_weighed_and_its_parts_add_up(small):
    made = parts(small, training={"class_weights": "balanced"})
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    batch = {"images": torch.randn(6, 1, 2, 2), "labels": torch.tensor([0, 1, 0, 0, 0, 1])}

    def loss(chosen):
        cut = {key: value[chosen] for key, value in batch.items()}
        return made.task.losses(model, cut)[1]["cross_entropy"]

    weights = torch.tensor(class_weights(Rare()))[batch["labels"]]
    alone = F.cross_entropy(model(batch["images"]), batch["labels"], reduction="none")
    torch.testing.assert_close(loss(slice(None)), (weights * alone).mean())
    torch.testing.assert_close((loss(slice(0, 3)) + loss(slice(3, 6))) / 2, loss(slice(None)))
    plain = parts(small).task
    torch.testing.assert_close(plain.losses(model, batch)[1]["cross_entropy"], alone.mean())


def test_balanced_drawing_shows_classes_equally_often(small):
    loader = parts(small, data={"sampling": "balanced"}).train
    labels = torch.cat([batch["labels"] for epoch in range(20) for batch in loader.epoch(epoch)])
    assert len(labels) == 20 * 96
    assert (labels == 1).float().mean() == pytest.approx(0.5, abs=0.04)
    plain = torch.cat([batch["labels"] for epoch in range(20) for batch in parts(small).train.epoch(epoch)])
    assert (plain == 1).float().mean() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("world_size", [1, 2])
def test_balanced_batches_are_the_same_for_any_ranks_and_workers(world_size):
    def transform(image, rng):
        return torch.full((1, 1, 1), float(rng.random()))

    settings = {"batch_size": 20, "shuffle": True, "weights": np.asarray(class_weights(Rare()))[Rare.labels]}
    whole = list(Loader(Rare(), transform, **settings).epoch(3))
    ranks = [Loader(Rare(), transform, rank=rank, world_size=world_size, **settings) for rank in range(world_size)]
    for step, shares in enumerate(zip(*(loader.epoch(3) for loader in ranks), strict=True)):
        for key in ("index", "images"):
            assert torch.equal(torch.cat([share[key] for share in shares]), whole[step][key])
    later = list(Loader(Rare(), transform, **settings).epoch(3, start_step=2))
    assert torch.equal(later[0]["images"], whole[2]["images"])
    drawn, pixels = torch.cat([b["index"] for b in whole]), torch.cat([b["images"] for b in whole]).flatten()
    twice = [pixels[drawn == index] for index in drawn.unique() if (drawn == index).sum() > 1]
    assert twice
    assert all(len(same.unique()) == len(same) for same in twice)  # each draw is augmented anew


@pytest.mark.parametrize(
    "change", ["training.label_smoothing=0.1", "training.class_weights=balanced", "data.sampling=balanced"]
)
@pytest.mark.parametrize("name", ["detection", "image-text", "masked-image-modeling"])
def test_kinds_without_a_class_per_image_refuse_it(change, name):
    recipe = override_recipe(Recipe(), [change])
    with pytest.raises(ValueError, match=rf"{change.partition('=')[0]} is .*, and {name} has nothing that it is for"):
        check_settings(type(get_task(name)), recipe)


def test_a_mistaken_value_is_named():
    with pytest.raises(ValueError, match=r"training\.class_weights is 'even'; it must be"):
        load_recipe("digits/vit_tiny", ["class_weights=even"])
    assert load_recipe("digits/vit_tiny", ["sampling=balanced"]).data.sampling == "balanced"
