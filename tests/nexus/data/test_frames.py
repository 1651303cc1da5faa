"""Frames of a video by number, from files, folders and memory."""

import numpy as np
import pytest
import torch
from PIL import Image

from nexus.data import ImageError
from nexus.data.frames import open_frames
from nexus.data.video import read_frames, write_frames


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """60 frames, each of another grey, more than one key frame apart."""
    frames = [Image.new("RGB", (64, 48), (4 * at,) * 3) for at in range(60)]
    return write_frames(tmp_path_factory.mktemp("frames") / "a.mp4", frames)


def test_any_frame_of_a_file_is_the_one_that_reading_through_gives(video):
    through = [np.asarray(frame) for frame in read_frames(video)]
    frames = open_frames(video)
    assert len(frames) == len(through) == 60
    assert frames.size == (48, 64)
    for number in (0, 59, 30, 31, 33, 5, 58, 57, 56, 0, 20):
        assert np.array_equal(np.asarray(frames[number]), through[number]), number
    assert all(np.array_equal(np.asarray(one), other) for one, other in zip(frames, through, strict=True))
    assert [int(np.asarray(frames[number]).mean()) for number in (10, 40)] == pytest.approx([40, 160], abs=3)


def test_frames_of_folders_arrays_tensors_and_lists_are_the_same(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 20, 30, 3), dtype=np.uint8)
    for number, one in enumerate(pixels):
        Image.fromarray(one).save(tmp_path / f"{number:03}.png")
    (tmp_path / "notes.txt").write_text("")
    sources = (tmp_path, pixels, torch.from_numpy(pixels).permute(0, 3, 1, 2), [Image.fromarray(one) for one in pixels])
    for source in sources:
        frames = open_frames(source)
        assert (len(frames), frames.size) == (4, (20, 30))
        assert np.array_equal(np.asarray(frames[2]), pixels[2])
    inputs = open_frames(pixels).mapped(lambda frame: torch.tensor(np.asarray(frame).mean()))
    assert len(inputs) == 4
    assert float(inputs[3]) == pytest.approx(pixels[3].mean())


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    frames = open_frames(tmp_path)
    assert frames[2].size == (8, 8)
    with pytest.raises(ImageError, match=r"1\.png"):
        frames[1]


def test_mistakes_are_named(video, tmp_path):
    frames = open_frames(video)
    for number in (60, -1, True, "a"):
        with pytest.raises(IndexError, match=f"a.mp4 has no frame {number!r}; its 60 frames are numbered from 0"):
            frames[number]
    with pytest.raises(ImageError, match=r"missing.mp4 does not exist"):
        open_frames(tmp_path / "missing.mp4")
    with pytest.raises(ImageError, match="holds no picture"):
        open_frames(tmp_path)
    with pytest.raises(ImageError, match=r"a.txt is no video, whose names end in .avi"):
        open_frames(tmp_path / "a.txt")
    with pytest.raises(ImageError, match="The video has no frame"):
        open_frames([])
    with pytest.raises(ValueError, match=r"have the shape \(3, 4, 5\); they are \(t, c, h, w\)"):
        open_frames(torch.zeros(3, 4, 5))
    with pytest.raises(ValueError, match=r"Frames of a generator cannot be had by number.*Give it to Predictor.stream"):
        open_frames(one for one in ())
    with pytest.raises(ValueError, match=r"Frames of a int cannot be had by number; give a file, a folder, an array"):
        open_frames(3)


def test_a_file_that_ends_early_is_named(video, tmp_path):
    """Its table of frames says more than there is."""
    cut = tmp_path / "cut.mp4"
    content = bytearray(video.read_bytes())
    start = content.find(b"mdat")
    assert 0 < start < len(content) // 2
    table = content.find(b"moov")
    end = table - 4 if table > start else len(content)
    half = (start + end) // 2
    content[half:end] = b"\0" * (end - half)
    cut.write_bytes(content)
    with pytest.raises(ImageError, match=r"cut.mp4 (ends early|cannot be decoded)"):
        list(open_frames(cut))
