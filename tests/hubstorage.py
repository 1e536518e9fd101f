"""What Scrapy Cloud's storage does with collections, over HTTP on loopback, in memory."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["KEY", "Storage", "storage"]

KEY = "0123456789abcdef"


class Storage:
    """The collections by path, such as ``123/s/pages``.

    Attributes:
        url: address.
        collections: key to record; the time of storing is in ``times``.
        fail: statuses to be answered by the next requests instead; 0 cuts the answer off in the middle of a line.
        asked: method and path of each request, in order.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.collections: dict[str, dict[str, dict[str, Any]]] = {}
        self.times: dict[str, int] = {}
        self.fail: list[int] = []
        self.asked: list[str] = []

    def found(self, path: str, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        """The records that a question is for, in the order of their keys."""
        records = self.collections.get(path, {})
        first, last = int(query.get("startts", ["0"])[0]), int(query.get("endts", [str(1 << 62)])[0])
        keys = [
            key
            for key in sorted(records, key=str.encode)
            if key.startswith(tuple(query.get("prefix", [""])))
            and key.encode() > query.get("startafter", [""])[0].encode()
            and ("key" not in query or key in query["key"])
            and first <= self.times.get(key, 0) < last
        ]
        return [records[key] for key in keys[: int(query.get("count", ["1000000"])[0])]]


@contextmanager
def storage() -> Iterator[Storage]:
    """A storage that runs meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            body = [json.dumps(one) for one in made.found(self._path(), parse_qs(address.query))]
            self._answer("".join(f"{line}\n" for line in body).encode())

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["content-length"])).decode()
            status = self._status()
            if status == 200:
                for line in text.splitlines():
                    record = json.loads(line)
                    made.collections.setdefault(self._path(), {})[record["_key"]] = record
            self._answer(b"", status)

        def _path(self) -> str:
            return urlsplit(self.path).path.removeprefix("/collections/")

        def _status(self) -> int:
            made.asked.append(f"{self.command} {self._path()}")
            given = base64.b64decode(self.headers.get("authorization", "").removeprefix("Basic ")).decode()
            return 401 if given != f"{KEY}:" else made.fail.pop(0) if made.fail else 200

        def _answer(self, body: bytes, status: int | None = None) -> None:
            status = self._status() if status is None else status
            self.send_response(status or 200)
            self.send_header("content-length", str(len(body) if status in (0, 200) else 0))
            self.end_headers()
            if status == 0:
                self.wfile.write(body[: len(body) * 2 // 3])
                self.close_connection = True
            elif status == 200:
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's argument
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Storage(f"http://127.0.0.1:{server.server_port}/")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
