"""An object that is followed from image to image, and videos whose frames are annotated."""

import numpy as np
import pytest
import torch
from PIL import Image

from nexus.app.annotate.follow import follow, follower_of, mask_of
from nexus.app.annotate.limits import FOLLOWED
from nexus.app.annotate.marks import Mark, Marks, runs_of
from nexus.app.annotate.project import Project
from nexus.app.annotate.server import Server
from nexus.core.preprocessing import Preprocessing
from nexus.data.images import load_image
from nexus.data.video import write_frames
from nexus.models.cv import SAM
from nexus.models.cv.sam2 import VideoSession
from nexus.proofs.sam import SMALL
from nexus.tasks.clicks import Clicks
from tests.small_models import small

SIDE = 32


def picture(number):
    """A square that goes to the right by two pixels with each picture."""
    pixels = np.full((SIDE, SIDE, 3), 40, np.uint8)
    pixels[10:18, 4 + 2 * number : 12 + 2 * number] = (250, 220, 20)
    return Image.fromarray(pixels)


def square(number):
    return (np.asarray(picture(number)) == (250, 220, 20)).all(axis=2)


def by_colour(frames, mask):
    """A stand-in for SAM 2: what has the colour of the first mask; nothing in a picture that has none of it."""
    colour = None
    for frame in frames:
        pixels = np.asarray(frame)
        if colour is None:
            colour = pixels[mask].mean(axis=0)
        else:
            yield np.abs(pixels - colour).max(axis=2) < 20


@pytest.fixture
def frames(tmp_path):
    (tmp_path / "frames").mkdir()
    for number in range(5):
        picture(number).save(tmp_path / "frames" / f"{number}.png")
    return tmp_path / "frames"


@pytest.fixture
def project(frames):
    found = Project(frames, class_names=["square"])
    found.save(0, Marks(SIDE, SIDE, (Mark(1, runs_of(square(0)), Clicks(((8.0, 14.0, 1),))),)))
    return found


def masks(project, number):
    marks = project.marks(number)
    return [mask_of(one, marks) for one in marks.objects]


def test_an_object_is_in_all_images_under_one_number(project):
    assert follow(project, by_colour, 0, 0, 24) == 4
    for number in range(5):
        (mask,) = masks(project, number)
        assert np.array_equal(mask, square(number))
    tracks = {project.marks(number).objects[0].track for number in range(5)}
    assert len(tracks) == 1
    assert tracks != {0}
    assert all(project.marks(number).objects[0].label == 1 for number in range(5))
    assert project.marks(0).objects[0].clicks.points == ((8.0, 14.0, 1),)


def test_following_again_replaces_what_was_found_and_leaves_what_was_corrected(project):
    follow(project, by_colour, 0, 0, 24)
    two = project.marks(2)
    corrected = Mark(1, runs_of(square(0)), Clicks(((5.0, 12.0, 1),)), track=two.objects[0].track)
    other = Mark(1, runs_of(square(4)))
    project.save(2, Marks(SIDE, SIDE, (other, corrected), revision=two.revision))

    def nothing(frames, mask):
        yield from (np.zeros_like(mask) for _ in list(frames)[1:])

    follow(project, nothing, 0, 0, 24)
    assert [len(project.marks(number).objects) for number in range(5)] == [1, 0, 2, 0, 0]
    assert np.array_equal(masks(project, 2)[1], square(0))


def test_only_so_many_images_are_followed(project):
    assert follow(project, by_colour, 0, 0, 2) == 2
    assert [len(project.marks(number).objects) for number in range(5)] == [1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("number", "place", "message"),
    [(0, 1, r"There is no object 1 in 0.png; it has 1"), (4, 0, r"There is no object 0"), (0, -1, "no object -1")],
)
def test_mistakes_are_answered(project, number, place, message):
    with pytest.raises(ValueError, match=message):
        follow(project, by_colour, number, place, 3)


def test_after_the_last_image_there_is_none(project):
    follow(project, by_colour, 0, 0, 24)
    with pytest.raises(ValueError, match=r"4.png is the last image; there is none to follow the object through"):
        follow(project, by_colour, 4, 0, 3)


