"""Only the page itself may ask: not another site, not another name, not another user of the machine, and not too much."""

import pytest

from nexus.app.annotate.limits import LARGE_BODY, SMALL_BODY
from tests.nexus.app.conftest import PORT, TOKEN

PATHS = ("/api/project", "/api/images/0", "/api/images/0/picture", "/api/images/0/ready")


def test_the_page_is_shown_to_who_knows_the_token(serving):
    stranger = serving(token=None)
    assert stranger.get("/").status_code == 403
    assert "Open the address that `nexus annotate` printed" in stranger.get("/?token=guess").text
    page = stranger.get(f"/?token={TOKEN}")
    assert page.status_code == 200
    assert f'<meta name="token" content="{TOKEN}">' in page.text
    cookie = page.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    assert stranger.get("/").status_code == 200, "the cookie brings it back"
    assert stranger.get("/api/project").status_code == 403, "but nothing else"


def test_answers_forbid_everything_that_is_not_here(client):
    for path in ("/", "/page/main.js", "/api/project", "/api/images/99"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing_is_answered(serving, path):
    assert serving().get(path).status_code == 200
    assert serving(token=None).get(path).status_code == 403
    assert serving(token=TOKEN[:-1]).get(path).status_code == 403
    assert serving(token=None).get(f"{path}?token={TOKEN}").status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", f"0.0.0.0:{PORT}"]
)
def test_another_name_for_this_machine_is_refused(serving, host):
    for path in ("/", "/page/main.js", *PATHS):
        assert serving(Host=host).get(path).status_code == 421


def test_the_own_names_are_answered(serving):
    for host in (f"127.0.0.1:{PORT}", f"localhost:{PORT}"):
        assert serving(Host=host, Origin=f"http://{host}").get("/api/project").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"https://127.0.0.1:{PORT}"},
        {"Origin": f"http://127.0.0.1:{PORT + 1}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_site_may_not_ask(serving, headers):
    client = serving(**headers)
    for path in ("/", "/page/main.js", *PATHS):
        assert client.get(path).status_code == 403
    assert client.put("/api/classes", json=[]).status_code == 403
    assert client.post("/api/images/0/mask", json={"points": [[1, 1, 1]]}).status_code == 403


def test_too_much_is_refused_by_its_length_and_as_it_comes(client):
    for path in ("/api/images/0", "/api/classes"):
        assert client.put(path, content=b" " * (LARGE_BODY + 1)).status_code == 413

    def pieces():
        for _ in range(LARGE_BODY // (1 << 20) + 2):
            yield b" " * (1 << 20)

    answer = client.put("/api/images/0", content=pieces())
    assert answer.status_code == 413
    assert f"at most {LARGE_BODY:,} bytes" in answer.json()["error"]
    answer = client.post("/api/images/0/mask", content=b" " * (SMALL_BODY + 1))
    assert answer.status_code == 413
    assert f"at most {SMALL_BODY:,} are read" in answer.json()["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/page/../server.py",
        "/page/%2e%2e/server.py",
        "/page/..%2fserver.py",
        "/page/%2fetc%2fpasswd",
        "/page//etc/passwd",
        "/page/index.html",
        "/api/images/../../../etc/passwd/picture",
        "/api/images/..%2f..%2fetc%2fpasswd",
        "/api/images/-1",
        "/api/images/6",
        "/api/images/0.png/picture",
        "/etc/passwd",
    ],
)
def test_no_path_leads_to_a_file(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_other_ways_of_asking_are_refused(client, serving):
    assert client.delete("/api/images/0").status_code == 405
    assert client.post("/api/images/0").status_code == 405
    assert serving(token=None).post(f"/?token={TOKEN}").status_code == 403
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/api/project"):
        pass
    assert closed.value.code == 1008
