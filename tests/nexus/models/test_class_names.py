"""Names of classes on the cards of published detectors and classifiers."""

import subprocess
import sys

import numpy as np
import pytest

from nexus.data import Sample
from nexus.models.cv.cards.coco import COCO_80, COCO_90, COCO_91
from nexus.models.cv.cards.imagenet import COUNTS, names, synsets
from nexus.models.registry import all_cards, create_model, model_info
from nexus.tasks.classification.classes import match_classes


def test_every_published_detector_names_each_of_its_labels():
    files = [(card, weights) for card in all_cards() if card.task == "detection" for weights in card.weights]
    assert len(files) > 25
    for card, weights in files:
        config = card.config.replace(**weights.changes)
        assert len(weights.class_names) == config.num_classes, weights.url


def test_names_stand_where_torchvision_has_them(torchvision):
    from torchvision.models._meta import _COCO_CATEGORIES as THEIRS

    assert list(COCO_90) == THEIRS[1:]
    assert list(COCO_91[1:]) == THEIRS[1:]
    assert list(COCO_80) == [name for name in THEIRS[1:] if name != "N/A"]
    assert len(COCO_80) == len(set(COCO_80)) == 80


def test_every_published_classifier_names_each_of_its_outputs():
    files = [(card, weights) for card in all_cards() if card.task == "classification" for weights in card.weights]
    counts = set()
    for card, weights in files:
        count = card.config.replace(**weights.changes).num_classes
        assert len(weights.class_names) == count, weights.url
        counts.add(count)
    assert counts == {0, *COUNTS}
    weights = model_info("resnet50").find_weights()
    assert (weights.class_names[0], weights.class_names[-1]) == ("tench", "toilet tissue")
    assert list(weights.class_names[:2]) == ["tench", "goldfish"]


@pytest.mark.parametrize("count", COUNTS)
def test_names_of_imagenet_are_those_of_timm_and_torchvision(count, timm, torchvision):
    from timm.data import ImageNetInfo
    from timm.data.imagenet_info import _NUM_CLASSES_TO_SUBSET
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    theirs = ImageNetInfo(_NUM_CLASSES_TO_SUBSET[count])
    assert list(synsets(count)) == theirs.label_names()
    wanted = _IMAGENET_CATEGORIES if count == 1000 else [theirs.index_to_description(i) for i in range(count)]
    assert list(names(count)) == wanted


def test_names_are_read_when_they_are_asked_for():
    code = "from nexus.models.cv.cards import imagenet; print(imagenet._rows.cache_info().currsize)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "0\n"


class Folder:
    """A data set whose classes are called as the folders of ImageNet are."""

    name, labels, class_names = "two-of-imagenet", np.array([0, 1, 1]), ("n01443537", "n01440764")

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return Sample(np.zeros((4, 4, 3), np.uint8), int(self.labels[index]))


def test_a_folder_of_synset_numbers_is_matched_with_names():
    model = create_model("resnet18", hidden_dim=8)
    model.class_names = names(1000)
    assert model.class_names[:2] == ("tench", "goldfish")
    assert match_classes(model.class_names, Folder.class_names, Folder.name) == (1, 0)
