"""Who may ask: the page itself, from this machine, and nobody else.

Another site that is open in the same browser can send requests here, or have its own name lead here. So the Host must
be this server's, an Origin this page's, and whoever asks must know the token of the address that was printed. Other
users of the machine can connect, too; they do not know it either.
"""

import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nexus.app.annotate.limits import LARGE_BODY

HEADER = "x-nexus-token"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class TooLarge(Exception):
    """The body of a request is larger than anything that the page sends; the application answers with 413."""


class Guard:
    """Lets requests pass that come from the page of this server, and bounds their bodies."""

    def __init__(self, app: ASGIApp, *, port: int, token: str, open_paths: Iterable[str] = ()) -> None:
        """Guards an application.

        Args:
            app: What answers.
            port: Of this server.
            token: What the address that was printed ends with.
            open_paths: What may be asked without the token: files of the page, which hold nothing of the user's.
        """
        self._app, self._token, self._open = app, token, frozenset(open_paths)
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._cookie = f"nexus_annotate_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # nothing here speaks it
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            status, message = refusal
            await PlainTextResponse(f"{message}\n", status, dict(HEADERS))(scope, receive, send)
            return
        await self._app(scope, _bounded(receive), self._answering(scope, send))

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the reason why a request is refused; None where it may pass."""
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        if headers.get("host") not in self._hosts:
            return 421, "This server answers to 127.0.0.1 and localhost alone."
        origin = headers.get("origin")
        if origin is not None and origin.removeprefix("http://") not in self._hosts:
            return 403, "Another site may not ask this server."
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return 403, "Another site may not ask this server."
        if len(length := headers.get("content-length", "0")) > 12 or int(length) > LARGE_BODY:
            return 413, f"A request has at most {LARGE_BODY:,} bytes."
        if scope["path"] in self._open or self._knows_token(scope, headers):
            return None
        return 403, "Open the address that `nexus annotate` printed; the part after token= belongs to it."

    def _knows_token(self, scope: Scope, headers: dict[str, str]) -> bool:
        """Whether a request has the token: in its header, or, to see the page itself, in the address or its cookie."""
        if _same(headers.get(HEADER, ""), self._token):
            return True
        if scope["path"] != "/" or scope["method"] != "GET":
            return False
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
        return _same(asked[-1], self._token) or _same(_cookie_of(headers, self._cookie), self._token)

    def _answering(self, scope: Scope, send: Send) -> Send:
        """Sends what is answered with the headers that keep a browser from doing more; the page also its cookie."""
        added = [(key.encode(), value.encode()) for key, value in HEADERS.items()]
        if scope["path"] == "/":
            cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
            added.append((b"set-cookie", cookie.encode()))

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        return sending


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())


def _cookie_of(headers: dict[str, str], name: str) -> str:
    try:
        found: Any = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _bounded(receive: Receive) -> Receive:
    """Receives a body of at most `LARGE_BODY` bytes, whatever its length was said to be."""
    received = 0

    async def receiving() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > LARGE_BODY:
            raise TooLarge
        return message

    return receiving
