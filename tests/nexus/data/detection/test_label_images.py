"""Pictures of whole numbers as annotations: objects by number, classes by number, and what such a picture cannot be."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from nexus.data import DataError, load_dataset
from nexus.data.check import check_source
from nexus.data.detection import check_annotations, label_images
from nexus.data.detection.label_images import masks_of_numbers, read_classes


def photo(path, size=(12, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 2 * ord(path.stem[-1]), 70)).save(path)


def mask(path, numbers, mode="L", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(numbers, np.uint16 if mode == "I;16" else np.uint8))
    if mode == "P":
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [224, 224, 192] * 253)
    image.save(path, **options)


def two(first=1, second=2):
    numbers = np.zeros((9, 12), int)
    numbers[1:4, 1:5] = first
    numbers[5:8, 6:11] = second
    return numbers


def only_fault(source):
    _, faults = check_annotations(source)
    assert len(faults) == 1, [str(fault) for fault in faults]
    return str(faults[0])


def noise(seed, numbers, size=(23, 17)):
    return np.random.default_rng(seed).choice([0, *numbers], size)


def test_each_number_is_its_pixels():
    numbers = noise(0, [3, 70, 255, 256, 65535])
    found = masks_of_numbers(numbers)
    assert [number for number, _ in found] == [3, 70, 255, 256, 65535]
    for number, rle in found:
        np.testing.assert_array_equal(rle.decode(), numbers == number)
    assert [number for number, _ in masks_of_numbers(numbers, void=255)] == [3, 70, 256, 65535]


def test_each_part_is_that_of_scipy():
    for seed, share in ((1, 2), (2, 5), (3, 9)):
        numbers = noise(seed, [0] * share + [1, 2])
        found = masks_of_numbers(numbers, parts=True)
        for number in (1, 2):
            parts, count = ndimage.label(numbers == number, np.ones((3, 3)))
            ours = [rle.decode() for one, rle in found if one == number]
            assert len(ours) == count
            for part in ours:
                [theirs] = np.unique(parts[part])
                np.testing.assert_array_equal(part, parts == theirs)


def test_a_spiral_and_full_pictures_are_one_part():
    spiral = np.ones((41, 41), int)
    for step in range(0, 20, 2):
        spiral[step + 1, step : 40 - step] = 0
        spiral[step + 1 : 40 - step, 39 - step] = 0
        spiral[39 - step, step + 1 : 40 - step] = 0
        spiral[step + 3 : 40 - step, step + 1] = 0
    count = ndimage.label(spiral, np.ones((3, 3)))[1]
    assert len(masks_of_numbers(spiral, parts=True)) == count
    [(number, rle)] = masks_of_numbers(np.full((5, 7), 4), parts=True)
    assert (number, rle.area, rle.box) == (4, 35, (0, 0, 7, 5))
    assert masks_of_numbers(np.zeros((5, 7), int)) == []


@pytest.mark.parametrize(
    ("name", "mode", "numbers"),
    [("a.png", "L", (1, 2)), ("a.png", "L", (1, 255)), ("a.tif", "I;16", (7, 4000)), ("a.gif", "P", (1, 2))],
)
def test_a_number_is_an_object(tmp_path, name, mode, numbers):
    photo(tmp_path / "images" / "a.jpg")
    mask(tmp_path / "masks" / name, two(*numbers), mode)
    for source in (f"label-images:{tmp_path}", tmp_path):
        annotations, faults = check_annotations(source)
        assert faults == []
        assert annotations.class_names == ("object",)
        assert [one.box for one in annotations.scenes[0].objects] == [(1, 1, 5, 4), (6, 5, 11, 8)]


def test_the_border_of_a_palette_is_no_object(tmp_path):
    photo(tmp_path / "images" / "a.png")
    mask(tmp_path / "masks" / "a.png", two(1, 255), "P")
    assert len(load_dataset(f"label-images:{tmp_path}", "train").labels) == 1


def test_one_bit_is_one_object(tmp_path):
    photo(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(two(1, 1) > 0).save(tmp_path / "masks" / "a.png")
    assert load_dataset(f"label-images:{tmp_path}", "train").annotations.scenes[0].objects[0].mask.area == 27


def test_a_mask_stands_upright_as_its_image(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    (tmp_path / "images").mkdir()
    Image.new("RGB", (9, 12)).save(tmp_path / "images" / "a.jpg", exif=exif)
    mask(tmp_path / "masks" / "a.png", np.rot90(two()), exif=exif)
    annotations, faults = check_annotations(f"label-images:{tmp_path}")
    assert faults == []
    assert annotations.scenes[0].objects[0].box == (1, 1, 5, 4)


@pytest.mark.parametrize("layout", ["{split}/images|{split}/masks", "images/{split}|labels/{split}"])
def test_splits_of_either_layout(tmp_path, layout):
    images, masks = layout.split("|")
    for split, stem in (("train", "a"), ("train", "deep/b"), ("val", "c")):
        photo(tmp_path / images.format(split=split) / f"{stem}.png")
        mask(tmp_path / masks.format(split=split) / f"{stem}.png", two())
    assert [len(load_dataset(f"label-images:{tmp_path}", split)) for split in ("train", "val")] == [2, 1]
    assert check_source(str(tmp_path)).faults == []


def test_without_splits_some_are_held_out(tmp_path):
    for number in range(10):
        photo(tmp_path / "images" / f"{number}.png")
        mask(tmp_path / "masks" / f"{number}.png", two())
    counts = [len(load_dataset(f"label-images:{tmp_path}", split)) for split in ("train", "val")]
    assert sum(counts) == 10
    assert min(counts) >= 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.txt", "cat\ndog\n"),
        ("classes.txt", "background\ncat\ndog\n"),
        ("classes.json", '{"2": "dog", "0": "nothing", "1": "cat"}'),
        ("classes.yaml", "1: cat\n2: dog\n"),
    ],
)
def test_a_number_is_a_class_and_a_part_an_object(tmp_path, name, content):
    photo(tmp_path / "images" / "a.png")
    numbers = two()
    numbers[0, 11] = 1  # apart from the other
    numbers[8, 0] = 255  # nobody decided
    mask(tmp_path / "masks" / "a.png", numbers)
    (tmp_path / name).write_text(content)
    annotations, faults = check_annotations(f"class-images:{tmp_path}")
    assert faults == []
    assert annotations.class_names == ("cat", "dog")
    assert [one.label for one in annotations.scenes[0].objects] == [0, 0, 1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("cat\ncat\n", "names 'cat' twice"),
        ("background\n", "names no class"),
        (None, "nothing names the classes of"),
    ],
)
def test_what_names_of_classes_cannot_be(tmp_path, content, words):
    if content is not None:
        (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(DataError, match=words):
        read_classes(tmp_path)


def test_numbers_of_classes_are_those_of_pixels(tmp_path):
    (tmp_path / "classes.json").write_text('{"one": "cat"}')
    with pytest.raises(DataError, match="'one' is no number of a pixel; write 1 to 65535"):
        read_classes(tmp_path)
    (tmp_path / "classes.json").write_text('["cat"]')
    with pytest.raises(DataError, match="must name numbers, as in"):
        read_classes(tmp_path)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.new("RGB", (12, 9)), "holds colours or transparency (RGB), and a label image one whole number"),
        (Image.new("LA", (12, 9)), "holds colours or transparency (LA)"),
        (Image.new("L", (9, 12)), "it has 9 x 12 pixels, and its image"),
        (Image.new("I", (12, 9), 70_000), "it holds numbers from 70000 to 70000; they are 0 to 65535"),
        (Image.new("F", (12, 9), 1.0), "it holds floats, and a label image one whole number in a pixel"),
    ],
)
def test_what_a_label_image_cannot_be(tmp_path, image, words):
    photo(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "masks" / f"a.{'tif' if image.mode in 'IF' else 'png'}")
    said = only_fault(f"label-images:{tmp_path}")
    assert words in said
    assert str(tmp_path / "masks" / "a.") in said
    with pytest.raises(DataError):
        load_dataset(f"label-images:{tmp_path}", "train")


def test_images_and_masks_without_the_other_are_named(tmp_path):
    for stem in "ab":
        photo(tmp_path / "images" / f"{stem}.png")
    for stem in "bc":
        mask(tmp_path / "masks" / f"{stem}.png", two())
    mask(tmp_path / "masks" / "b.tif", two())
    _, faults = check_annotations(f"label-images:{tmp_path}")
    said = sorted(str(fault) for fault in faults)
    assert any("a.png: there is no mask a.png in" in one for one in said)
    assert any("c.png: there is no image 'c' in" in one for one in said)
    assert any("b.tif: " in one and "has the same name; remove one of them" in one for one in said)


def test_a_number_without_a_name_is_named(tmp_path):
    photo(tmp_path / "images" / "a.png")
    mask(tmp_path / "masks" / "a.png", two(1, 7))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert "it has the number 7, which no class has; name it in classes.txt" in only_fault(f"class-images:{tmp_path}")


def test_photos_and_maps_of_depth_are_no_label_images(tmp_path, monkeypatch):
    photo(tmp_path / "images" / "a.png")
    mask(tmp_path / "masks" / "a.png", 1 + np.arange(108).reshape(9, 12))
    monkeypatch.setattr(label_images, "MAX_OBJECTS", 107)
    assert "it holds 108 objects, at most 107 are read; is it a map" in only_fault(f"label-images:{tmp_path}")
    monkeypatch.setattr(label_images, "MAX_RUNS", 107)
    assert "it falls into 108 runs, at most 107 are read; is it a photo?" in only_fault(f"label-images:{tmp_path}")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (("images/a.png",), "has no images/ with masks/ beside it"),
        (("images/a.png", "masks/a.png", "labels/a.png"), "could both be meant; keep one of them"),
        (("images/train/a.png", "images/val/a.png", "masks/train/a.png"), "have other splits: train, val and train"),
        (("train/images/a.png", "train/masks/a.png", "training/images/a.png"), "both mean 'train'"),
    ],
)
def test_what_folders_cannot_be(tmp_path, made, words):
    for name in made:
        photo(tmp_path / name)
    with pytest.raises(DataError, match=words):
        load_dataset(f"label-images:{tmp_path}", "train")


def test_a_yolo_folder_stays_one(tmp_path):
    photo(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("names: [cat]\n")
    assert check_annotations(tmp_path)[1] == []
    assert load_dataset(f"yolo:{tmp_path}", "train").class_names == ("cat",)
