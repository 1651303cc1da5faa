"""Names of classes on the cards of published detectors."""

from nexus.models.cv.cards.coco import COCO_80, COCO_90, COCO_91
from nexus.models.registry import all_cards


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
