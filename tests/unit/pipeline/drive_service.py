"""A server that answers Google Drive's client as the service does, as far as uploads go.

The client knows one address only: so this is a proxy that ends each tunnel itself, with a certificate for that address.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["TOKEN", "DriveService", "drive_service"]

TOKEN = "ya29.token-word"
_NAME = "www.googleapis.com"
_QUERY = re.compile(
    r"'(?P<parent>.+?)' in parents and trashed=false and title='(?P<title>.*)' and mimeType(?P<kind>!?=)'.*'"
)


class DriveService:
    """The service.

    Attributes:
        port: of the proxy.
        certificate: for the client to trust.
        entries: files and folders, by their ids.
        renewed: how many tokens were asked for.
    """

    def __init__(self, certificate: Path) -> None:
        self.port = 0
        self.certificate = certificate
        self.entries: dict[str, dict[str, Any]] = {}
        self.renewed = 0
        self._uploads: dict[str, dict[str, Any]] = {}

    def files(self) -> dict[str, bytes]:
        """Content by path."""
        return {self._path(one): one["content"] for one in self.entries.values() if "content" in one}

    def _path(self, entry: dict[str, Any]) -> str:
        parent = entry["parents"][0]["id"]
        return (f"{self._path(self.entries[parent])}/" if parent != "root" else "") + str(entry["title"])

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON."""
        if path == "/drive/v2/about":
            return 200, {}, {"name": "A B", "rootFolderId": "root"}
        if path == "/token":
            self.renewed += 1
            return 200, {}, {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
        if path == "/drive/v2/files" and method == "GET":
            return 200, {}, {"items": self._found(query["q"])}
        if path == "/drive/v2/files":
            return 200, {}, self._kept({"id": f"id{len(self.entries)}", **json.loads(body)})
        if path.startswith("/upload/drive/v2/files") and "upload_id" not in query:
            number = str(len(self._uploads))
            known = self.entries.get(path.rpartition("/")[2]) or {"id": f"id{len(self.entries)}"}
            self._uploads[number] = {**known, **json.loads(body or b"{}"), "id": known["id"]}
            return 200, {"Location": f"https://{_NAME}{path}?upload_id={number}"}, {}
        assert path.startswith("/upload/drive/v2/files"), path
        md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
        sizes = {"fileSize": str(len(body)), "md5Checksum": md5, "content": body}
        return 200, {}, self._kept({**self._uploads[query["upload_id"]], **sizes})

    def _found(self, query: str) -> list[dict[str, Any]]:
        asked = _QUERY.fullmatch(query)
        assert asked, query
        title = asked["title"].replace("\\'", "'").replace("\\\\", "\\")
        return [
            _shown(one)
            for one in self.entries.values()
            if one["parents"][0]["id"] == asked["parent"] and one["title"] == title
            if ("content" in one) == (asked["kind"] == "!=")
        ]

    def _kept(self, entry: dict[str, Any]) -> dict[str, Any]:
        self.entries[entry["id"]] = entry
        return _shown(entry)


def _shown(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "content"}


@contextmanager
def drive_service(folder: Path) -> Iterator[DriveService]:
    """Serve until the end of the block."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={_NAME}",
         "-addext", f"subjectAltName=DNS:{_NAME}", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    service = DriveService(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_CONNECT(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.connection = self.request = context.wrap_socket(self.connection, server_side=True)
            self.rfile = self.connection.makefile("rb")
            self.wfile = self.connection.makefile("wb", buffering=0)
            self.close_connection = False

        def finish(self) -> None:
            super().finish()
            self.connection.close()  # the server knows only of the one that it took

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if parts.path == "/token" or self.headers["Authorization"] == f"Bearer {TOKEN}":
                status, headers, answer = service.answer(self.command, parts.path, query, body)
            else:
                status, headers, answer = 401, {}, {"error": {"code": 401, "message": "Invalid Credentials"}}
            data = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _answer  # noqa: N815 - the base's names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's argument
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        service.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()
