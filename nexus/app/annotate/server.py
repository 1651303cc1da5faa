"""The server behind the page: pictures, questions to the model, what is marked, classes and exports.

Images are named by their number in the list that was made at the start, files of the page by a name in a list: no path
comes from a request.
"""

import asyncio
import json
import math
import time
from contextlib import asynccontextmanager
from html import escape
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from nexus.app.annotate.classes import COLORS, read_labels
from nexus.app.annotate.encoder import Encoder
from nexus.app.annotate.export import FORMATS, export
from nexus.app.annotate.follow import Follower, follow
from nexus.app.annotate.guard import Guard, TooLarge
from nexus.app.annotate.limits import ASKED, FOLLOWED, LARGE_BODY, MARKS, OBJECTS, POINTS
from nexus.app.annotate.marks import read_clicks, read_marks, runs_of
from nexus.app.annotate.pictures import picture_of
from nexus.app.annotate.project import NEW, Conflict, Project
from nexus.core.documents import Limits, parse_json
from nexus.core.text import as_message
from nexus.data.dataset import DataError
from nexus.data.images import load_image
from nexus.tasks.clicks import Clicker

PAGE = {
    "style.css": "text/css",
    **{
        f"{name}.js": "text/javascript"
        for name in ("main", "api", "canvas", "document", "keys", "panels", "runs", "saver", "tools")
    },
    "icon.svg": "image/svg+xml",
}
"""Files of the page beside `index.html`, and their kinds."""
PATIENCE = 0.2
"""Seconds between two looks whether somebody who waits for an image is still there."""


