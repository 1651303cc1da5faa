"""Videos: what is written comes back, frame by frame; a broken file is named."""

import numpy as np
import pytest
from PIL import Image

from nexus.data.images import ImageError
from nexus.data.video import frame_rate, read_frames, write_frames

pytestmark = pytest.mark.needs("av")


def pictures(count=7, size=(64, 48)):
    """Frames that tell their number: ever brighter grey, with a red square that moves."""
    for number in range(count):
        pixels = np.full((size[1], size[0], 3), 30 * number, np.uint8)
        pixels[8:24, 4 * number : 4 * number + 16] = (255, 0, 0)
        yield Image.fromarray(pixels)


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm", ".avi", ".mov", ".mpg"])
def test_frames_come_back_in_order(tmp_path, ending):
    path = write_frames(tmp_path / f"film{ending}", pictures(), rate=25)
    frames = list(read_frames(path))
    assert len(frames) == 7
    for made, read in zip(pictures(), frames):
        assert read.mode == "RGB"
        assert read.size == (64, 48)
        difference = np.abs(np.asarray(made, float) - np.asarray(read, float))[30:]
        assert difference.mean() < 6  # the codec loses a little
    assert frame_rate(path) == pytest.approx(25)
    assert not list(tmp_path.glob("*.part*"))


def test_every_third_frame(tmp_path):
    path = write_frames(tmp_path / "film.mp4", pictures())
    levels = [np.asarray(frame)[40, 40].mean() for frame in read_frames(path, every=3)]
    np.testing.assert_allclose(levels, [0, 90, 180], atol=8)


def test_odd_sides_lose_a_row(tmp_path):
    path = write_frames(tmp_path / "film.mp4", pictures(size=(65, 47)))
    assert next(read_frames(path)).size == (64, 46)


def test_a_film_of_a_turned_camera_stands_upright(tmp_path):
    path = write_frames(tmp_path / "film.mp4", pictures(count=2))
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # the track header's display matrix: here a quarter turn clockwise
    quarter = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4")
    data[matrix : matrix + 36] = quarter.tobytes()
    path.write_bytes(data)
    frame = next(read_frames(path))
    assert frame.size == (48, 64)
    upper_right = np.asarray(frame)[2:14, 26:38].reshape(-1, 3).mean(0)  # the red square lay in the upper left
    assert upper_right[0] > 200 > 60 > upper_right[1]


def test_errors_name_the_file(tmp_path):
    with pytest.raises(ImageError, match=r"none\.mp4 does not exist"):
        next(read_frames(tmp_path / "none.mp4"))
    (tmp_path / "text.mp4").write_text("this is no film")
    with pytest.raises(ImageError, match=r"text\.mp4 cannot be decoded"):
        next(read_frames(tmp_path / "text.mp4"))
    with pytest.raises(ImageError, match=r"text\.mp4 is not a video"):
        frame_rate(tmp_path / "text.mp4")
    whole = write_frames(tmp_path / "film.mp4", pictures()).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"cut\.mp4 cannot be decoded"):
        list(read_frames(tmp_path / "cut.mp4"))
    with pytest.raises(ValueError, match=r"ends in '\.jpg'; a video ends in"):
        write_frames(tmp_path / "film.jpg", pictures())
    with pytest.raises(ValueError, match="There is no picture"):
        write_frames(tmp_path / "empty.mp4", [])
    with pytest.raises(ValueError, match="a video has one size"):
        write_frames(tmp_path / "two.mp4", [*pictures(2), *pictures(1, (32, 32))])
    assert not (tmp_path / "two.mp4").exists()
    with pytest.raises(ValueError, match="every is 0"):
        next(read_frames(tmp_path / "film.mp4", every=0))
