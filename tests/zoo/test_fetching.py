"""Weights that are fetched from a URL."""

import hashlib
import http.server
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from zoo_entries import IMAGES, PAGE, WEIGHTS, refused, relabel, truncate

from keras_robust import zoo
from keras_robust.errors import InputError


@pytest.fixture
def remote(entry, tmp_path):
    """Gives the entry a URL in place of its weights file; returns the file, elsewhere now."""

    def move(url=None) -> Path:
        moved = tmp_path / "remote.weights.h5"
        shutil.move(entry / WEIGHTS, moved)
        relabel(entry, url=url or moved.as_uri())
        return moved

    return move


@pytest.fixture
def server():
    """Serves `pages` (path: status, chunks, announced length) on the loopback, and counts requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.requests += 1
            status, content, length = server.pages[self.path]
            self.send_response(status)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            try:
                for chunk in content:
                    self.wfile.write(chunk)
            except ConnectionError:
                server.cut = True

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.pages, server.requests, server.cut = {}, 0, False
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def cached(home) -> list[Path]:
    return sorted(path for path in home.glob("cache/**/*") if path.is_file())


def test_fetch_from_a_file_then_offline(remote, classifier, home):
    with pytest.raises(InputError, match="were not fetched yet: krobust zoo pull mine"):
        moved = remote()
        zoo.verify("mine")
    np.testing.assert_array_equal(zoo.load("mine")(IMAGES), classifier(IMAGES))
    moved.unlink()
    assert [zoo.pull("mine")] == [zoo.verify("mine")] == cached(home)
    np.testing.assert_array_equal(zoo.load("mine")(IMAGES), classifier(IMAGES))


def test_fetch_over_http_once(remote, server, home):
    content = remote(f"{server.url}/weights").read_bytes()
    server.pages["/weights"] = (200, [content], len(content))
    seen = []
    path = zoo.pull("mine", progress=lambda received, total: seen.append((received, total)))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == zoo.card("mine").sha256
    assert seen[-1] == (len(content), len(content))
    zoo.load("mine")
    assert server.requests == 1
    truncate(path)
    assert zoo.pull("mine") == path and server.requests == 2, "a damaged copy is fetched again"
    assert zoo.verify("mine") == path


def wrong(content: bytes):
    """Answers of a server that are not the file: (status, chunks, announced length), message."""
    return {
        "missing": ((404, [PAGE], len(PAGE)), "Cannot fetch http.*404"),
        "web page": ((200, [PAGE], len(PAGE)), "http.*is not an HDF5 file: it is a web page"),
        "altered": ((200, [content[:-1], b"x"], len(content)), "http.*was altered"),
        "cut off": ((200, [content[:5000]], len(content)), "http.*is truncated"),
        "endless": ((200, (bytes(1 << 16) for _ in range(10**6)), None), "http.*is larger than its card"),
    }


@pytest.mark.parametrize("answer", wrong(b"."))
@pytest.mark.parametrize("look", [zoo.pull, zoo.load])
def test_what_is_not_the_file_is_not_kept(remote, server, home, look, answer):
    content = remote(f"{server.url}/weights").read_bytes()
    server.pages["/weights"], message = wrong(content)[answer]
    with pytest.raises(InputError, match=message):
        look("mine")
    assert cached(home) == []


def test_an_unreachable_host(remote, home):
    remote("http://127.0.0.1:1/weights")
    refused("Cannot fetch http://127.0.0.1:1/weights")
    assert cached(home) == []


def test_a_url_that_is_none(remote):
    remote("http://[")
    refused("Cannot fetch http://")


def test_an_interrupted_fetch_keeps_nothing(remote, home):
    remote()

    def interrupt(received, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zoo.pull("mine", progress=interrupt)
    assert cached(home) == []
    zoo.pull("mine")
    assert len(cached(home)) == 1
