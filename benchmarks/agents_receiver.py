"""The far end of the comparison with the agents: an HTTP server in a process of its own that knows what came.

``python -m benchmarks.agents_receiver SOCKET WATCHED [check]`` serves on a listening socket that it inherits, keeps
how many different records came (and when the first and the last) in a small file that others map, and answers each
line on stdin with one line of JSON. It takes any bulk: lines, Elasticsearch's, OTLP.
"""

from __future__ import annotations

import json
import mmap
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.agents_records import record, texts

__all__ = ["Receiver"]

_STATE = struct.Struct("<Qdd")
_SEQ = re.compile(rb'"seq":(\d+),')
_ROOT = Path(__file__).parent.parent
_MOST = 4_000_000
_TELL = 20.0


class Receiver:
    """The process, seen from the one that measures. Its port refuses connections until ``start``.

    Args:
        check: compare each record with what was sent.
    """

    def __init__(self, *, check: bool = False) -> None:
        self._check = check
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._watched = tempfile.NamedTemporaryFile(prefix="receiver-")  # noqa: SIM115 - until close
        self._watched.write(bytes(_STATE.size))
        self._watched.flush()
        self._map = mmap.mmap(self._watched.fileno(), _STATE.size)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Receiver:  # noqa: PYI034 - typing has no Self in 3.10, and nothing is derived from it
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.stdin.close()  # type: ignore[union-attr] # it is a pipe; its end is the end of the process
            self._process.wait(_TELL)
            self._process.stdout.close()  # type: ignore[union-attr] # as above
        self._map.close()
        self._watched.close()
        self._socket.close()

    @property
    def port(self) -> int:
        """Where, on this machine."""
        return int(self._socket.getsockname()[1])

    @property
    def got(self) -> int:
        """How many different records came."""
        return int(_STATE.unpack(self._map)[0])

    @property
    def span(self) -> float:
        """Seconds from the first request to the last new record."""
        _, first, last = _STATE.unpack(self._map)
        return float(last - first)

    def start(self) -> None:
        """The target is there from now on."""
        command = [sys.executable, "-m", "benchmarks.agents_receiver", str(self._socket.fileno()), self._watched.name]
        self._process = subprocess.Popen(
            [*command, *(["check"] if self._check else [])],
            cwd=_ROOT, pass_fds=[self._socket.fileno()], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.report(0)

    def report(self, count: int) -> dict[str, Any]:
        """``missing`` (numbers below ``count``), ``doubled``, ``altered`` (records that nobody sent)."""
        if self._process is None:
            raise RuntimeError("start it first")
        print(count, file=self._process.stdin, flush=True)
        found: dict[str, Any] = json.loads(self._process.stdout.readline())  # type: ignore[union-attr] # a pipe
        return found

    def wait(self, count: int, patience: float, alive: Callable[[], object] = lambda: None) -> int:
        """Until it has so many, or nothing new came for ``patience`` seconds; how many it has."""
        had, since = self.got, time.monotonic()
        while had < count and time.monotonic() - since < patience:
            time.sleep(0.02)
            alive()
            if (now := self.got) != had:
                had, since = now, time.monotonic()
        return had


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, number: int, watched: str, check: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Request, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=number)
        self.server_address = self.socket.getsockname()
        self.server_activate()
        with Path(watched).open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _STATE.size)
        self._check = check
        self._seen = bytearray(_MOST)
        self._got = self._doubled = self._altered = 0
        self._first = 0.0
        self._lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that was killed has reset its connection; anything else is told."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def take(self, kind: str, body: bytes) -> None:
        """Note what is in a request."""
        with self._lock:
            self._first = self._first or time.monotonic()
            if self._check:
                numbers = [number for text in texts(kind, body) if (number := self._genuine(text)) >= 0]
            else:
                numbers = list(map(int, _SEQ.findall(body)))
            had = self._got
            for number in numbers:
                if self._seen[number]:
                    self._doubled += 1
                else:
                    self._seen[number] = 1
                    self._got += 1
            if self._got != had:
                self._map[:] = _STATE.pack(self._got, self._first, time.monotonic())

    def report(self, count: int) -> dict[str, Any]:
        """As `Receiver.report` has it."""
        with self._lock:
            missing = [number for number in range(count) if not self._seen[number]]
            return {"missing": missing, "doubled": self._doubled, "altered": self._altered}

    def _genuine(self, text: bytes) -> int:
        found = _SEQ.search(text)
        number = int(found[1]) if found else _MOST
        if number < _MOST and text == record(number):
            return number
        self._altered += 1
        return -1


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        kind = self.headers.get("Content-Type", "")
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        self.server.take(kind, self._body())
        if "protobuf" in kind:
            self._answer(b"", kind)
        else:
            self._answer(b'{"took":1,"errors":false,"items":[]}', "application/json")

    def do_GET(self) -> None:
        """Elasticsearch's health, which rsyslog asks for."""
        self._answer(b'{"status":"green"}', "application/json")

    do_HEAD = do_GET  # noqa: N815 - the name is http.server's

    def _answer(self, content: bytes, kind: str) -> None:
        self.send_response_only(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

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
        """Nothing: what came is what is told."""


if __name__ == "__main__":
    server = _Server(int(sys.argv[1]), sys.argv[2], "check" in sys.argv[3:])
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    for line in sys.stdin:
        print(json.dumps(server.report(int(line))), flush=True)
