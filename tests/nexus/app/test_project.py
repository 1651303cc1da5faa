"""A project: opened, saved, opened again, and what it refuses."""

import json
import shutil

import pytest

from nexus.app.annotate.marks import Mark, Marks
from nexus.app.annotate.project import Conflict, Project, output_of
from tests.drawn_sets import HEIGHT, WIDTH

PIXELS = HEIGHT * WIDTH


def marks(*labels, revision=0, done=False):
    objects = tuple(Mark(label, (place, 10, PIXELS - 10 - place)) for place, label in enumerate(labels))
    return Marks(HEIGHT, WIDTH, objects, done, revision)


def test_images_are_listed_by_name_and_hidden_files_are_not(photos):
    (photos / ".hidden.png").write_bytes(b"")
    (photos / "notes.txt").write_text("")
    project = Project(photos)
    assert project.names == ["0.png", "1.png", "2.png", "3.png", "4.png", "more/5.png"]
    assert project.output == photos.parent / "photos-annotations" == output_of(photos)
    assert [label.name for label in project.labels] == ["object"]
    assert Project(photos / "0.png").names == ["0.png"]
    assert output_of(photos / "0.png") == photos / "0-annotations"


def test_who_opens_it_again_goes_on(photos, project):
    project.save(0, marks(1, 2))
    project.save(5, marks(2, done=True))
    kept = project.output / "marks" / "more" / "5.png.json"
    assert json.loads(kept.read_text())["revision"] == 1
    assert not [path for path in project.output.rglob("*") if "incomplete" in path.name]
    again = Project(photos, class_names=["square", "ring"])
    assert [label[:2] for label in again.labels] == [(1, "disc"), (2, "square"), (3, "ring")]
    assert again.marks(0) == marks(1, 2, revision=1)
    assert again.marks(5) == marks(2, revision=1, done=True)
    assert again.marks(3) == marks()
    assert again.used() == {1: 1, 2: 2}
    assert {number: status.done for number, status in again.status.items()} == {0: False, 5: True}


def test_what_was_changed_meanwhile_is_not_written_over(project):
    project.save(0, marks(1))
    with pytest.raises(Conflict, match=r"0\.png was changed in another window; load it again"):
        project.save(0, marks(2))
    assert project.save(0, marks(2, revision=1)).revision == 2


def test_marks_must_fit_image_and_classes(project):
    with pytest.raises(ValueError, match=r"0\.png: there is no class 7; there are 1, 2"):
        project.save(0, marks(7))
    wrong = Marks(WIDTH, HEIGHT, (), False, 0)
    with pytest.raises(ValueError, match=r"the marks are of an image of 48 x 64 pixels, and it has 64 x 48 now"):
        project.save(0, wrong)
    assert not project.status


def test_classes_that_are_used_stay(project):
    project.save(0, marks(2))
    disc, square = project.labels
    project.set_labels([square._replace(name="box")])
    assert [label.name for label in project.labels] == ["box"]
    with pytest.raises(Conflict, match="box has 1 objects; give them another class first"):
        project.set_labels([disc])


def test_one_process_writes(photos, project):
    taken = pytest.raises(ValueError, match=r"Another `nexus annotate` writes into .*photos-annotations")
    with project.alone(), taken, Project(photos).alone():
        pass
    with project.alone():
        pass


def test_images_that_are_gone_are_told(photos, project):
    project.save(5, marks(1))
    shutil.rmtree(photos / "more")
    assert Project(photos).lost == ["more/5.png"]


def test_wrong_folders_are_named(photos, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (photos / "link.png").symlink_to(tmp_path / "clip.mp4")
    for source, message in (
        (tmp_path / "clip.mp4", r"clip\.mp4 cannot be decoded"),
        (tmp_path / "empty", "There is no image in the folder"),
        (tmp_path / "nothere", "nothere is no folder of images, and no image; check the path"),
        (photos, r"link\.png is a link that leads out of .*photos; put the file itself there"),
    ):
        with pytest.raises(ValueError, match=message):
            Project(source)
    (photos / "link.png").unlink()
    with pytest.raises(ValueError, match=r"lies in .*photos, whose images are annotated"):
        Project(photos, photos / "out")


def test_damaged_files_are_named(photos, project):
    project.save(0, marks(1))
    file = project.output / "marks" / "0.png.json"
    file.write_text("{")
    with pytest.raises(ValueError, match=r"0\.png\.json is not valid JSON"):
        Project(photos)
    file.unlink()
    (project.output / "project.json").write_text('{"images": []}')
    with pytest.raises(ValueError, match=r"project\.json is no project of `nexus annotate`, version 1"):
        Project(photos)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "a"], "there are two classes with the name 'a'"),
        (["a", " "], "the name of class 2 is ' '"),
        (["a" * 101], "it is 1 to 100 letters of one line"),
        (["a\nb"], "it is 1 to 100 letters of one line"),
    ],
)
def test_names_of_classes_are_checked(photos, names, message):
    with pytest.raises(ValueError, match=message):
        Project(photos, class_names=names)
