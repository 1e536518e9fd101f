"""The far end of the outage table: takes what any sender posts, and remembers which readings were in it."""

from __future__ import annotations

import gzip
import re
import socketserver
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import zstandard

__all__ = ["Receiver"]

_READING = re.compile(rb"n=(\d{6});")
_OPENERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "zstd": lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body),
}


class Receiver:
    """A server on a port of its own, which it holds from the beginning, and which refuses all until ``start``.

    Args:
        lines: takes a stream of lines over TCP; otherwise HTTP.

    Attributes:
        readings: how often each came.
    """

    def __init__(self, *, lines: bool = False) -> None:
        self.readings: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._started = False
        self._server = _LineServer(self) if lines else _WebServer(self)
        self._server.server_bind()

    @property
    def port(self) -> int:
        """Where, on this machine."""
        port: int = self._server.socket.getsockname()[1]
        return port

    def take(self, body: bytes) -> None:
        """Note the readings of a request."""
        found = [int(number) for number in _READING.findall(body)]
        with self._lock:
            self.readings.update(found)

    def start(self) -> None:
        """The outage is over."""
        self._started = True
        self._server.server_activate()
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """End it."""
        if self._started:
            self._server.shutdown()
        self._server.server_close()


class _WebServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        super().__init__(("127.0.0.1", 0), _WebRequest, bind_and_activate=False)


class _WebRequest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _WebServer

    def do_POST(self) -> None:
        body = self._body()
        opener = _OPENERS.get(self.headers.get("Content-Encoding", ""))
        self.server.receiver.take(body if opener is None else opener(body))
        answer = b"" if self.path.startswith(("/api/v2/write", "/v1/")) else b'{"status": 1, "success": true}'
        self.send_response(204 if self.path.startswith("/api/v2/write") else 200)
        if self.path.startswith("/v1/"):
            self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, *_: Any) -> None:
        """Nothing: the table is what is shown."""


class _LineServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        super().__init__(("127.0.0.1", 0), _LineStream, bind_and_activate=False)


class _LineStream(socketserver.StreamRequestHandler):
    server: _LineServer

    def handle(self) -> None:
        for line in self.rfile:
            self.server.receiver.take(line)