class Json(Response):
    """Plain values as JSON; what is no text in a file's name goes as an escape."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode()


class Server:
    """Answers the page of one project."""

    def __init__(
        self, project: Project, clicker: Clicker, model: str, token: str, follower: Follower | None = None
    ) -> None:
        """Starts to encode the first images.

        Args:
            project: What is annotated.
            clicker: The model.
            model: What the page calls it.
            token: Who asks must know it.
            follower: Follows objects from image to image; None where the model cannot.
        """
        self.project, self.model, self.token, self.follower = project, model, token, follower
        self._following = asyncio.Lock()
        self.encoder = Encoder(clicker, lambda number: load_image(project.path(number)), len(project.names))

    def app(self, port: int) -> Guard:
        """Returns the application that listens on a port."""
        routes = [
            Route("/", self._index),
            Route("/page/{name}", _page_file),
            Route("/api/project", self._project),
            Route("/api/classes", self._classes, methods=["PUT"]),
            Route("/api/export", self._export, methods=["POST"]),
            Route("/api/images/{number:int}", self._marks),
            Route("/api/images/{number:int}", self._save, methods=["PUT"]),
            Route("/api/images/{number:int}/picture", self._picture),
            Route("/api/images/{number:int}/ready", self._ready),
            Route("/api/images/{number:int}/mask", self._mask, methods=["POST"]),
            Route("/api/images/{number:int}/follow", self._follow, methods=["POST"]),
        ]
        handlers: Any = {ValueError: _refused, Exception: _failed, TooLarge: _too_large, HTTPException: _no_such_thing}
        application = Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)
        return Guard(application, port=port, token=self.token, open_paths=[f"/page/{name}" for name in PAGE])

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> Any:
        yield
        await run_in_threadpool(self.encoder.close)

    async def _index(self, _: Request) -> Response:
        text = _file("index.html").decode()
        return HTMLResponse(text.replace("{{token}}", escape(self.token)).replace("{{title}}", escape(self._title())))

    def _title(self) -> str:
        return self.project.root.resolve().name.encode(errors="replace").decode()

    async def _project(self, _: Request) -> Response:
        project = self.project
        return Json(
            {
                "title": self._title(),
                "model": self.model,
                "output": str(project.output),
                "names": project.names,
                "follows": self.follower is not None,
                "status": self._status(),
                "classes": [label._asdict() for label in project.labels],
                "colors": COLORS,
                "used": project.used(),
                "formats": {name: form.says for name, form in FORMATS.items()},
                "limits": {"objects": OBJECTS, "points": POINTS},
            }
        )

    def _status(self) -> dict[int, list[int | bool]]:
        return {number: [status.objects.total(), status.done] for number, status in self.project.status.items()}

    async def _classes(self, request: Request) -> Response:
        labels = read_labels(await _body(request, ASKED), "the request")
        await run_in_threadpool(self.project.set_labels, labels)
        return Json([label._asdict() for label in self.project.labels])

    async def _export(self, request: Request) -> Response:
        content = await _body(request, ASKED)
        name = content.get("format") if isinstance(content, dict) else None
        return Json((await run_in_threadpool(export, self.project, str(name)))._asdict())

    async def _marks(self, request: Request) -> Response:
        marks = await run_in_threadpool(self.project.marks, self._number(request))
        return Json(marks.to_json())

    async def _save(self, request: Request) -> Response:
        number = self._number(request)
        marks = read_marks(await _body(request, MARKS), self.project.names[number])
        saved = await run_in_threadpool(self.project.save, number, marks)
        status = self.project.status.get(number, NEW)
        return Json({"revision": saved.revision, "objects": status.objects.total(), "used": self.project.used()})

    async def _picture(self, request: Request) -> Response:
        data, kind = await run_in_threadpool(picture_of, self.project.path(self._number(request)))
        return Response(data, media_type=kind)

    async def _ready(self, request: Request) -> Response:
        start = time.perf_counter()
        encoded = await self._encoded(request)
        return Json({"ready": encoded is not None, "seconds": time.perf_counter() - start})

    async def _encoded(self, request: Request) -> Any:
        """Waits until an image is encoded; None if nobody waits for it any more."""
        number = self._number(request)
        waiting = asyncio.wrap_future(self.encoder.look_at(number))
        while not waiting.done():
            await asyncio.wait([asyncio.shield(waiting)], timeout=PATIENCE)
            if not waiting.done() and await request.is_disconnected():
                self.encoder.forget(number)
                return None
        return waiting.result()

    async def _mask(self, request: Request) -> Response:
        content = await _body(request, ASKED)
        if not isinstance(content, dict):
            raise DataError("the request is not a mapping of points, box and choice.")
        clicks, choice = read_clicks(content, "the request")
        encoded = await self._encoded(request)
        if encoded is None:
            return Json({}, 499)
        start = time.perf_counter()
        said = await run_in_threadpool(self.encoder.ask, self._number(request), encoded, clicks, choice)
        counts = await run_in_threadpool(runs_of, said.mask)
        seconds = time.perf_counter() - start
        score = said.score if math.isfinite(said.score) else 0.0
        return Json({"counts": counts, "score": score, "guesses": said.guesses, "seconds": seconds})

    async def _follow(self, request: Request) -> Response:
        content, number = await _body(request, ASKED), self._number(request)
        if not isinstance(content, dict) or content.keys() != {"object", "images"}:
            raise DataError("the request is not a mapping of object and images.")
        place, count = (content[key] for key in ("object", "images"))
        if any(type(value) is not int for value in (place, count)) or not 1 <= count <= FOLLOWED:
            raise DataError(f"object and images are whole numbers, images 1 to {FOLLOWED}.")
        if self.follower is None:
            raise DataError(f"{self.model} follows no objects; a SAM 2 does (--model sam2.1_hiera_tiny).")
        async with self._following:
            done = await run_in_threadpool(follow, self.project, self.follower, number, place, count)
        return Json({"images": done, "status": self._status(), "used": self.project.used()})

    def _number(self, request: Request) -> int:
        number = request.path_params["number"]
        if number >= len(self.project.names):
            raise HTTPException(404, f"There is no image {number}; there are {len(self.project.names)}, from 0.")
        return number


async def _page_file(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in PAGE:
        raise HTTPException(404, "There is no such file of the page.")
    return Response(_file(name), media_type=PAGE[name])


def _file(name: str) -> bytes:
    return files("nexus.app.annotate").joinpath("page", name).read_bytes()


async def _body(request: Request, limits: Limits) -> Any:
    """The plain values of a request's JSON, within limits."""
    return parse_json(_checked(await request.body(), limits), "the request", limits)


def _checked(data: bytes, limits: Limits) -> bytes:
    if len(data) > limits.size:
        raise HTTPException(413, f"The request has {len(data):,} bytes; at most {limits.size:,} are read.")
    return data


async def _refused(_: Request, error: Exception) -> Response:
    return Json({"error": str(error)}, 409 if isinstance(error, Conflict) else 400)


async def _failed(_: Request, error: Exception) -> Response:
    """What nobody foresaw, such as a full disk; its trace stands in the log of the server."""
    return Json({"error": f"{type(error).__name__}: {as_message(str(error))}"}, 500)


async def _too_large(_: Request, __: Exception) -> Response:
    return Json({"error": f"A request has at most {LARGE_BODY:,} bytes."}, 413)


async def _no_such_thing(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Json({"error": error.detail}, error.status_code)
