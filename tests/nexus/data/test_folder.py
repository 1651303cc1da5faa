"""Folders of images: layouts, stable splits, and errors that name the folder or the line."""

import numpy as np
import pytest
from PIL import Image as PIL

from nexus.data import DataError, ImageError, load_dataset
from nexus.data.datasets.folder import ImageFolder
from nexus.data.holding_out import HELD_OUT, held_out_draw


def write(path, colour=(200, 30, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.new(mode, (6, 5), colour if mode == "RGB" else colour[0]).save(path)


def fill(root, classes=("cat", "dog"), count=20):
    for position, name in enumerate(classes):
        for i in range(count):
            write(root / name / f"{i:03}.png", (position, i, 0))


def paths(data):
    return [data.path(i) for i in range(len(data))]


def test_train_and_val_folders(tmp_path):
    fill(tmp_path / "train", ("dog", "cat", "Ant"), 3)
    fill(tmp_path / "val", ("cat", "dog"), 2)
    train, val = (load_dataset(f"folder:{tmp_path}", split) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("Ant", "cat", "dog")
    assert (len(train), len(val)) == (9, 4)
    assert val.labels.tolist() == [1, 1, 2, 2]
    sample = val[3]
    assert (sample.label, sample.path) == (2, str(tmp_path / "val" / "dog" / "001.png"))
    assert sample.image.getpixel((0, 0)) == (1, 1, 0)
    assert val.open(3).path == sample.path == val.path(3)


def test_hash_split_is_stable_when_images_come_and_go(tmp_path):
    fill(tmp_path, count=100)
    train, val = (ImageFolder(tmp_path, split) for split in ("train", "val"))
    assert len(train) + len(val) == 200
    assert not set(paths(train)) & set(paths(val))
    assert 20 <= len(val) <= 60
    before = set(paths(val))
    for i in range(0, 100, 3):
        (tmp_path / "cat" / f"{i:03}.png").unlink()
    for i in range(50):
        write(tmp_path / "dog" / "more" / f"x{i}.png")
    after = set(paths(ImageFolder(tmp_path, "val")))
    assert {path for path in before if "/dog/" in path} == {
        path for path in after if "/dog/" in path and "more" not in path
    }
    assert {path for path in after if "/cat/" in path} < before
    # The place of the folder has no say.
    moved = tmp_path.rename(tmp_path.with_name("elsewhere"))
    assert {path.replace("elsewhere", tmp_path.name) for path in paths(ImageFolder(moved, "val"))} == after


def test_the_draw_of_a_path_never_changes():
    assert [round(held_out_draw(path), 6) for path in ("cat/000.png", "dog/é.jpg")] == [0.284356, 0.862944]
    share = np.mean([held_out_draw(f"cat/{i}.png") < HELD_OUT for i in range(5000)])
    assert abs(share - HELD_OUT) < 0.02


def test_every_class_keeps_an_image_to_train_on(tmp_path):
    names = [f"{i}.png" for i in range(200)]
    lowest = [name for name in names if held_out_draw(f"rare/{name}") < HELD_OUT][:2]
    fill(tmp_path, ("common",), 30)
    for name in lowest:
        write(tmp_path / "rare" / name)
    train, val = ImageFolder(tmp_path, "train"), ImageFolder(tmp_path, "val")
    assert (train.labels == 1).sum() == (val.labels == 1).sum() == 1


def test_labels_csv(tmp_path):
    for name in ("a.png", "sub/b.png", "c.png", "d, e.png"):
        write(tmp_path / name)
    (tmp_path / "labels.csv").write_text(
        '\ufefffile,label,split\na.png,tulip,train\nsub/b.png,rose,train\nc.png,rose,val\n"d, e.png",tulip,val\n',
        encoding="utf-8",
    )
    train, val = (ImageFolder(tmp_path, split) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("rose", "tulip")
    assert paths(val) == [str(tmp_path / "c.png"), str(tmp_path / "d, e.png")]
    assert val.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="puts no image into the split 'test'; it has train, val"):
        ImageFolder(tmp_path, "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,x\nmissing.png,y\n", r"labels\.csv, line 3: there is no file 'missing\.png'"),
        ("file,label\na.png,x\nbb.png,y\n", r"line 3: there is no file 'bb\.png'\. Did you mean 'b\.png'\?"),
        ("file,label\na.png,x\nb.png\n", r"line 3: 1 values; there must be as many as columns"),
        ("file,label\na.png,x\nb.png,y,z\n", r"line 3: 3 values; there must be as many as columns"),
        ("file,label\na.png,x\nb.png, \n", r"line 3: the label is empty"),
        ("file,label\na.png,x\n,y\n", r"line 3: the file is empty"),
        ("file,label\na.png,x\na.png,y\n", r"line 3: 'a\.png' is in line 2, too"),
        ("file,label\na.png,x\n../b.png,y\n", r"line 3: '\.\./b\.png' leads outside of"),
        ("file,label\na.png,x\n/etc/passwd,y\n", r"line 3: '/etc/passwd' leads outside of"),
        ("file,label\na.png,x\nnotes.txt,y\n", r"line 3: 'notes\.txt' is not an image"),
        ("file,label,split\na.png,x,train\nb.png,y,vall\n", r"line 3: the split is 'vall'\. Did you mean 'val'\?"),
        ("name,label\na.png,x\n", r"line 1: the columns are name, label; they must be file,label"),
        ("file,label,label\na.png,x,y\n", r"line 1: the columns are file, label, label"),
        ("", r"line 1: the columns are missing"),
        ('file,label\na.png,x\n"b.png,y\n', r"line \d: unexpected end of data"),
        ("file,label\na.png,x\nb.png,x\n", r"single class 'x'"),
        ("file,label\n", r"has no images"),
    ],
)
def test_a_wrong_line_of_the_table_is_named(tmp_path, text, message):
    write(tmp_path / "a.png")
    write(tmp_path / "b.png")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        ImageFolder(tmp_path)


def test_a_table_in_another_encoding_is_refused(tmp_path):
    write(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_bytes("file,label\na.png,Käse\n".encode("latin1"))
    with pytest.raises(DataError, match=r"labels\.csv is not text in UTF-8"):
        ImageFolder(tmp_path)


def test_layout_errors(tmp_path):
    with pytest.raises(DataError, match=r"There is no folder .*nowhere"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no images in class folders\. Expected .*/<class>/<image>"):
        ImageFolder(tmp_path)
    fill(tmp_path, ("cat",), 3)
    with pytest.raises(DataError, match=r"the single class 'cat'; there is nothing to tell apart"):
        ImageFolder(tmp_path)
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "notes.txt").write_text("none yet")
    with pytest.raises(DataError, match=r"The class folder .*dog has no images"):
        ImageFolder(tmp_path)
    write(tmp_path / "dog" / "1.png")
    with pytest.raises(DataError, match="has no test images"):
        ImageFolder(tmp_path, "test")
    with pytest.raises(ValueError, match=r"no split 'vall'\. Did you mean 'val'"):
        ImageFolder(tmp_path, "vall")


def test_splits_that_do_not_fit_each_other(tmp_path):
    fill(tmp_path / "train", count=2)
    with pytest.raises(DataError, match=r"has train but no val; add the folder .*val"):
        ImageFolder(tmp_path, "val")
    fill(tmp_path / "val", ("cat", "dgo"), 1)
    with pytest.raises(DataError, match=r"the class 'dgo', which .*train does not have\. Did you mean 'dog'"):
        ImageFolder(tmp_path, "val")


def test_too_few_images_to_hold_some_out(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name / "1.png")
    with pytest.raises(DataError, match="has 2 images, too few to hold out one in five"):
        ImageFolder(tmp_path, "val")


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, ("plane", "train"), 10)
    assert ImageFolder(tmp_path).class_names == ("plane", "train")


def test_hidden_files_and_other_kinds_are_passed_over(tmp_path):
    fill(tmp_path / "train", count=2)
    for name in (".hidden.png", "Thumbs.db", "notes.txt"):
        (tmp_path / "train" / "cat" / name).write_text("x")
    write(tmp_path / "train" / "cat" / "UPPER.PNG")
    (tmp_path / "train" / ".cache").mkdir()
    assert len(ImageFolder(tmp_path)) == 5


def test_channels_are_those_of_the_images(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name / "1.png", mode="L")
    assert ImageFolder(tmp_path).in_channels == 1
    write(tmp_path / "b" / "2.png")
    assert ImageFolder(tmp_path).in_channels == 3
    deep = tmp_path / "deep"
    for name in ("x", "y"):
        (deep / name).mkdir(parents=True)
        np.save(deep / name / "1.npy", np.zeros((4, 5, 8), np.uint16))
    assert ImageFolder(deep).in_channels == 8
    assert ImageFolder(deep)[0].image.shape == (4, 5, 8)


def test_a_broken_image_is_named_when_it_is_read(tmp_path):
    fill(tmp_path / "train", count=12)
    broken = tmp_path / "train" / "cat" / "001.png"
    broken.write_bytes(broken.read_bytes()[:45])
    data = ImageFolder(tmp_path)
    with pytest.raises(ImageError, match=r"cat/001\.png: truncated or corrupt"):
        data[1]


def test_a_path_without_the_kind_is_understood(tmp_path):
    with pytest.raises(ValueError, match=r"Did you mean 'folder:.*'\?"):
        load_dataset(str(tmp_path))


@pytest.mark.parametrize(
    "names", [("Train", "Val"), ("training", "validation"), ("train", "valid"), ("TRAIN", "Testing")]
)
def test_other_spellings_of_splits_are_no_classes(tmp_path, names):
    for name in names:
        fill(tmp_path / name, count=2)
    other = "test" if names[1] == "Testing" else "val"
    data = load_dataset(f"folder:{tmp_path}", other)
    assert (data.class_names, len(data)) == (("cat", "dog"), 4)
    assert len(load_dataset(f"folder:{tmp_path}", "train")) == 4


def test_splits_that_cannot_be_told(tmp_path):
    for name in ("train", "val", "valid"):
        fill(tmp_path / name, count=1)
    with pytest.raises(DataError, match=r"val and .*valid both mean 'val'"):
        load_dataset(f"folder:{tmp_path}", "train")
    fill(tmp_path / "flat", ("Train", "Val"), 2)
    with pytest.raises(DataError, match="has Train, Val with images, but no classes"):
        load_dataset(f"folder:{tmp_path / 'flat'}", "train")


def test_links_names_and_hidden_files(tmp_path):
    fill(tmp_path, ("cat", "dog"), 2)
    (tmp_path / "all").symlink_to(tmp_path)
    (tmp_path / "cat" / "more").symlink_to(tmp_path / "cat")
    write(tmp_path / "cat" / ".ipynb_checkpoints" / "x.png")
    write(tmp_path / "__MACOSX" / "cat" / "x.png")
    for name in ("caf\u00e9", "cafe\u0301"):
        write(tmp_path / name / f"{len(name)}.png")
    data = load_dataset(f"folder:{tmp_path}", "train")
    assert data.class_names == ("caf\u00e9", "cat", "dog")
    held = load_dataset(f"folder:{tmp_path}", "val") if len(data) < 6 else []
    assert len(data) + len(held) == 6


def test_a_table_has_limits_and_is_a_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match=r"pipe\.csv"):
        load_dataset(f"captions:{tmp_path / 'pipe.csv'}", "train")
    write(tmp_path / "a" / "1.png")
    (tmp_path / "labels.csv").write_text("file,label," + "x" * 200_000 + "\na/1.png,cat,y\n")
    with pytest.raises(
        DataError, match=r"labels\.csv, line 1: the columns are file, label, x+; they must be"
    ) as caught:
        load_dataset(f"folder:{tmp_path}", "train")
    assert len(str(caught.value)) < 500
