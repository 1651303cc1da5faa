"""Clips: made on the spot, read from folders, checked, and refused where they are wrong."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from nexus.cli.commands import app
from nexus.data import DataError, ImageError, load_dataset
from nexus.data.check import check_source
from nexus.data.clips import ClipFolder, DigitVideos
from nexus.data.clips.clip import first_seen, masks_of
from nexus.data.clips.id_images import colour_of, read_ids, write_ids
from nexus.data.facets import Clips

IDS = np.zeros((12, 16), np.uint8)
IDS[2:6, 3:9], IDS[7:11, 8:14] = 1, 2


def write_clip(root, name, *, frames=4, annotated=range(4), ids=IDS, level=""):
    for at in range(frames):
        path = root / "JPEGImages" / level / name / f"{at:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*ids.shape, 3), 40 * at, np.uint8)).save(path)
    for at in annotated:
        path = root / "Annotations" / level / name / f"{at:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_ids(path, np.roll(ids, at, axis=1))
    return root


@pytest.fixture
def davis(tmp_path):
    for name in ("bear", "bike", "camel"):
        write_clip(tmp_path, name, level="480p")
    lists = tmp_path / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("camel\nbear\n")
    (lists / "val.txt").write_text("bike\n")
    return tmp_path


@pytest.fixture
def youtube(tmp_path):
    for split, name, category in (("train", "a1", "cat"), ("train", "b2", "ape"), ("valid", "c3", "zebra")):
        write_clip(tmp_path / split, name, frames=6, annotated=(0, 5))
        meta = tmp_path / split / "meta.json"
        videos = json.loads(meta.read_text())["videos"] if meta.exists() else {}
        videos[name] = {"objects": {"1": {"category": category, "frames": ["00000"]}, "2": {"category": "cat"}}}
        meta.write_text(json.dumps({"videos": videos}))
    return tmp_path


def pixels(clip):
    return np.stack([np.asarray(clip.frame(at)) for at in range(len(clip))]), np.stack(
        [clip.ids(at) for at in clip.annotated]
    )


def test_digit_videos_are_the_same_everywhere_and_others_for_each_split():
    dataset = DigitVideos("val")
    assert isinstance(dataset, Clips)
    again = pickle.loads(pickle.dumps(dataset))
    for place in (0, 7, 47):
        for ours, theirs in zip(pixels(dataset[place]), pixels(again[place])):
            assert np.array_equal(ours, theirs)
        assert dataset[place].labels == again[place].labels
    assert not np.array_equal(pixels(DigitVideos("train")[0])[0], pixels(dataset[0])[0])
    assert len(load_dataset("digit-videos:32")) == 32
    assert len(load_dataset("digit-videos:32", "val")) == len(dataset) == 48
    assert np.array_equal(pixels(load_dataset("digit-videos:3")[2])[0], pixels(load_dataset("digit-videos")[2])[0])


def test_digits_of_videos_move_cross_come_late_and_vanish():
    late = vanish = touch = 0
    for clip in map(DigitVideos("train").__getitem__, range(40)):
        assert clip.object_ids == tuple(clip.labels) == tuple(range(1, len(clip.labels) + 1))
        ids = pixels(clip)[1]
        assert ids.shape == (12, 64, 64)
        for number in clip.object_ids:
            seen = (ids == number).any(axis=(1, 2))
            places = [np.argwhere(one == number).mean(axis=0) for one in ids[seen]]
            assert np.ptp(places, axis=0).max() > 1
            late += not seen[0]
            vanish += not seen[np.flatnonzero(seen)[0] : np.flatnonzero(seen)[-1]].all()
        left, right = ids[:, :, :-1], ids[:, :, 1:]
        touch += bool(((left != right) & (left > 0) & (right > 0)).any())
    assert late >= 5
    assert vanish >= 2
    assert touch >= 8


def test_the_pixels_of_a_digit_have_its_colour():
    clip = DigitVideos("val")[3]
    inside = np.asarray(clip.frame(6))[clip.ids(6) == 1].astype(float)
    assert np.median(np.abs(inside - np.median(inside, axis=0))) < 3


def test_davis(davis):
    train, val = load_dataset(f"clips:{davis}", "train"), load_dataset(f"clips:{davis}", "val")
    assert [clip.path.rsplit("/", 1)[1] for clip in map(train.__getitem__, range(2))] == ["camel", "bear"]
    assert len(val) == 1
    assert val.class_names == ()
    clip = val[0]
    assert (len(clip), clip.size, clip.object_ids, clip.annotated) == (4, (12, 16), (1, 2), [0, 1, 2, 3])
    assert np.array_equal(clip.ids(2), np.roll(IDS, 2, axis=1))
    assert np.array_equal(masks_of(clip.ids(0), (2, 1)), np.stack([IDS == 2, IDS == 1]))
    assert np.asarray(clip.frame(3)).mean() == pytest.approx(120, abs=2)
    with pytest.raises(IndexError, match=r"bike has no frame 4; its 4 frames are numbered from 0\."):
        clip.frame(4)


def test_youtube_vos(youtube):
    train, val = ClipFolder(youtube, "train"), ClipFolder(youtube, "val")
    assert train.class_names == val.class_names == ("ape", "cat", "zebra")
    assert train.num_frames == [6, 6]
    assert train[1].labels == {1: 0, 2: 1}
    assert val[0].annotated == [0, 5]
    with pytest.raises(DataError, match=r"00003.jpg is not annotated"):
        val[0].ids(3)
    checked = check_source(str(youtube))
    assert checked.faults == []
    assert (checked.images, checked.objects, checked.classes, checked.sizes) == (18, 6, 3, "12 x 16")
    assert checked.counts[1] == {"class": "cat", "train": 3, "val": 1}


def test_objects_are_found_where_they_are_seen_first(tmp_path):
    root = write_clip(tmp_path, "x", annotated=range(2))
    late = np.where(IDS == 2, 7, IDS).astype(np.uint8)
    write_ids(root / "Annotations/x/00001.png", late)
    write_ids(root / "Annotations/x/00000.png", np.where(IDS == 1, 1, 0).astype(np.uint8))
    write_clip(tmp_path, "y")
    clips = [*map(ClipFolder(root, "train").__getitem__, range(1)), *map(ClipFolder(root, "val").__getitem__, range(1))]
    clip = next(one for one in clips if one.path.endswith("x"))
    assert first_seen(clip) == {1: 0, 7: 1}


def test_numbers_of_pixels(tmp_path):
    path = tmp_path / "a.png"
    write_ids(path, IDS)
    with Image.open(path) as picture:
        assert picture.convert("RGB").getpixel((4, 3)) == colour_of(1)
    Image.fromarray(np.where(IDS == 1, 255, 0).astype(np.uint8)).save(path)
    assert np.array_equal(read_ids(path, IDS.shape), IDS == 1)
    Image.fromarray(np.where(IDS == 1, 255, IDS).astype(np.uint8)).save(path)
    assert np.array_equal(read_ids(path, IDS.shape), np.where(IDS == 2, 2, 0))
    with pytest.raises(ImageError, match=r"a.png has 16 x 12 pixels, and its frame 5 x 5; they must be of one size"):
        read_ids(path, (5, 5))
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(path)
    with pytest.raises(ImageError, match=r"a.png is a picture of colours \(RGB\); the masks of a clip are a PNG with"):
        read_ids(path, (12, 16))


def test_a_sheet_is_drawn_and_faults_are_told(davis, tmp_path):
    sheet = tmp_path / "sheet.png"
    told = CliRunner().invoke(app, ["data", "check", f"clips:{davis}", "--sheet", str(sheet)])
    assert told.exit_code == 0, told.output
    with Image.open(sheet) as picture:
        assert picture.width > 500
    (davis / "Annotations/480p/bike/00002.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    told = CliRunner().invoke(app, ["data", "check", str(davis)])
    assert told.exit_code == 1
    assert "bike: frame 2: " in told.output


WRONG = {
    "ImageSets/2017/train.txt": ("bear\nwolf\n", r"train.txt, line 2: there is no sequence 'wolf' in JPEGImages"),
    "Annotations/480p/camel/00009.png": ("", r"00009.png is the mask of a frame that .*camel does not have"),
    "Annotations/480p/camel/notes.txt": ("", r"notes.txt is none of .png; move it away"),
    "JPEGImages/480p/camel/00001.png": ("", r"00001.png and 00001.jpg are the same frame; remove one"),
}


@pytest.mark.parametrize("file", WRONG)
def test_wrong_files_are_named(davis, file):
    content, message = WRONG[file]
    (davis / file).write_text(content)
    with pytest.raises(DataError, match=message):
        load_dataset(f"clips:{davis}")


def test_wrong_lists_of_objects_are_named(youtube):
    meta = youtube / "train" / "meta.json"
    good = {"a1": {"objects": {"1": {"category": "cat"}}}, "b2": {"objects": {"1": {"category": "cat"}}}}
    for videos, message in (
        ([], "meta.json has no mapping 'videos'"),
        ({**good, "a1": 3}, "meta.json has no 'objects' of the sequence 'a1'"),
        ({**good, "a1": {"objects": {"256": {}}}}, "'a1' has the object '256'; objects are numbered from 1 to 255"),
        ({**good, "a1": {"objects": {"1": {}}}}, "the object 1 of 'a1' has no 'category'"),
    ):
        meta.write_text(json.dumps({"videos": videos}))
        with pytest.raises(DataError, match=message):
            ClipFolder(youtube, "train")
    meta.write_text(json.dumps({"videos": good}))
    with pytest.raises(DataError, match=r"00000.png has the object 2, which meta.json does not name"):
        ClipFolder(youtube, "train")[0].ids(0)


def test_wrong_places_are_named(davis, youtube, tmp_path):
    with pytest.raises(DataError, match=r"has no list test.txt of sequences; there are train, val"):
        ClipFolder(davis, "test")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="holds neither JPEGImages nor folders such as train/JPEGImages"):
        ClipFolder(empty)
    with pytest.raises(DataError, match="is no folder; name the one that holds JPEGImages and Annotations"):
        ClipFolder(empty / "nothing")
    write_clip(davis, "bear", level="1080p")
    assert len(ClipFolder(davis)) == 2
    (davis / "JPEGImages/480p").rename(davis / "JPEGImages/720p")
    with pytest.raises(DataError, match="holds 1080p and 720p; keep one resolution, or call it 480p"):
        ClipFolder(davis)
    with pytest.raises(ValueError, match="Did you mean 'clips:"):
        load_dataset(str(youtube))
    with pytest.raises(ValueError, match=r"'digit-videos:0' asks for '0' items; write a number above 0"):
        load_dataset("digit-videos:0")
    with pytest.raises(ValueError, match="digit-videos have no split 'test'"):
        load_dataset("digit-videos", "test")
