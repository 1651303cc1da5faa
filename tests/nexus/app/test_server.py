"""The page's server: pictures, masks for clicks, what is kept, and what it answers to mistakes."""

import io
import json

import numpy as np
import PIL.Image
import pytest

from nexus.app.annotate.project import Project
from nexus.app.annotate.server import PAGE
from nexus.data.detection import rle
from tests.drawn_sets import HEIGHT, WIDTH, drawn

PIXELS = HEIGHT * WIDTH


def middle(seed):
    _, x1, y1, x2, y2 = drawn(seed)[1][0]
    return [(x1 + x2) / 2, (y1 + y2) / 2, 1]


def decoded(counts):
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(HEIGHT, WIDTH)


def true_mask(seed):
    """Pixels of the first object, by its colour."""
    image, things = drawn(seed)
    colour = ((250, 220, 20), (20, 60, 220))[things[0][0]]
    return (np.asarray(image) == colour).all(axis=2)


def kept(**changes):
    return {"version": 1, "height": HEIGHT, "width": WIDTH, "done": False, "revision": 0, "objects": []} | changes


def test_all_of_the_page_is_there(client):
    assert "nexus annotate" in client.get("/").text
    for name, kind in PAGE.items():
        answer = client.get(f"/page/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", ""), (
            "the page fetches nothing from elsewhere"
        )


def test_the_project_is_described(client, project):
    said = client.get("/api/project").json()
    assert said["names"] == project.names
    assert said["title"] == "photos"
    assert [one["name"] for one in said["classes"]] == ["disc", "square"]
    assert set(said["formats"]) == {"coco", "yolo", "yolo-boxes", "png"}


def test_pictures_are_upright_and_of_the_pixels_that_the_model_sees(client, photos):
    turned = PIL.Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 12))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(photos / "0.png", exif=exif)
    np.save(photos / "1.npy", np.full((3, 5, 6), 0.5, np.float32))
    picture = client.get("/api/images/0/picture")
    assert picture.headers["content-type"] == "image/png"
    with PIL.Image.open(io.BytesIO(picture.content)) as seen:
        assert seen.size == (4, 12)
        assert seen.mode == "RGB"
    assert client.get("/api/images/0").json()["height"] == 12


