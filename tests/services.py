"""Real services on this machine for tests: a web service that answers as it is told, and a mail server."""

from __future__ import annotations

import asyncio
import email
import email.policy
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

__all__ = ["MailServer", "Request", "WebService", "mail_server", "web_service"]


class Request(NamedTuple):
    """What a client sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class WebService:
    """A web service.

    Attributes:
        url: of it.
        requests: all that it was sent.
        answer: gives status, headers and body for a request; status -1 hangs up without an answer.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []
        self.answer: Callable[[Request], tuple[int, dict[str, str], bytes]] = lambda request: (200, {}, b"{}")


@contextmanager
def web_service() -> Iterator[WebService]:
    """Serve until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            if len(body) < length:  # the client is gone
                self.close_connection = True
                return
            request = Request(self.command, self.path, dict(self.headers.items()), body)
            service.requests.append(request)
            status, headers, answer = service.answer(request)
            if status < 0:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {"Content-Length": str(len(answer)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        do_PUT = do_POST  # noqa: N815 - the base's name

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's argument
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exc_info()[1], ConnectionError):  # of a client that was killed
                super().handle_error(request, client_address)

    with Server(("127.0.0.1", 0), Handler) as server:
        service = WebService(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()


class MailServer:
    """A mail server.

    Attributes:
        port: of it.
        mails: those that it took: the addresses of the envelope, and the mail.
        refuse: gives an answer such as "552 too large" for a receiver or, with None, for the mail; None: it is taken.
        taken: called once a mail is taken, before the client is told.
    """

    def __init__(self) -> None:
        self.port = 0
        self.mails: list[tuple[list[str], EmailMessage]] = []
        self.refuse: Callable[[str | None], str | None] = lambda receiver: None
        self.taken: Callable[[], None] = lambda: None

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802 - aiosmtpd's name
        answer = self.refuse(address)
        if answer is None:
            envelope.rcpt_tos.append(address)
        return answer or "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        answer = self.refuse(None)
        if answer is not None:
            return answer
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.mails.append((list(envelope.rcpt_tos), mail))
        self.taken()
        return "250 OK"


@contextmanager
def mail_server(**options: Any) -> Iterator[MailServer]:
    """Serve until the end of the block. Options: those of aiosmtpd's controller."""
    from aiosmtpd.controller import Controller

    class AnyPort(Controller):
        def _trigger_server(self) -> None:
            assert isinstance(self.server, asyncio.Server)
            self.port = self.server.sockets[0].getsockname()[1]
            super()._trigger_server()  # type: ignore[no-untyped-call] # aiosmtpd's

    mails = MailServer()
    controller = AnyPort(mails, hostname="127.0.0.1", port=0, **options)
    controller.start()
    mails.port = controller.port
    try:
        yield mails
    finally:
        controller.stop()
