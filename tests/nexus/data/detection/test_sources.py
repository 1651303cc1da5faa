"""Which files a source of annotated images is made of, the same for every command."""

import json
import os

import pytest
from PIL import Image

from nexus.data import DataError, load_dataset
from nexus.data.check import check_source
from nexus.data.detection import check_annotations, convert


def photo(path, size=(64, 48)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (len(path.name) * 7 % 255, 80, 90)).save(path)


def coco(root, file, folder="images", names=("a.png", "b.png"), classes=("cat", "dog")):
    for name in names:
        photo(root / folder / name)
    images = [{"id": n, "file_name": name, "height": 48, "width": 64} for n, name in enumerate(names, 1)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [5, 5, 20, 20]} for n in range(1, len(names) + 1)]
    categories = [{"id": n, "name": name} for n, name in enumerate(classes, 1)]
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))


def test_the_plain_name_wins_over_captions_panoptic_keypoints_and_backups(tmp_path):
    for word in ("captions", "panoptic", "person_keypoints", "a_backup_of_instances", "instances_copy"):
        coco(tmp_path, f"annotations/{word}_train2017.json", "train2017", ("a.png", "b.png", "c.png"))
    coco(tmp_path, "annotations/instances_train2017.json", "train2017")
    coco(tmp_path, "annotations/instances_val2017.json", "val2017", ("v.png",))
    assert [len(load_dataset(f"coco:{tmp_path}", split)) for split in ("train", "val")] == [2, 1]
    assert load_dataset(f"coco:{tmp_path}", "val").path(0) == str(tmp_path / "val2017" / "v.png")


@pytest.mark.parametrize(
    "pair",
    [
        ("annotations/instances_train2014.json", "annotations/instances_train2017.json"),
        ("train.json", "annotations/instances_train.json"),
        ("red_train.json", "blue_train.json"),
    ],
)
def test_two_that_are_as_good_are_both_named(tmp_path, pair):
    for file in pair:
        coco(tmp_path, file)
    with pytest.raises(DataError) as caught:
        load_dataset(f"coco:{tmp_path}", "train")
    assert all(str(tmp_path / file) in str(caught.value) for file in pair)
    assert "name one, as in coco:" in str(caught.value)
    assert len(load_dataset(f"coco:{tmp_path / pair[0]}", "train")) == 2


def test_keypoints_alone_are_taken_and_captions_alone_are_not(tmp_path):
    coco(tmp_path / "k", "annotations/person_keypoints_train2017.json")
    assert len(load_dataset(f"coco:{tmp_path / 'k'}", "train")) == 2
    coco(tmp_path / "c", "annotations/captions_train2017.json")
    with pytest.raises(DataError, match="passed over: captions_train2017"):
        load_dataset(f"coco:{tmp_path / 'c'}", "train")


def test_a_file_names_its_split_and_those_beside_it(tmp_path):
    coco(tmp_path, "annotations/my_train_v2.json")
    coco(tmp_path, "annotations/my_valid_v2.json", names=("v.png",))
    source = f"coco:{tmp_path / 'annotations/my_train_v2.json'}"
    assert [len(load_dataset(source, split)) for split in ("train", "val")] == [2, 1]


def test_folders_of_roboflow(tmp_path):
    coco(tmp_path, "train/_annotations.coco.json", "train")
    coco(tmp_path, "valid/_annotations.coco.json", "valid", ("v.png",))
    assert [len(load_dataset(f"coco:{tmp_path}", split)) for split in ("train", "val")] == [2, 1]


def test_a_source_without_splits_is_held_out_by_hash(tmp_path):
    coco(tmp_path, "labels.json", "data", [f"{n}.png" for n in range(20)])
    train, val = (load_dataset(f"coco:{tmp_path}", split) for split in ("train", "val"))
    paths = [{data.path(place) for place in range(len(data))} for data in (train, val)]
    assert len(paths[0] | paths[1]) == 20
    assert not paths[0] & paths[1]
    assert 1 <= len(val) <= 8
    with pytest.raises(DataError, match="no annotations of 'test'"):
        load_dataset(f"coco:{tmp_path}", "test")


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
@pytest.mark.parametrize("split", [True, False])
def test_what_convert_writes_can_be_trained_on(tmp_path, to, split):
    source = tmp_path / "source"
    if split:
        coco(source, "annotations/instances_train.json", "train", [f"t{n}.png" for n in range(5)])
        coco(source, "annotations/instances_val.json", "val", ["v1.png", "v2.png"])
    else:
        coco(source, "all.json", names=[f"{n}.png" for n in range(7)])
    convert(f"coco:{source}", tmp_path / "target", to)
    assert check_annotations(f"{to}:{tmp_path / 'target'}")[1] == []
    assert check_source(str(tmp_path / "target")).images == 7, "recognised without its kind"
    sizes = [len(load_dataset(f"{to}:{tmp_path / 'target'}", side)) for side in ("train", "val")]
    assert sum(sizes) == 7
    assert sizes[1] == 2 if split else sizes[1] >= 1
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")], "nothing half-made is left"


