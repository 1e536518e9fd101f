"""A server that answers Dropbox's client as the service does, as far as uploads go; over TLS, as that insists."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["TOKEN", "DropboxService", "dropbox_service"]

TOKEN = "sl.token-word"
_ACCOUNT = {
    "account_id": "dbid:" + "A" * 35, "name": {
        "given_name": "A", "surname": "B", "familiar_name": "A", "display_name": "A B", "abbreviated_name": "AB"},
    "email": "a@example.org", "email_verified": True, "disabled": False, "locale": "en", "referral_link": "https://x",
    "is_paired": False, "account_type": {".tag": "basic"}, "root_info": {
        ".tag": "user", "root_namespace_id": "1", "home_namespace_id": "1"},
}  # fmt: skip


class DropboxService:
    """The service.

    Attributes:
        host: and port of it.
        certificate: for the client to trust.
        files: content by path.
        calls: the names of what was asked, in their order.
        fail: names of calls, each to be answered once with 500.
    """

    def __init__(self, certificate: Path) -> None:
        self.host = ""
        self.certificate = certificate
        self.files: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.fail: list[str] = []
        self._sessions: dict[str, bytes] = {}

    def answer(self, call: str, argument: Any, body: bytes) -> tuple[int, Any]:
        """Status and JSON."""
        self.calls.append(call)
        if call in self.fail:
            self.fail.remove(call)
            return 500, {}
        if call == "users/get_current_account":
            return 200, _ACCOUNT
        if call == "files/upload_session/start":
            session = f"s{len(self._sessions)}"
            self._sessions[session] = body
            return 200, {"session_id": session}
        if call == "files/get_metadata":
            found = self.files.get(argument["path"])
            if found is None:
                return 409, {
                    "error_summary": "path/not_found/",
                    "error": {".tag": "path", "path": {".tag": "not_found"}},
                }
            return 200, _metadata(argument["path"], found)
        cursor = argument["cursor"]
        held = self._sessions[cursor["session_id"]]
        if cursor["offset"] != len(held):
            wrong = {".tag": "incorrect_offset", "correct_offset": len(held)}
            return 409, {"error_summary": "lookup_failed/", "error": {".tag": "lookup_failed", "lookup_failed": wrong}}
        self._sessions[cursor["session_id"]] = held + body
        if call == "files/upload_session/append_v2":
            return 200, None
        assert call == "files/upload_session/finish", call
        commit = argument["commit"]
        if commit["path"] in self.files and commit["mode"] != {".tag": "overwrite"}:
            return 409, {"error_summary": "path/conflict/", "error": {".tag": "path"}}
        self.files[commit["path"]] = held + body
        return 200, {key: value for key, value in _metadata(commit["path"], held + body).items() if key != ".tag"}


def _metadata(path: str, content: bytes) -> dict[str, Any]:
    at = "2026-11-21T17:00:00Z"
    return {
        ".tag": "file", "name": path.rpartition("/")[2], "id": "id:abcdefghijklmnopqrstuv", "client_modified": at,
        "server_modified": at, "rev": "0123456789", "size": len(content), "path_display": path,
    }  # fmt: skip


@contextmanager
def dropbox_service(folder: Path) -> Iterator[DropboxService]:
    """Serve until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            uploads = "Dropbox-API-Arg" in self.headers
            argument = json.loads(self.headers["Dropbox-API-Arg"] if uploads else body or b"null")
            if self.headers["Authorization"] == f"Bearer {TOKEN}":
                status, answer = service.answer(self.path.removeprefix("/2/"), argument, body if uploads else b"")
            else:
                status, answer = (
                    401,
                    {"error_summary": "invalid_access_token/", "error": {".tag": "invalid_access_token"}},
                )
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's argument
            """Say nothing."""

    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    service = DropboxService(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        service.host = f"localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()
