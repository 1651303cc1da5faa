"""What a detector got wrong, image by image, and the curves and pictures of it."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from nexus.data.detection import Object, Scene
from nexus.tasks.detection.coco_figures import Found
from nexus.tasks.detection.detections import Detections
from nexus.tasks.detection.errors import find_errors, precision_recall
from nexus.tasks.detection.report import DetectionEvaluation
from nexus.visualization.detection_errors import COLOURS, plot_precision_recall
from nexus.visualization.objects import draw_objects

CAT, DOG, CUP, CROWDED = (10, 10, 40, 40), (60, 10, 90, 40), (10, 60, 40, 90), (60, 60, 95, 95)
SCENE = Scene("a.png", 100, 100, (Object(0, CAT), Object(1, DOG), Object(2, CUP), Object(0, CROWDED, crowd=True)))
FOUND = Found(  # a cat twice, a dog that is called a cat, a find on nothing, one on the crowd, one that is not sure
    np.array([CAT, CAT, DOG, (45, 45, 58, 58), CROWDED, CUP], dtype=float),
    np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.1]),
    np.array([0, 0, 0, 1, 0, 2]),
)


def evaluation(scene=SCENE, found=FOUND):
    names = ("cat", "dog", "cup")
    return DetectionEvaluation(
        data="pets",
        task="detection",
        num_images=1,
        metrics={},
        class_names=names,
        figures=(),
        truth=[scene],
        results=[Detections(scene.path, *scene.size, found, names)],
    )


def test_each_find_and_each_object_has_one_fate():
    errors = find_errors(SCENE, FOUND)
    assert errors.right == [(0, 0)]
    assert errors.confused == [(2, 1)]
    assert errors.false == [1, 3]
    assert errors.missed == [2]
    assert find_errors(SCENE, FOUND, min_score=0.05).missed == []
    assert find_errors(SCENE, FOUND, min_score=0.95).missed == [0, 1, 2]


def test_images_without_objects_or_finds():
    empty = Found(np.empty((0, 4)), np.empty(0), np.empty(0, dtype=int))
    assert find_errors(SCENE, empty).missed == [0, 1, 2]
    assert find_errors(Scene("b.png", 100, 100), FOUND).false == [0, 1, 2, 3, 4]
    assert find_errors(Scene("b.png", 100, 100), empty) == ([], [], [], [])


def test_curves_count_finds_from_the_surest_down():
    [(recall, precision, scores)] = precision_recall([SCENE], [FOUND], [0])
    assert recall.tolist() == [1, 1, 1]
    np.testing.assert_allclose(precision, [1, 1 / 2, 1 / 3])
    assert scores.tolist() == [0.9, 0.8, 0.7]
    assert [values.size for values in precision_recall([Scene("b.png", 9, 9)], [FOUND], [0])[0]] == [0, 0, 0]
    axes = evaluation().plot_precision_recall().axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["cat", "dog", "cup"]
    with pytest.raises(ValueError, match="no class has both objects and finds"):
        plot_precision_recall({"cat": (np.empty(0), np.empty(0))})


def test_a_picture_of_errors_shows_each_kind_in_its_colour(tmp_path):
    one = evaluation()
    picture = one.draw_errors(0, Image.new("RGB", (100, 100), "white"))
    colours = {colour for _, colour in picture.getcolors(1 << 20)}
    for kind, colour in COLOURS.items():
        assert tuple(bytes.fromhex(colour[1:])) in colours, kind
    assert one.worst() == [0]
    perfect = Found(np.array([CAT, DOG, CUP], dtype=float), np.ones(3), np.arange(3))
    assert evaluation(found=perfect).worst() == []


def test_captions_stand_outside_of_the_boxes_where_there_is_room():
    image = Image.new("RGB", (500, 500), "white")
    boxes = np.array([[100, 100, 300, 200], [100, 205, 300, 400]], dtype=float)
    picture = np.asarray(draw_objects(image, boxes, ["above or beside", "below or beside"], [0, 1]))
    for x1, y1, x2, y2 in boxes.astype(int):
        assert (picture[y1 + 4 : y2 - 4, x1 + 4 : x2 - 4] == 255).all()


def test_the_page_shows_the_figures_the_curves_and_the_errors():
    image = Image.new("RGB", (100, 100), "white")
    one, pets = evaluation(), [SimpleNamespace(image=image)]
    _, curves, errors = one.sections(pets)
    assert (len(curves.pictures), [picture.alt for picture in errors.pictures]) == (1, ["a.png"])
    assert errors.rows == one.fates()
    fates = {row.pop("class"): tuple(row.values()) for row in one.fates()}
    assert fates == {"cat": (1, 1, 1, 0), "dog": (0, 0, 1, 0), "cup": (0, 0, 0, 1)}  # right, confused, false, missed
    silent = evaluation(found=Found(np.empty((0, 4)), np.empty(0), np.empty(0, dtype=int)))
    assert "no class has both objects and finds" in silent.sections(pets)[1].text


def test_true_boxes_stand_beside_the_finds():
    shifted = Found(np.array([[14.0, 14, 44, 44]]), np.array([0.9]), np.array([0]))
    scene = Scene("a.png", 100, 100, (Object(0, CAT),))
    picture = evaluation(scene, shifted).draw_errors(0, Image.new("RGB", (100, 100), "grey"))
    assert picture.getpixel((10 * 5, 20 * 5)) == (255, 255, 255)


def test_the_representation_names_the_surest():
    [one] = evaluation().results
    assert repr(one) == (
        "Detections(a.png, 100 x 100, 6 objects: cat 90.0%, cat 80.0%, cat 70.0%, dog 60.0%, cat 50.0%, ...)"
    )