def test_a_conversion_that_fails_leaves_nothing(tmp_path):
    source = tmp_path / "source"
    coco(source, "train.json")
    (source / "images" / "b.png").unlink()
    with pytest.raises(DataError, match=r"b\.png does not exist"):
        convert(f"coco:{source}", tmp_path / "target", "yolo")
    assert [one.name for one in tmp_path.iterdir()] == ["source"]


def test_convert_stays_inside(tmp_path):
    source = tmp_path / "source"
    coco(source, "train.json")
    photo(tmp_path / "private.png")
    (source / "images" / "b.png").unlink()
    (source / "images" / "b.png").symlink_to(tmp_path / "private.png")
    with pytest.raises(DataError, match="is a link that leads out of"):
        convert(f"coco:{source}", tmp_path / "target", "yolo")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "target").symlink_to(tmp_path / "elsewhere")
    (source / "images" / "b.png").unlink()
    photo(source / "images" / "b.png")
    with pytest.raises(DataError, match="is there already; name a new folder"):
        convert(f"coco:{source}", tmp_path / "target", "yolo")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_is_no_image_is_not_copied(tmp_path):
    coco(tmp_path / "source", "train.json")
    (tmp_path / "source" / "images" / "a.png").write_text("a secret")
    with pytest.raises(DataError, match=r"a\.png is not an image"):
        convert(f"coco:{tmp_path / 'source'}", tmp_path / "target", "voc")


def test_no_image_and_shared_images_are_faults(tmp_path):
    (tmp_path / "annotations").mkdir()
    empty = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(empty))
    _, faults = check_annotations(f"coco:{tmp_path}")
    assert ["there is no image in it" in str(fault) for fault in faults] == [True]
    coco(tmp_path, "annotations/instances_train.json")
    coco(tmp_path, "annotations/instances_val.json")
    _, faults = check_annotations(f"coco:{tmp_path}")
    assert ["2 images are in train and in val" in str(fault) for fault in faults] == [True]
    coco(tmp_path, "annotations/instances_val.json", names=("v.png",), classes=("cat", "cow"))
    _, faults = check_annotations(f"coco:{tmp_path}")
    assert ["its classes are not those of train: cow, dog" in str(fault) for fault in faults] == [True]


def test_hidden_files_are_no_data(tmp_path):
    (tmp_path / "data.yaml").write_text("names: [a]\n")
    for name in ("a.png", "._a.png", ".ipynb_checkpoints/a.png", "__MACOSX/a.png", ".git/x.png"):
        photo(tmp_path / "images" / "train" / name)
    assert len(load_dataset(f"yolo:{tmp_path}", "train")) == 1


def test_classes_of_voc_are_those_of_all_splits(tmp_path):
    for name, kind in (("a", "cat"), ("b", "dog")):
        photo(tmp_path / "JPEGImages" / f"{name}.png")
        size = "<size><width>64</width><height>48</height></size>"
        box = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        text = (
            f"<annotation><filename>{name}.png</filename>{size}<object><name>{kind}</name>{box}</object></annotation>"
        )
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("b.png\n")
    val = load_dataset(f"voc:{tmp_path}", "val")
    assert (val.class_names, val.labels.tolist()) == (("cat", "dog"), [1])


def test_folders_and_tables_are_checked_too(tmp_path):
    for name in ("cat/1.png", "dog/2.png", "dog/3.png"):
        photo(tmp_path / "photos" / name)
    (tmp_path / "photos" / "dog" / "3.png").write_bytes(b"broken")
    checked = check_source(f"folder:{tmp_path / 'photos'}")
    assert ["3.png" in str(fault) for fault in checked.faults] == [True]
    (tmp_path / "c.csv").write_text("file,caption,split\nphotos/cat/1.png,a cat,Training\n")
    assert check_source(str(tmp_path / "c.csv")).faults == []


def test_what_is_of_two_kinds_is_named_by_both(tmp_path):
    coco(tmp_path, "train.json")
    (tmp_path / "data.yaml").write_text("names: [a]\n")
    with pytest.raises(DataError, match=r"is of two kinds; write coco:.* or yolo:"):
        convert(tmp_path, tmp_path / "t", "voc")


def test_links_to_the_folder_itself_are_read_once(tmp_path):
    (tmp_path / "data.yaml").write_text("names: [a]\n")
    photo(tmp_path / "images" / "train" / "a.png")
    os.symlink(tmp_path / "images", tmp_path / "images" / "train" / "again")
    assert len(load_dataset(f"yolo:{tmp_path}", "train")) == 1
