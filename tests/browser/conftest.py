"""A real Chromium without a window, and the page's server on a port of its own."""

import os
import shutil
import threading
import time
from contextlib import contextmanager

import pytest

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--js-flags=--expose-gc"),
)
"""Chromium is started as root in CI, and asks nobody for anything."""
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium(needed):
    """A browser that is started once."""
    playwright = needed("playwright.sync_api")
    path = os.environ.get("NEXUS_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail("There is no Chromium: apt-get install -y chromium, or set NEXUS_CHROMIUM to its path.")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


class Page:
    """The page in a browser, with what a person does on it in pixels of the image."""

    def __init__(self, page):
        self.page, self.keyboard, self.mouse = page, page.keyboard, page.mouse

    def run(self, script, *arguments):
        """What a piece of JavaScript gives, where `app` is the page's own object."""
        return self.page.evaluate(f"(given) => {{ const app = window.annotate; return {script}; }}", list(arguments))

    def until(self, script, seconds=30):
        """Waits until a piece of JavaScript is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < end, f"never: {script}; the page says {self.told()!r}"
            time.sleep(0.02)

    def told(self):
        return self.page.locator("#toast, #banner-text, #broken").all_inner_texts()

    def open(self, address):
        self.page.goto(address)
        self.until("app?.doc")

    def place(self, x, y):
        """Where a pixel of the image is in the window."""
        script = "(() => { const b = app.view.stage.getBoundingClientRect(), p = app.view.toScreen(...given); return [b.left + p.x, b.top + p.y]; })()"
        return self.run(script, x, y)

    def settle(self):
        """Waits until all answers are there and everything is kept."""
        self.run("app.queue.then(() => true)")
        self.until("!app.saver.isUnsaved() && document.getElementById('saved').textContent === 'Saved'")

    def click(self, x, y, **options):
        self.mouse.click(*self.place(x, y), **options)
        self.settle()

    def drag(self, *places, button="left"):
        self.mouse.move(*self.place(*places[0]))
        self.mouse.down(button=button)
        for place in places[1:]:
            self.mouse.move(*self.place(*place), steps=6)
        self.mouse.up(button=button)
        self.settle()

    def press(self, key):
        self.keyboard.press(key)
        self.settle()

    def areas(self):
        """Pixels of each object."""
        return self.run(
            "app.doc.objects.map((one) => { let sum = 0; for (let i = 0; i < one.mask.length; i += 2) sum += one.mask[i + 1] - one.mask[i]; return sum; })"
        )


@pytest.fixture
def open_page(chromium):
    """A function that opens a page of some size; in the end nothing was asked elsewhere, and nothing went wrong."""
    wrong, asked, opened = [], [], []

    def start(width=1280, height=800):
        context = chromium.new_context(viewport={"width": width, "height": height})
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: wrong.append(dialog.message) or dialog.accept())
        opened.append((context, wrong))
        return Page(page)

    start.wrong = wrong
    yield start
    for context, _ in opened:
        context.close()
    assert not wrong, wrong
    assert all(url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:")) for url in asked), asked


@contextmanager
def running(server, port=0):
    """A server that answers while the block runs; gives the address of its page and its port."""
    import uvicorn

    from nexus.app.annotate.serve import HOST, listen

    with listen(port) as sock:
        port = sock.getsockname()[1]
        sock.listen()
        config = uvicorn.Config(
            server.app(port), log_level="warning", lifespan="on", ws="none", timeout_graceful_shutdown=2
        )
        loop = uvicorn.Server(config)
        thread = threading.Thread(target=loop.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        yield f"http://{HOST}:{port}/?token={server.token}", port
        loop.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
