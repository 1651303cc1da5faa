"""The annotation page, as a person uses it: `make test-browser`."""

import json
import re

import numpy as np
import pytest
from scipy import ndimage

from nexus.app.annotate.marks import coco_runs, runs_of
from nexus.app.annotate.project import Project
from nexus.data.check import check_source
from nexus.data.detection import DigitScenes, read_annotations
from tests.browser.conftest import running
from tests.drawn_sets import drawn
from tests.nexus.app.clicking import ByColour

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def scenes():
    return DigitScenes("val", 12)


@pytest.fixture
def folder(tmp_path):
    """Four drawn images of 64 x 48 pixels: discs are yellow, squares blue."""
    (tmp_path / "photos").mkdir()
    for seed in range(4):
        drawn(seed)[0].save(tmp_path / "photos" / f"{seed}.png")
    return tmp_path / "photos"


@pytest.fixture
def server(folder, needed):
    needed("uvicorn")
    from nexus.app.annotate.server import Server

    return Server(Project(folder, class_names=["disc", "square"]), ByColour(), "by colour", "the-token")


@pytest.fixture
def page(server, open_page):
    with running(server) as (address, _):
        page = open_page()
        page.open(address)
        yield page


def middle(seed, place=0):
    _, x1, y1, x2, y2 = drawn(seed)[1][place]
    return (x1 + x2) / 2, (y1 + y2) / 2


def pixels(seed):
    """How many pixels the first object has."""
    image, ((label, x1, y1, x2, y2), *_) = drawn(seed)
    return int((np.asarray(image)[y1:y2, x1:x2] == ((250, 220, 20), (20, 60, 220))[label]).all(axis=2).sum())


def kept(server, number):
    """Masks that are kept of an image."""
    marks = server.project.marks(number)
    return [coco_runs(mark.counts, marks.height, marks.width).decode() for mark in marks.objects]


def inmost(mask):
    """x and y of the pixel that is farthest from a mask's edge."""
    y, x = np.unravel_index(ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1].argmax(), mask.shape)
    return x + 0.5, y + 0.5


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_a_scene_from_the_first_click_to_coco(scenes, open_page, tmp_path, clicker_of_scenes):
    from nexus.app.annotate.server import Server

    (tmp_path / "photos").mkdir()
    scenes[0].image.save(tmp_path / "photos" / "scene.png")
    truth = [scenes[0].scene.rle(one).decode() for one in scenes[0].scene.objects]
    server = Server(Project(tmp_path / "photos"), clicker_of_scenes, "model", "the-token")
    with running(server) as (address, _):
        page = open_page()
        page.open(address)
        target = max(truth, key=np.sum)
        page.click(*inmost(target))
        assert iou(kept(server, 0)[0], target) > 0.8
        page.press("n")
        page.keyboard.type("a digit")
        page.press("Enter")
        page.until("app.project.classes.length === 2")
        page.click(*_outside(kept(server, 0)[0]), button="right")
        assert iou(kept(server, 0)[0], target) > 0.8
        page.press("e")
        x, y = inmost(kept(server, 0)[0])
        before = kept(server, 0)[0].sum()
        page.drag((x, y), (x + 2, y))
        assert 0 < kept(server, 0)[0].sum() < before
        page.press("p")
        page.drag((x - 1, y), (x + 3, y))
        assert iou(kept(server, 0)[0], target) > 0.8
        page.page.reload()
        page.until("app?.doc")
        assert page.run("app.doc.objects.map((one) => one.label)") == [2]
        assert page.page.locator("#objects li").inner_text().startswith("a digit")
        page.page.click("#open-export")
        page.page.click("#run-export")
        page.until("document.getElementById('export-result').textContent.includes('data check')")
        source = re.search(r"nexus data check (\S+)", page.page.inner_text("#export-result"))[1]
    checked = check_source(source)
    assert checked.faults == []
    assert (checked.images, checked.objects) == (1, 1)
    (scene,) = read_annotations(source).scenes
    assert read_annotations(source).class_names[scene.objects[0].label] == "a digit"
    assert iou(scene.rle(scene.objects[0]).decode(), target) > 0.8


def _outside(mask):
    """A place far from a mask."""
    return inmost(~ndimage.binary_dilation(mask, iterations=6))


@pytest.fixture
def clicker_of_scenes():
    return ByColour()


def test_clicks_boxes_and_hands(page, server):
    page.click(*middle(0))
    assert page.areas() == [pixels(0)]
    assert page.run("app.doc.active.guesses") == 3
    page.press("Enter")
    page.press("b")
    (_, x1, y1, x2, y2) = drawn(0)[1][1]
    page.drag((x1 - 1, y1 - 1), (x2 + 1, y2 + 1))
    assert len(page.areas()) == 2
    page.press("2")
    assert page.run("app.doc.objects.map((one) => one.label)") == [1, 2]
    page.press("p")
    page.press("Enter")
    page.drag((2, 2), (12, 2))
    assert len(page.areas()) == 3, "the brush begins an object"
    grown = page.areas()[2]
    page.press("e")
    page.drag((2, 2), (5, 2))
    assert page.areas()[2] < grown
    page.drag((2, 2), (5, 2), button="right")
    assert page.areas()[2] == grown, "the right button does the opposite"
    assert [mask.sum() for mask in kept(server, 0)] == page.areas()
    page.press("Delete")
    assert len(kept(server, 0)) == 2


