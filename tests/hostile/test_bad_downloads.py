"""A mirror that lies: what it serves is not kept unless it has the published hash."""

import gzip
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from commands import contents
from torchvision.datasets import MNIST

from jensen.base.errors import InputError
from jensen.data import idx

IMAGES = gzip.compress(b"\0\0\x08\x03\0\0\0\x02\0\0\0\x1c\0\0\0\x1c" + bytes(2 * 28 * 28), mtime=0)
LABELS = gzip.compress(b"\0\0\x08\x01\0\0\0\x02" + bytes(2), mtime=0)
NAMES = {"t10k-images-idx3-ubyte.gz": IMAGES, "t10k-labels-idx1-ubyte.gz": LABELS}


@pytest.fixture
def mirror(monkeypatch):
    """`mirror[name]` is served under that name; torchvision's table holds the hashes of `NAMES`."""
    files = dict(NAMES)

    class Serve(BaseHTTPRequestHandler):
        def do_GET(self):
            content = files[self.path.rpartition("/")[2]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(NAMES[self.path.rpartition("/")[2]])))
            self.end_headers()
            self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setattr(
            MNIST,
            "resources",
            [(name, hashlib.md5(content).hexdigest()) for name, content in NAMES.items()],
        )
        yield files
        server.shutdown()


def test_what_has_the_hash_is_kept(tmp_path, mirror):
    assert len(idx.mnist(tmp_path, split="test", download=True)) == 2


@pytest.mark.parametrize("how", ["another file of the same size", "cut short", "nothing"])
def test_what_has_not_is_refused(tmp_path, mirror, how):
    name = "t10k-images-idx3-ubyte.gz"
    mirror[name] = {
        "another file of the same size": IMAGES[:-20] + bytes(20),
        "cut short": IMAGES[:-1],
        "nothing": b"",
    }[how]
    with pytest.raises(
        InputError, match=f"{name} could not be downloaded .*: expected a mirror that answers"
    ):
        idx.mnist(tmp_path, split="test", download=True)
    assert set(contents(tmp_path)) == {"MNIST", "MNIST/raw"}


def test_a_file_that_was_swapped_later_is_refused(tmp_path, mirror):
    idx.mnist(tmp_path, split="test", download=True)
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    whole = gzip.decompress(IMAGES)
    path.write_bytes(gzip.compress(whole[:-20] + bytes(20)))
    with pytest.raises(InputError, match=r"has the md5 .*, expected .*: it is damaged"):
        idx.mnist(tmp_path, split="test", download=True)
    path.write_bytes(IMAGES[:-20] + bytes(20))
    with pytest.raises(InputError, match=r"cannot be read .*: expected a whole idx file"):
        idx.mnist(tmp_path, split="test", download=True)
