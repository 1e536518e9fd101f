"""What AzureFileWriter asks of a file share, answered on this machine: there is no emulator of it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["azure_file_share"]


class _Share(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: ClassVar[dict[str, bytearray]]
    folders: ClassVar[set[str]]

    def do_PUT(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if query.get("restype") in (["share"], ["directory"]):
            code = 409 if path in self.folders else 201
            self.folders.add(path)
            self.answer(code, "ResourceAlreadyExists" if code == 409 else None)
        elif path.rpartition("/")[0] not in self.folders:
            self.answer(404, "ParentNotFound")
        elif query.get("comp") == ["rename"]:
            source = unquote(urlsplit(self.headers["x-ms-file-rename-source"]).path)
            if path in self.files and self.headers.get("x-ms-file-rename-replace-if-exists") != "true":
                self.answer(409, "ResourceAlreadyExists")
            else:
                self.files[path] = self.files.pop(source)
                self.answer(200)
        elif query.get("comp") == ["range"]:
            first, last = map(int, self.headers["x-ms-range"].removeprefix("bytes=").split("-"))
            self.files[path][first : last + 1] = body
            self.answer(201)
        else:
            self.files[path] = bytearray(int(self.headers["x-ms-content-length"]))
            self.answer(201)

    def do_HEAD(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path in self.files:
            self.answer(200, length=len(self.files[path]))
        else:
            self.answer(404, "ResourceNotFound")

    def answer(self, code: int, error: str | None = None, length: int = 0) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        self.send_header("x-ms-type", "File")
        if error:
            self.send_header("x-ms-error-code", error)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def azure_file_share() -> Iterator[tuple[str, dict[str, bytearray]]]:
    """A file service; gives its URL and the files by path."""
    files: dict[str, bytearray] = {}
    handler = type("Share", (_Share,), {"files": files, "folders": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="azure-files")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