def test_what_was_painted_stays_when_the_model_is_asked_again(page):
    x, y = middle(0)
    page.click(x, y)
    first = page.areas()[0]
    page.press("p")
    page.drag((2, 46), (6, 46))
    painted = page.areas()[0] - first
    assert painted > 0
    page.press("c")
    page.click(x + 2, y + 2)
    assert page.areas() == [first + painted]
    page.click(x + 2, y + 2)
    assert page.run("app.doc.active.points.length") == 1, "a click on a point takes it away"
    page.page.reload()
    page.until("app?.doc")
    page.run("app.select(0)")
    page.click(x - 2, y)
    assert page.areas() == [first + painted], "and after it was opened again"


def test_undo_and_redo_know_every_step(page, server):
    seen = [page.areas()]
    page.click(*middle(0))
    seen.append(page.areas())
    page.press("p")
    page.drag((2, 2), (9, 2))
    seen.append(page.areas())
    page.press("2")
    seen.append(page.areas())
    for step in reversed(seen[:-1]):
        page.press("Control+z")
        assert page.areas() == step
    assert page.page.is_disabled("#undo")
    assert kept(server, 0) == []
    for step in seen[1:]:
        page.press("Control+Shift+Z")
        assert page.areas() == step
    assert page.run("app.doc.objects[0].label") == 2
    assert [mask.sum() for mask in kept(server, 0)] == seen[-1]
    page.press("Control+y")
    assert page.areas() == seen[-1]


def test_other_guesses_at_the_first_click(page):
    page.click(*middle(0))
    page.press("g")
    assert page.run("app.doc.active.choice") == 1
    assert page.page.inner_text("#guess").startswith("Guess 2 of 3")
    page.press("g")
    page.press("g")
    assert page.run("app.doc.active.choice") == 0


def test_the_place_is_right_at_every_zoom(page):
    page.press("ArrowRight")
    page.until("app.number === 1 && app.doc")
    x, y = middle(1)
    for zoom in ("-", "-", "+", "0", "wheel"):
        if zoom == "wheel":
            page.mouse.move(*page.place(x, y))
            page.mouse.wheel(0, -600)
            page.until("app.view.zoom > 2 * app.view.fitted")
        else:
            page.press(zoom)
        page.click(x, y)
        assert page.areas() == [pixels(1)]
        point = page.run("app.doc.active.points[0]")
        assert np.hypot(point[0] - x, point[1] - y) < 0.6
        page.press("Delete")
    under = page.place(x, y)
    page.mouse.move(*under)
    page.mouse.wheel(0, -400)
    page.until("app.view.zoom > 1.5 * app.view.fitted")
    np.testing.assert_allclose(page.place(x, y), under, atol=0.01)
    page.keyboard.down(" ")
    before = page.place(x, y)
    page.mouse.move(400, 300)
    page.mouse.down()
    page.mouse.move(440, 320)
    page.mouse.up()
    page.keyboard.up(" ")
    np.testing.assert_allclose(np.subtract(page.place(x, y), before), (40, 20), atol=0.01)
    assert page.areas() == []


def test_keys_lead_through_the_images(page, server):
    page.press("ArrowRight")
    page.until("app.number === 1 && app.doc")
    page.click(*middle(1))
    page.press("f")
    page.until("app.number === 2 && app.doc")
    assert server.project.status[1].done
    page.press("ArrowLeft")
    page.until("app.number === 1 && app.doc")
    assert page.page.is_checked("#done")
    assert page.areas() == [pixels(1)]
    page.press("t")
    page.until("app.number === 2 && app.doc")
    page.page.click("#images li:nth-child(4)")
    page.until("app.number === 3 && app.doc")
    assert page.page.url.endswith("#4")
    page.page.reload()
    page.until("app?.doc")
    assert page.run("app.number") == 3
    assert page.page.inner_text("#progress-text") == "1 of 4 done"


def test_every_key_is_listed(page):
    page.press("?")
    listed = page.page.inner_text("#keys")
    for word in ("Enter", "Delete", "Undo", "Redo", "Box", "Brush", "Eraser", "Next image", "Previous image", "1–9"):
        assert word in listed
    page.keyboard.press("Escape")
    page.press("x")
    x, y = middle(0)
    page.click(x, y)
    assert page.run("app.doc.objects.length") == 0, "a place that is not of the object has no mask alone"
    page.click(x, y, button="right")
    assert page.areas() == [pixels(0)], "X swaps what the buttons mean"
    page.press("h")
    page.press("h")


