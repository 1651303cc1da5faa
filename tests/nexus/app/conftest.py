"""Images with discs and squares, a project of them, and the page's server."""

import pytest

from nexus.app.annotate.project import Project
from tests.drawn_sets import drawn
from tests.nexus.app.clicking import ByColour

PORT, TOKEN = 8910, "the-token"


@pytest.fixture
def photos(tmp_path):
    """Six images, one of them in a folder of its own."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for seed in range(6):
        drawn(seed)[0].save(folder / ("more/5.png" if seed == 5 else f"{seed}.png"))
    return folder


@pytest.fixture
def project(photos):
    return Project(photos, class_names=["disc", "square"])


@pytest.fixture
def clicker():
    return ByColour()


@pytest.fixture
def serving(project, clicker, needed):
    """A function that returns a client of the page's server, with more headers, or without its token."""
    needed("starlette")
    from contextlib import ExitStack

    from starlette.testclient import TestClient

    from nexus.app.annotate.server import Server

    server = Server(project, clicker, "by colour", TOKEN)
    with ExitStack() as stack:

        def client(token=TOKEN, **headers):
            headers |= {"x-nexus-token": token} if token else {}
            return TestClient(server.app(PORT), base_url=f"http://127.0.0.1:{PORT}", headers=headers)

        yield stack.enter_context(client()) and client
    server.encoder.close()


@pytest.fixture
def client(serving):
    return serving()
