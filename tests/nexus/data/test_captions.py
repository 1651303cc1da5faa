"""Images with captions: the three layouts, and what is said of faults."""

import json

import pytest
from PIL import Image

from nexus.data import DataError, load_dataset
from nexus.data.captions import sentences
from nexus.data.holding_out import HELD_OUT, held_out_draw


@pytest.fixture
def folder(tmp_path):
    for number in range(12):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


def write(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    return f"captions:{folder / name}"


def test_a_table_with_several_captions_of_an_image(folder):
    source = write(folder, "all.csv", 'file,caption,split\n0.png,one,train\n0.png,"one, again",train\n1.png,two,val\n')
    train, val = load_dataset(source), load_dataset(source, "val")
    assert train.captions == (("one", "one, again"),)
    assert val.captions == (("two",),)
    assert (len(train), train.class_names, train.in_channels) == (1, (), 3)
    assert train[0].path == str(folder / "0.png")
    assert train[0].image.size == train.open(0).image.size == (6, 4)


def test_lines_of_json_and_a_fixed_share_held_out(folder):
    rows = [{"file": f"{n}.png", "captions": [f"number {n}", "a"]} for n in range(11)] + [
        {"file": "11.png", "caption": "the last"}
    ]
    source = write(folder, "all.jsonl", "\n".join(map(json.dumps, rows)))
    train, val = load_dataset(source), load_dataset(source, "val")
    assert len(train) + len(val) == 12
    assert 0 < len(val) < len(train)
    assert not {train.path(i) for i in range(len(train))} & {val.path(i) for i in range(len(val))}


def test_cocos_layout(folder):
    (folder / "annotations").mkdir()
    (folder / "val2017").mkdir()
    (folder / "0.png").rename(folder / "val2017" / "0.png")
    content = {
        "images": [{"id": 9, "file_name": "0.png"}],
        "annotations": [{"id": 1, "image_id": 9, "caption": "a"}, {"id": 2, "image_id": 9, "caption": "b "}],
    }
    (folder / "annotations" / "captions_val2017.json").write_text(json.dumps(content))
    data = load_dataset(f"captions:{folder}", "val")
    assert data.captions == (("a", "b"),)
    with pytest.raises(DataError, match="has no captions of 'train': no annotations/captions_train"):
        load_dataset(f"captions:{folder}")
    (folder / "val2017" / "one.json").write_text(json.dumps(content))
    side = "val" if held_out_draw("0.png") < HELD_OUT else "train"
    assert load_dataset(f"captions:{folder / 'val2017' / 'one.json'}", side).captions == data.captions
    content["annotations"][1]["image_id"] = 10
    (folder / "annotations" / "captions_val2017.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"captions_val2017.json, annotation 2: there is no image 10"):
        load_dataset(f"captions:{folder}", "val")


def test_classes_become_sentences():
    digits = load_dataset("digits", "val")
    assert sentences(digits, 0, ("a {}", "the {}")) == (f"a {digits.labels[0]}", f"the {digits.labels[0]}")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "file,text\n", r"a.csv, line 1: the columns are file, text; they must be file,caption, and split"),
        ("a.csv", "file,caption\n0.png,  \n", r"a.csv, line 2: the caption is empty; fill it in or delete the line"),
        ("a.csv", "file,caption\n0.pgn,one\n", r"a.csv, line 2: there is no file '0.pgn'. Did you mean '0.png'"),
        ("a.csv", "file,caption\n../0.png,one\n", r"line 2: '../0.png' leads outside of"),
        (
            "a.csv",
            "file,caption\n0.png,one,two\n",
            r"line 2: 3 values; there must be as many as columns. Quote what holds a",
        ),
        ("a.csv", "file,caption\na.csv,one\n", r"line 2: 'a.csv' is not an image; use"),
        ("a.csv", "file,caption,split\n0.png,one,val\n", r"has no captions of the split 'train'"),
        ("a.csv", "file,caption,split\n0.png,one,tarin\n", r"a.csv, line 2: the split is 'tarin'.*'train'"),
        ("a.jsonl", '{"file": "0.png"}', r"a.jsonl, line 1 is no caption; a line is"),
        ("a.json", "[1]", r"a.json has no captions as COCO writes them: it needs"),
        ("a.txt", "", r"a.txt ends in '.txt'; captions are in a .csv, a .jsonl, or COCO's .json"),
    ],
)
def test_faults_are_named_with_their_line(folder, name, text, message):
    with pytest.raises(DataError, match=message):
        load_dataset(write(folder, name, text))
    with pytest.raises(DataError, match="There is no file"):
        load_dataset(f"captions:{folder / 'none.csv'}")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"file": "0.png", "captions": "a cat"}', "is no caption"),
        ('{"file": 3, "caption": "a"}', "is no caption"),
        ('{"file": "0.png", "caption": {"a": 1}}', "is no caption"),
        ('{"file": "0.png", "caption": "a", "split": [1]}', "the split is"),
        ("[" * 5000, "deep|not JSON"),
    ],
)
def test_captions_of_other_types_are_refused(tmp_path, line, words):
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=words) as caught:
        load_dataset(f"captions:{tmp_path / 'a.jsonl'}", "train")
    assert "a.jsonl, line 1" in str(caught.value)