def test_classes_are_named_coloured_and_removed(page, server):
    page.page.fill("#class-name", "<img src=x onerror=alert(1)>")
    page.page.press("#class-name", "Enter")
    page.until("app.project.classes.length === 3")
    assert page.page.inner_text("#classes li:nth-child(3) .name") == "<img src=x onerror=alert(1)>"
    page.click(*middle(0))
    assert page.run("app.doc.objects[0].label") == 3
    assert page.page.is_disabled("#classes li:nth-child(3) button:last-child"), "it has an object"
    page.page.dblclick("#classes li:nth-child(1) .name")
    page.keyboard.type("ri")
    page.run("app.kept(0, { objects: 1, used: { 3: 5 } }, false)")
    page.keyboard.type("ng")
    page.keyboard.press("Enter")
    page.until("app.project.classes[0].name === 'ring'")
    page.page.locator("#classes li:nth-child(1) input[type=color]").evaluate(
        "(one) => { one.value = '#123456'; one.dispatchEvent(new Event('change')); }"
    )
    page.until("app.project.classes[0].color === '#123456'")
    page.page.hover("#classes li:nth-child(2)")
    page.page.click("#classes li:nth-child(2) button:last-child")
    page.until("app.project.classes.length === 2")
    rows = json.loads((server.project.output / "project.json").read_text())["classes"]
    assert rows[0] == {"id": 1, "name": "ring", "color": "#123456"}
    assert rows[1]["id"] == 3


def test_two_windows_do_not_write_over_each_other(server, open_page):
    with running(server) as (address, _):
        first, second = open_page(), open_page()
        first.open(address)
        second.open(address)
        first.click(*middle(0))
        second.mouse.click(*second.place(*middle(0, 1)))
        second.until("!document.getElementById('banner').hidden")
        assert "0.png was changed in another window" in second.page.inner_text("#banner-text")
        second.page.click("#banner-act")
        second.until("app.doc?.objects.length === 1")
        second.click(*middle(0, 1))
        assert len(kept(server, 0)) == 2
    open_page.wrong[:] = [one for one in open_page.wrong if "409" not in one]


def test_nothing_is_lost_while_the_server_is_away(folder, server, open_page):
    from nexus.app.annotate.server import Server

    with running(server) as (address, port):
        page = open_page()
        page.open(address)
        page.click(*middle(0))
    page.keyboard.press("2")
    page.until("!document.getElementById('banner').hidden")
    assert "Is nexus annotate still running?" in page.page.inner_text("#banner-text")
    assert page.page.inner_text("#saved") == "Not saved"
    again = Server(Project(folder), ByColour(), "by colour", "the-token")
    with running(again, port):
        page.settle()
        assert [mark.label for mark in again.project.marks(0).objects] == [2]
    open_page.wrong.clear()


def test_a_broken_image_is_told_and_the_next_one_works(folder, server, open_page):
    (folder / "1.png").write_bytes(b"\x89PNG\r\n")
    with running(server) as (address, _):
        page = open_page()
        page.page.goto(address + "#2")
        page.until("!document.getElementById('broken').hidden")
        assert "1.png is truncated or corrupt" in page.page.inner_text("#broken")
        page.keyboard.press("ArrowRight")
        page.until("app.number === 2 && app.doc")
        page.click(*middle(2))
        assert page.areas() == [pixels(2)]
    open_page.wrong.clear()


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (820, 1180), (400, 800)])
def test_it_fits_the_window(server, open_page, width, height, tmp_path_factory):
    with running(server) as (address, _):
        page = open_page(width, height)
        page.open(address)
        page.click(*middle(0))
        page.page.screenshot(path=tmp_path_factory.getbasetemp() / f"annotate-{width}.png")
        over = page.run(
            "[...document.querySelectorAll('header button, .tools button, .bar button, aside h2, #stage')]"
            ".filter((one) => one.checkVisibility()).map((one) => one.getBoundingClientRect())"
            ".filter((box) => box.left < 0 || box.right > innerWidth + 0.5 || box.bottom > innerHeight + 0.5).length"
        )
        assert over == 0
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        assert page.run("app.view.stage.clientWidth * app.view.stage.clientHeight / (innerWidth * innerHeight)") > 0.45
        assert page.areas() == [pixels(0)]


def test_an_object_is_followed_through_the_next_images(tmp_path, open_page, needed):
    needed("uvicorn")
    from nexus.app.annotate.server import Server
    from tests.nexus.app.test_follow import by_colour, picture, square

    (tmp_path / "frames").mkdir()
    for number in range(4):
        picture(number).save(tmp_path / "frames" / f"{number}.png")
    project = Project(tmp_path / "frames", class_names=["square"])
    with running(Server(project, ByColour(), "by colour", "the-token", by_colour)) as (address, _):
        page = open_page()
        page.open(address)
        assert page.page.locator("#follow").is_hidden()
        page.click(8, 14)
        assert page.page.locator("#follow").is_visible()
        page.press("w")
        page.until("app.project.status[3]?.[0] === 1 && app.doc && app.doc.revision === 2")
        page.run("app.open(3).then(() => true)")
        page.until("app.number === 3 && app.doc?.objects.length === 1")
    marks = project.marks(3)
    assert marks.objects[0].counts == runs_of(square(3))
    assert marks.objects[0].track == project.marks(0).objects[0].track != 0