def test_a_click_is_answered_with_a_mask(client, clicker):
    assert client.get("/api/images/1/ready").json()["ready"]
    said = client.post("/api/images/1/mask", json={"points": [middle(1)]}).json()
    assert np.array_equal(decoded(said["counts"]), true_mask(1))
    assert said["guesses"] == 3
    assert 0 < said["score"] <= 1
    other = client.post("/api/images/1/mask", json={"points": [middle(1)], "choice": 1}).json()
    assert other["score"] < said["score"]
    without = client.post("/api/images/1/mask", json={"points": [middle(1), [*middle(1)[:2], 0]]}).json()
    assert without["counts"] == [PIXELS]
    box = [float(number) for number in drawn(1)[1][0][1:]]
    assert client.post("/api/images/1/mask", json={"box": box}).json()["guesses"] == 1
    assert clicker.encoded <= 6, "each image is encoded once"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the request is not valid JSON"),
        (b"[]", "the request is not a mapping of points, box and choice"),
        (b'{"points": [[1e999, 1, 1]]}', "a point is"),
        (b'{"points": [[NaN, 1, 1]]}', "holds NaN, which is no number of JSON"),
        (b'{"points": [[1, 1]]}', "a point is [1, 1]; it is [x, y, 1] or [x, y, 0]"),
        (b'{"points": []}', "There is no prompt"),
        (b'{"points": [[65, 1, 1]]}', "The point (65, 1) is outside of the image, which is 64 x 48 pixels"),
        (b"[" * 40 + b"]" * 40, "nests deeper than 8 levels"),
        (b"\xff", "is not text in UTF-8"),
    ],
)
def test_wrong_questions_are_answered_in_a_line(client, body, message):
    answer = client.post("/api/images/0/mask", content=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_what_is_marked_is_kept_and_found_again(client, photos, project):
    counts = client.post("/api/images/2/mask", json={"points": [middle(2)]}).json()["counts"]
    one = {"class": 1, "counts": counts, "points": [middle(2)], "choice": 1}
    saved = client.put("/api/images/2", json=kept(objects=[one])).json()
    assert saved == {"revision": 1, "objects": 1, "used": {"1": 1}}
    assert client.get("/api/images/2").json() == kept(objects=[one], revision=1)
    file = project.output / "marks" / "2.png.json"
    assert json.loads(file.read_text()) == kept(objects=[one], revision=1)
    again = Project(photos)
    assert again.marks(2).to_json() == kept(objects=[one], revision=1)
    assert client.get("/api/project").json()["status"] == {"2": [1, False]}
    client.put("/api/images/2", json=kept(objects=[], revision=1, done=True))
    assert client.get("/api/project").json()["status"] == {"2": [0, True]}


def test_a_second_window_does_not_write_over_the_first(client):
    assert client.put("/api/images/0", json=kept(done=True)).status_code == 200
    answer = client.put("/api/images/0", json=kept())
    assert answer.status_code == 409
    assert "0.png was changed in another window; load it again" in answer.json()["error"]


def test_marks_that_do_not_fit_are_refused(client, project):
    for change, message in (
        ({"height": 47}, "the marks are of an image of 64 x 47 pixels, and it has 64 x 48 now"),
        ({"objects": [{"class": 3, "counts": [0, PIXELS]}]}, "there is no class 3"),
        ({"objects": [{"class": 1, "counts": [0, 5]}]}, "0.png, object 0: counts must be lengths of runs"),
    ):
        answer = client.put("/api/images/0", json=kept(**change))
        assert answer.status_code == 400
        assert message in answer.json()["error"]
    assert not (project.output / "marks").exists()


def test_classes_are_kept(client, project):
    rows = [{"id": 1, "name": "ring", "color": "#112233"}, {"id": 9, "name": "<b>new</b>", "color": "#445566"}]
    assert client.put("/api/classes", json=rows).json() == rows
    assert json.loads((project.output / "project.json").read_text())["classes"] == rows
    client.put("/api/images/0", json=kept(objects=[{"class": 9, "counts": [0, PIXELS]}]))
    answer = client.put("/api/classes", json=rows[:1])
    assert answer.status_code == 409
    assert "<b>new</b> has 1 objects" in answer.json()["error"]
    for row, message in (
        ({"id": 1, "name": "a"}, "it is a mapping of id, name and color"),
        ({"id": "1", "name": "a", "color": "#112233"}, "the id of a class is '1'"),
        ({"id": 1, "name": "a", "color": "url(x)"}, "the colour of 'a' is 'url(x)'"),
    ):
        answer = client.put("/api/classes", json=[row])
        assert answer.status_code == 400
        assert message in answer.json()["error"]


def test_a_broken_image_is_told(client, photos):
    (photos / "more" / "5.png").write_bytes(b"\x89PNG")
    for path in ("/api/images/5", "/api/images/5/picture", "/api/images/5/ready"):
        answer = client.get(path)
        assert answer.status_code == 400
        assert "5.png is truncated or corrupt" in answer.json()["error"]
    assert client.get("/api/images/2/ready").status_code == 200


def test_what_nobody_foresaw_is_told_in_a_line(serving, project, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nexus.app.annotate.project.write_whole", full)
    client = serving()
    client._transport.raise_server_exceptions = False
    answer = client.put("/api/images/0", json=kept())
    assert answer.status_code == 500
    assert "No space left on device" in answer.json()["error"]


def test_names_that_are_no_text_are_shown(photos, clicker, needed):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    (photos / "0.png").rename(photos / name)
    from starlette.testclient import TestClient

    from nexus.app.annotate.server import Server

    project = Project(photos)
    server = Server(project, clicker, "by colour", "t")
    with TestClient(server.app(1), base_url="http://127.0.0.1:1", headers={"x-nexus-token": "t"}) as client:
        number = project.names.index(name)
        assert client.get("/api/project").json()["names"][number] == name
        assert client.put(f"/api/images/{number}", json=kept()).status_code == 200
    assert Project(photos).marks(number).revision == 1


def test_masks_are_rle_of_the_same_pixels(client):
    counts = client.post("/api/images/4/mask", json={"points": [middle(4)]}).json()["counts"]
    assert rle.encode(decoded(counts)) == rle.encode(true_mask(4))
