"""Conversations in JSON lines: what is read, who is held out, and each fault in one line."""

import json

import numpy as np
import pytest
from PIL import Image

from nexus.data import load_dataset
from nexus.data.check import check_source
from nexus.data.conversations import ConversationTransform
from nexus.data.dataset import DataError, Sample
from nexus.data.facets import Conversations, Turn
from nexus.data.part import part_of

ASKED = [{"from": "human", "value": "<image>\nHow many?"}, {"from": "gpt", "value": " two "}]


@pytest.fixture
def folder(tmp_path):
    for name, value in (("a.png", 10), ("b.png", 200)):
        Image.fromarray(np.full((8, 9, 3), value, np.uint8)).save(tmp_path / name)
    return tmp_path


def write(folder, *rows) -> str:
    path = folder / "talks.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return f"conversations:{path}"


def test_turns_and_images_are_read_as_the_files_of_llava_have_them(folder):
    both = [{"from": "human", "value": "<image> and <image>?"}, {"from": "gpt", "value": "b is brighter."}]
    source = write(
        folder,
        {"id": 1, "image": "a.png", "conversations": ASKED, "split": "train"},
        "",
        {"image": ["a.png", "b.png"], "conversations": both, "split": "train"},
        {"image": "b.png", "conversations": ASKED, "split": "val"},
    )
    data = load_dataset(source)
    assert isinstance(data, Conversations)
    assert data.conversations[0] == (Turn("user", "<image>\nHow many?"), Turn("assistant", "two"))
    assert len(data) == 2
    batch = ConversationTransform().make_batch(data, [1], [np.random.default_rng(0)])
    assert [np.asarray(image).max() for image in batch["talks"][0].images] == [10, 200]
    assert len(load_dataset(source, "val")) == 1
    checked = check_source(source)
    assert (checked.images, checked.faults) == (3, [])


def test_a_part_keeps_all_images_and_every_image_is_checked(folder):
    both = [{"from": "human", "value": "<image> and <image>?"}, {"from": "gpt", "value": "b is brighter."}]
    source = write(folder, {"image": ["a.png", "b.png"], "conversations": both, "split": "train"})
    batch = ConversationTransform().make_batch(part_of(load_dataset(source), [0]), [0], [np.random.default_rng(0)])
    assert [np.asarray(image).max() for image in batch["talks"][0].images] == [10, 200]
    (folder / "b.png").write_bytes(b"no image")
    (fault,) = check_source(source).faults
    assert "b.png" in str(fault)


def test_data_of_ones_own_needs_an_image_and_a_path_alone():
    class Mine:
        name = "mine"
        conversations = ((Turn("user", "What?"), Turn("assistant", "black")),)

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return Sample(np.zeros((4, 4, 3), np.uint8), 0, "mine[0]")

    batch = ConversationTransform().make_batch(Mine(), [0], [np.random.default_rng(0)])
    assert (batch["talks"][0].path, len(batch["talks"][0].images)) == ("mine[0]", 1)


def test_without_splits_an_image_is_on_one_side(folder):
    names = [f"{place}.png" for place in range(60)]
    for name in names:
        Image.new("RGB", (4, 4)).save(folder / name)
    source = write(folder, *({"image": name, "conversations": ASKED} for name in names))
    train, val = (load_dataset(source, split) for split in ("train", "val"))
    assert {train.path(k) for k in range(len(train))}.isdisjoint(val.path(k) for k in range(len(val)))
    assert len(train) + len(val) == 60
    assert 3 <= len(val) <= 25
    with pytest.raises(DataError, match="has no conversations of the split 'test'"):
        load_dataset(source, "test")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", r"line 1"),
        ([1], r"line 1 is no conversation; a line is"),
        ({"conversations": ASKED}, r"line 1: image is 'None'; it is the path of an image"),
        ({"image": "c.png", "conversations": ASKED}, r"c\.png"),
        ({"image": "../a.png", "conversations": ASKED}, r"line 1"),
        ({"image": "a.txt", "conversations": ASKED}, r"a\.txt"),
        ({"image": "a.png", "conversations": ASKED[::-1]}, r"turn 0 is the assistant's, and the user is next"),
        ({"image": "a.png", "conversations": ASKED[:1]}, r"the last turn is no answer of gpt"),
        ({"image": "a.png", "conversations": []}, r"the last turn is no answer of gpt"),
        (
            {"image": "a.png", "conversations": [{"from": "human", "value": "Hm?"}, ASKED[1]]},
            r"<image> is missing: the turns have 0, and there are 1 images",
        ),
        ({"image": ["a.png"] * 2, "conversations": ASKED}, r"<image> is missing: the turns have 1"),
        (
            {"image": "a.png", "conversations": [{"from": "human", "value": "<image><image>"}, ASKED[1]]},
            r"<image> is superfluous: the turns have 2",
        ),
        (
            {"image": "a.png", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "<image>"}]},
            r"turn 1 is an answer with <image>",
        ),
        ({"image": "a.png", "conversations": [{"from": "gtp", "value": "x"}, ASKED[1]]}, r"from 'gtp'.*'gpt'"),
        ({"image": "a.png", "conversations": [{"from": "human", "value": " "}, ASKED[1]]}, r"turn 0 says nothing"),
        ({"image": "a.png", "conversations": ["x"]}, r"turn 0 is x; it is"),
        ({"image": "a.png", "conversations": ASKED, "split": 3}, r"the split is 3"),
        ({"image": "a.png", "conversations": ASKED, "split": "tarin"}, r"line 1: the split is 'tarin'.*'train'"),
    ],
)
def test_each_fault_is_told_with_its_line(folder, row, said):
    with pytest.raises(DataError, match=said) as caught:
        load_dataset(write(folder, row))
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(folder):
    with pytest.raises(DataError, match=r"is no \.jsonl file; conversations are JSON lines"):
        load_dataset(f"conversations:{folder}")