def test_sam_2_follows_as_its_session_does(frames):
    torch.manual_seed(0)
    model, size = small("sam2.1_hiera_tiny")
    model.preprocessing = Preprocessing(image_size=size, resize="squash", interpolation="bilinear")
    follower = follower_of(model)
    pictures = [load_image(frames / f"{number}.png") for number in range(4)]
    found = list(follower(pictures, square(0)))
    from nexus.data import eval_transform
    from nexus.tasks.video_segmentation.session import at_size

    session, transform = VideoSession(model, (SIDE, SIDE)), eval_transform(model.preprocessing)
    session.push(transform(pictures[0]))
    session.prompt(1, masks=square(0))
    for mask, frame in zip(found, pictures[1:], strict=True):
        wanted = at_size(session.push(transform(frame)).logits, (SIDE, SIDE))[0] > 0
        assert np.array_equal(mask, wanted.numpy())
    with pytest.raises(ValueError, match="Frame 1 has 9 x 7 pixels, and the first one 32 x 32"):
        list(follower([pictures[0], np.zeros((7, 9, 3), np.uint8)], square(0)))


def test_sam_follows_nothing():
    assert follower_of(SAM(SMALL)) is None


@pytest.fixture
def answering(project, clicker, needed):
    """A function that returns a client of a server, with or without what follows."""
    needed("starlette")
    from starlette.testclient import TestClient

    servers = []

    def made(follower):
        server = Server(project, clicker, "by colour", "t", follower)
        servers.append(server)
        return TestClient(server.app(8910), base_url="http://127.0.0.1:8910", headers={"x-nexus-token": "t"})

    yield made
    for server in servers:
        server.encoder.close()


def test_the_server_follows(answering, project):
    client = answering(by_colour)
    assert client.get("/api/project").json()["follows"] is True
    said = client.post("/api/images/0/follow", json={"object": 0, "images": 3})
    assert said.status_code == 200, said.text
    assert said.json()["images"] == 3
    assert said.json()["status"]["3"] == [1, False]
    assert said.json()["used"] == {"1": 4}
    assert np.array_equal(masks(project, 3)[0], square(3))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"object": 0}, "not a mapping of object and images"),
        ({"object": 0, "images": 0}, f"images 1 to {FOLLOWED}"),
        ({"object": 0, "images": FOLLOWED + 1}, f"images 1 to {FOLLOWED}"),
        ({"object": "0", "images": 3}, "whole numbers"),
        ({"object": True, "images": 3}, "whole numbers"),
        ({"object": 7, "images": 3}, "There is no object 7"),
    ],
)
def test_the_server_refuses_other_requests(answering, asked, message):
    said = answering(by_colour).post("/api/images/0/follow", json=asked)
    assert said.status_code == 400
    assert message in said.json()["error"]


def test_a_model_that_cannot_follow_says_so(answering):
    client = answering(None)
    assert client.get("/api/project").json()["follows"] is False
    said = client.post("/api/images/0/follow", json={"object": 0, "images": 3})
    assert "by colour follows no objects; a SAM 2 does" in said.json()["error"]


@pytest.mark.needs("av")
def test_a_video_is_a_project_of_its_frames(tmp_path):
    video = write_frames(tmp_path / "clip.mp4", [picture(number) for number in range(6)])
    project = Project(video, class_names=["square"])
    assert project.names == [f"{number:06}.png" for number in range(6)]
    assert project.output == tmp_path / "clip-annotations"
    project.save(3, Marks(SIDE, SIDE, (Mark(1, runs_of(square(3))),)))
    again = Project(video)
    assert again.status[3].objects.total() == 1
    third = Project(video, tmp_path / "third", every=3)
    assert third.names == ["000000.png", "000003.png"]
    assert Project(video, tmp_path / "third").names == third.names
    with pytest.raises(ValueError, match="holds frames of another video, or taken otherwise; name another --output"):
        Project(video, tmp_path / "third", every=2)
    write_frames(tmp_path / "other.mp4", [picture(0)])
    with pytest.raises(ValueError, match="holds frames of another video"):
        Project(tmp_path / "other.mp4", tmp_path / "third")
