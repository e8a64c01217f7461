"""A server on this machine that cuts, changes and lies, and the archives that it offers."""

import io
import re
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image


def picture(n: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(n).integers(0, 255, (32, 64, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


PARTS = ("trainA", "trainB", "testA", "testB")
CYCLEGAN = {f"horse2zebra/{part}/{i}.png": picture(i) for part in PARTS for i in (1, 2)}
PIX2PIX = {f"maps/{part}/{i}.png": picture(i) for part in ("train", "val") for i in range(4)}


def zipped(files: dict[str, bytes], mode: int = stat.S_IFREG | 0o644) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return file.getvalue()


def taped(files: dict[str, bytes], **fields) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


class Server(ThreadingHTTPServer):
    content = b""
    changed: str | None = "Mon, 01 Jan 2024 00:00:00 GMT"  # None for a server that does not say
    cut_after: int | None = None  # bytes of a response
    ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[int] = []


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self):
        server, start = self.server, 0
        wanted = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
        server.asked.append(int(wanted[1]) if wanted else 0)
        if self.path == "/missing.zip":
            return self.send_error(404)
        if wanted and server.ranges and self.headers.get("If-Range") == server.changed:
            start = int(wanted[1])
            if start >= len(server.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.content)}")
                return self.end_headers()
            self.send_response(206)
        else:
            self.send_response(200)
        body = server.content[start:]
        if server.changed:
            self.send_header("Last-Modified", server.changed)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut_after])

    def log_message(self, format, *arguments):
        pass


@contextmanager
def serving() -> Iterator[Server]:
    """A server that answers until the block ends."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
