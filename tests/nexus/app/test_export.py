"""What is exported is accepted by `nexus data check`, and says what was marked."""

import json

import numpy as np
import PIL.Image
import pytest

from nexus.app.annotate.export import export, flat_names, sides
from nexus.app.annotate.marks import Mark, Marks, runs_of
from nexus.app.annotate.project import Project
from nexus.data.check import check_source
from nexus.data.detection import Annotations, Object, Scene, read_annotations
from tests.drawn_sets import drawn
from tests.nexus.app.test_project import HEIGHT, WIDTH


def masks(seed):
    image, things = drawn(seed)
    found = []
    for label, x1, y1, x2, y2 in things:
        inside = np.zeros((HEIGHT, WIDTH), bool)
        inside[y1:y2, x1:x2] = True
        colour = ((250, 220, 20), (20, 60, 220))[label]
        found.append((label + 1, inside & (np.asarray(image) == colour).all(axis=2)))
    return found


@pytest.fixture
def marked(project):
    """All images but one are marked, one of them as empty."""
    for number in range(6):
        if number == 2:
            continue
        objects = () if number == 1 else tuple(Mark(label, runs_of(mask)) for label, mask in masks(number))
        project.save(number, Marks(HEIGHT, WIDTH, objects, done=number == 1))
    return project


@pytest.mark.parametrize("name", ["coco", "yolo", "yolo-boxes"])
def test_data_check_accepts_it(marked, name):
    made = export(marked, name)
    checked = check_source(made.check)
    assert checked.faults == []
    assert checked.images == made.images == 5
    assert checked.objects == made.objects == sum(len(masks(number)) for number in (0, 3, 4, 5))
    found = {scene.path.rpartition("/")[2]: scene for scene in read_annotations(made.check).scenes}
    assert set(found) == {"0.png", "1.png", "3.png", "4.png", "more_5.png"}
    for number, file in ((0, "0.png"), (3, "3.png"), (5, "more_5.png")):
        for one, (label, mask) in zip(found[file].objects, masks(number), strict=True):
            assert one.label + 1 == label
            runs = found[file].rle(one)
            if name == "yolo-boxes":
                rows, columns = np.nonzero(mask)
                box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                np.testing.assert_allclose(one.box, box, atol=1e-6)
            else:
                assert runs is not None
                assert np.array_equal(runs.decode(), mask)


def test_png_has_classes_and_objects(marked):
    made = export(marked, "png")
    root = marked.output / "png"
    assert made.check == ""
    assert json.loads((root / "classes.json").read_text()) == {"0": "background", "1": "disc", "2": "square"}
    with PIL.Image.open(root / "classes" / "3.png") as classes, PIL.Image.open(root / "objects" / "3.png") as objects:
        assert classes.mode == "P"
        assert classes.getpalette()[3:6] == [0x3B, 0x9D, 0xFF]
        found, numbers = np.asarray(classes), np.asarray(objects)
    wanted = np.zeros((HEIGHT, WIDTH), int)
    for place, (label, mask) in enumerate(masks(3), start=1):
        wanted[mask] = label
        assert np.array_equal(numbers == place, mask)
    assert np.array_equal(found, wanted)


def test_an_export_takes_the_place_of_the_one_before_and_of_nothing_else(marked):
    export(marked, "coco")
    marked.save(2, Marks(HEIGHT, WIDTH, (Mark(1, (0, 5, HEIGHT * WIDTH - 5)),)))
    assert export(marked, "coco").images == 6
    assert not [path for path in marked.output.iterdir() if "incomplete" in path.name]
    (marked.output / "yolo").mkdir()
    (marked.output / "yolo" / "mine.txt").write_text("")
    with pytest.raises(ValueError, match="yolo was not made by an export; move it away"):
        export(marked, "yolo")
    assert (marked.output / "yolo" / "mine.txt").exists()


def test_copies_of_an_object_are_written_once(project):
    mark = Mark(1, (0, 5, HEIGHT * WIDTH - 5))
    project.save(0, Marks(HEIGHT, WIDTH, (mark, mark)))
    made = export(project, "coco")
    assert (made.objects, made.left_out) == (1, 1)
    assert check_source(made.check).faults == []


def test_what_cannot_be_exported_is_named(project):
    with pytest.raises(ValueError, match="Nothing is marked yet"):
        export(project, "coco")
    with pytest.raises(ValueError, match=r"There is no format 'cocoa'\. Did you mean 'coco'"):
        export(project, "cocoa")


def test_names_without_folders_are_each_their_own():
    assert flat_names(["a.jpg", "a.png", "b/a.jpg", "b_a.jpg", "A.JPG"]) == [
        "a.jpg",
        "a-2.png",
        "b_a.jpg",
        "b_a-2.jpg",
        "A-3.JPG",
    ]


def test_no_class_is_held_out_alone():
    def scene(name, *labels):
        return Scene(name, 9, 9, tuple(Object(label, (0, 0, 1, 1)) for label in labels))

    many = tuple(scene(f"{number}.png", number % 2) for number in range(40))
    rare = tuple(scene(f"r{number}.png", number + 2) for number in range(20))
    empty = tuple(scene(f"e{number}.png") for number in range(20))
    found = sides(Annotations((*many, *rare, *empty), tuple(map(str, range(22)))))
    learnt = {one.label for scene in found["train"].scenes for one in scene.objects}
    assert learnt == set(range(22))
    assert 2 <= len(found["val"].scenes) <= 16
    assert all(scene.objects for scene in found["val"].scenes)
    assert sum(len(one.scenes) for one in found.values()) == 80
    assert set(sides(Annotations((scene("a.png", 0),), ("a",)))) == {"train"}


def test_a_project_is_exported_after_it_was_closed(marked, photos):
    assert export(Project(photos), "coco").images == 5
