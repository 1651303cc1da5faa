"""Downloads from a server that cuts, lies, redirects and refuses."""

import hashlib
import http.server
import multiprocessing
import socket
import threading
import time
from collections import Counter

import pytest

from nexus.core import download as module
from nexus.core.download import check_sha256, download, reachable
from nexus.core.files import WeightsError
from nexus.data.images import ImageError
from nexus.data.remote import fetch_image

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


PAUSE = threading.Event()
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SLOWLY = {
    "slowstatus": (b"HTTP/1.1 200 ", b"O"),
    "slowheader": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "slowheaders": (b"HTTP/1.1 200 OK\r\n", b"X: x\r\n"),
    "slowchunk": (_CHUNKED, b"0"),
    "slowchunks": (_CHUNKED, b"1\r\nx\r\n"),
    "slowtrailer": (_CHUNKED + b"0\r\nX: ", b"x"),
}
"""What is sent at once, and what then follows bit by bit."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; the first part of the path says how badly."""

    asked: Counter = Counter()
    ranges: list = []

    def do_GET(self):
        how = self.path.split("/")[1]
        type(self).asked[how] += 1
        first = type(self).asked[how] == 1
        type(self).ranges.append(self.headers.get("Range"))
        if how == "ftp":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/w.bin")
            self.end_headers()
            return
        if how in ("badlength", "hugelength", "drips"):
            self.send_response(200)
            if how != "drips":
                self.send_header("Content-Length", "many" if how == "badlength" else str(1 << 50))
            self.end_headers()
            try:
                for _ in range(1000 if how == "drips" else 1):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    PAUSE.wait(0.01)
            except OSError:
                pass  # the other side has left, as it should
            return
        if how in SLOWLY:
            head, slow = SLOWLY[how]
            self.wfile.write(head)
            try:
                for _ in range(1000):
                    self.wfile.write(slow)
                    self.wfile.flush()
                    PAUSE.wait(0.01)
            except OSError:
                pass
            return
        if how == "moved":
            self.send_response(302)
            self.send_header("Location", "/good/w.bin")
            self.end_headers()
            return
        if how.isdigit() or (how == "busy" and first):
            self.send_error(int(how) if how.isdigit() else 503)
            return
        start = 0
        wanted = self.headers.get("Range")
        if wanted and how != "norange":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(CONTENT):
                self.send_error(416)
                return
        body = CONTENT[start:]
        if how == "flipped":
            body = b"X" + body[1:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = how in ("cut", "norange") and first
        self.wfile.write(body[: len(body) // 3] if cut or how == "alwayscut" else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("NEXUS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NEXUS_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    Handler.asked, Handler.ranges = Counter(), []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_fetches_once_and_keeps(server, tmp_path):
    path = download(f"{server}/good/w.bin", sha256=SHA256[:8])
    assert path == tmp_path / "home" / "weights" / "w.bin"
    assert path.read_bytes() == CONTENT
    assert download(f"{server}/good/w.bin", sha256=SHA256) == path
    assert Handler.asked["good"] == 1


@pytest.mark.parametrize("how", ["cut", "norange", "busy", "moved"])
def test_survives(server, how):
    assert download(f"{server}/{how}/w.bin", sha256=SHA256).read_bytes() == CONTENT
    if how == "cut":
        assert Handler.ranges[-1] == f"bytes={len(CONTENT) // 3}-"


@pytest.mark.parametrize("have", [1, 1000, len(CONTENT) - 1, len(CONTENT), len(CONTENT) + 5])
def test_goes_on_from_an_earlier_run(server, tmp_path, have):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ".w.bin.incomplete").write_bytes((CONTENT + b"extra")[:have])
    assert download(f"{server}/good/w.bin", sha256=SHA256, folder=folder).read_bytes() == CONTENT
    assert Handler.ranges[0] == f"bytes={have}-"


def test_starts_again_when_the_earlier_part_was_of_another_file(server, tmp_path):
    (tmp_path / ".w.bin.incomplete").write_bytes(b"other")
    assert download(f"{server}/good/w.bin", sha256=SHA256, folder=tmp_path).read_bytes() == CONTENT


def test_wrong_content_is_not_kept(server, tmp_path):
    with pytest.raises(
        WeightsError, match=rf"/flipped/w.bin gave a file with the sha256 \w+, but it should begin with {SHA256[:8]}"
    ):
        download(f"{server}/flipped/w.bin", sha256=SHA256[:8], folder=tmp_path)
    assert visible(tmp_path) == []
    assert not (tmp_path / ".w.bin.incomplete").exists()


@pytest.mark.parametrize(
    ("how", "message", "times"),
    [("404", "HTTP 404 Not Found", 1), ("503", "HTTP 503", 5), ("alwayscut", "ended before the file did", 5)],
)
def test_gives_up_with_one_clear_error(server, tmp_path, how, message, times):
    with pytest.raises(WeightsError, match=message) as caught:
        download(f"{server}/{how}/w.bin", folder=tmp_path)
    assert str(tmp_path / "w.bin") in str(caught.value)
    assert Handler.asked[how] == times
    assert visible(tmp_path) == []


@pytest.mark.parametrize("variable", ["NEXUS_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_says_what_from_where_and_whereto(server, tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(WeightsError, match=r"w\.bin is not in the cache and the network is switched off") as caught:
        download(f"{server}/good/w.bin")
    target = tmp_path / "home" / "weights" / "w.bin"
    assert f"Fetch {server}/good/w.bin on another machine and put it at {target}" in str(caught.value)
    assert not Handler.asked
    target.parent.mkdir(parents=True)
    target.write_bytes(CONTENT)
    assert download(f"{server}/good/w.bin", sha256=SHA256) == target


def test_a_file_put_there_by_hand_is_checked(server, tmp_path):
    (tmp_path / "w.bin").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"w.bin has the sha256 .* is damaged or is another one"):
        download(f"{server}/good/w.bin", sha256=SHA256, folder=tmp_path)
    assert (tmp_path / "w.bin").read_bytes() == b"damaged"


def test_a_port_without_server(monkeypatch, tmp_path):
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    monkeypatch.delenv("NEXUS_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(WeightsError, match=r"http://127\.0\.0\.1:9/w\.bin could not be fetched"):
        download("http://127.0.0.1:9/w.bin", folder=tmp_path)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "http://host/", "http://host/..", "ftp://host/w.bin", "http://h/a%2Fb"]
)
def test_odd_addresses(url):
    with pytest.raises(WeightsError, match=r"is not the http\(s\) address of a file"):
        download(url)


def _fetch(url, folder):
    download(url, sha256=SHA256, folder=folder)


def test_eight_processes_share_one_download(server, tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_fetch, args=(f"{server}/good/w.bin", tmp_path)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 8
    assert Handler.asked["good"] == 1
    check_sha256(tmp_path / "w.bin", SHA256)


def test_without_a_network_nobody_waits(monkeypatch, tmp_path):
    def no_such_name(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it tried again"))
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with pytest.raises(WeightsError, match=r"Name or service not known.*put the file at .*weights.pth yourself"):
        download("https://files.example/weights.pth", folder=tmp_path)
    assert not reachable("https://files.example")
    assert list(tmp_path.glob("weights*")) == []


def test_a_server_that_answers_is_reachable(server):
    assert reachable(server)


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("ftp", "leads to 'ftp://127.0.0.1/w.bin', which is neither http nor https"),
        ("badlength", "its Content-Length is 'many'"),
        ("hugelength", "its Content-Length is '1125899906842624'; at most"),
        ("drips", "sends fewer than 1,024 bytes a second"),
        *((how, "sends fewer than 1,024 bytes a second") for how in SLOWLY),
    ],
)
def test_servers_that_never_end_or_lead_elsewhere_are_left_at_once(server, monkeypatch, how, problem):
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.2)
    for asks, error in ((download, WeightsError), (fetch_image, ImageError)):
        Handler.asked.clear()
        start = time.monotonic()
        with pytest.raises(error, match=problem) as refused:
            asks(f"{server}/{how}/w.bin")
        assert time.monotonic() - start < 5
        assert Handler.asked[how] == 1
        assert "\n" not in str(refused.value)


def test_an_image_comes_whole_and_no_larger_than_images_are(server, monkeypatch):
    assert fetch_image(f"{server}/good/w.bin") == CONTENT
    assert fetch_image(f"{server}/moved/w.bin") == CONTENT
    with pytest.raises(ImageError, match=r"the connection ended before .*Download it yourself"):
        fetch_image(f"{server}/alwayscut/w.bin")
    with pytest.raises(ImageError, match="http://a b/c could not be fetched"):
        fetch_image("http://a b/c")
    monkeypatch.setattr("nexus.data.remote.MAX_FILE_BYTES", 20)
    with pytest.raises(ImageError, match="at most 20 bytes"):
        fetch_image(f"{server}/good/w.bin")
    with pytest.raises(ImageError, match="it sends more than 20 bytes"):
        fetch_image(f"{server}/drips/w.bin")
    monkeypatch.setattr(module, "UNKEPT_SECONDS", 0.0)
    with pytest.raises(ImageError, match="it takes too long"):
        fetch_image(f"{server}/slowchunks/w.bin")


def test_a_download_has_an_end_and_a_largest_size(server, monkeypatch):
    monkeypatch.setattr(module, "TOTAL_SECONDS", 0.1)
    with pytest.raises(WeightsError, match="it takes too long"):
        download(f"{server}/drips/w.bin")
    monkeypatch.setattr(module, "TOTAL_SECONDS", 60.0)
    monkeypatch.setattr(module, "LARGEST_FILE", 20)
    with pytest.raises(WeightsError, match="it sends more than 20 bytes"):
        download(f"{server}/drips/w.bin")
