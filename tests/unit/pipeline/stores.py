"""Servers that files are written to, each on a free port of this machine. S3: tests/s3.py; OpenSSH: tests/servers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["PASSWORD", "USER", "ftp_server", "sftp_server"]

USER, PASSWORD = "reader", "secret-word"


@contextlib.contextmanager
def ftp_server(home: Path) -> Iterator[int]:
    """An FTP server; gives its port."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it stands on modules that Python 3.12 took out
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.handlers import FTPHandler
        from pyftpdlib.servers import FTPServer

    class Handler(FTPHandler):  # type: ignore[misc] # pyftpdlib has no types
        authorizer = DummyAuthorizer()
        auth_failed_timeout = 0.1

    Handler.authorizer.add_user(USER, PASSWORD, str(home), perm="elradfmw")
    server = FTPServer(("127.0.0.1", 0), Handler)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            server.serve_forever(timeout=0.05, blocking=False)

    thread = threading.Thread(target=serve, name="ftp-server")
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        ended.set()
        thread.join()
        server.close_all()


@contextlib.contextmanager
def sftp_server(home: Path) -> Iterator[tuple[int, Path]]:
    """An SSH server with SFTP only; gives its port and a file of known hosts."""
    import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519")

    connections: list[Any] = []

    class Login(asyncssh.SSHServer):
        def connection_made(self, conn: Any) -> None:
            connections.append(conn)

        def begin_auth(self, username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="sftp-server")
    thread.start()

    def run(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)

    async def begin() -> Any:
        return await asyncssh.create_server(
            Login, "127.0.0.1", 0, server_host_keys=[key],
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(home).encode()),
        )  # fmt: skip

    async def end() -> None:
        server.close()
        for connection in connections:  # first: from Python 3.12 on, a server waits for its connections
            connection.abort()
            await connection.wait_closed()
        await server.wait_closed()
        await loop.shutdown_default_executor()

    server = run(begin())
    port = server.sockets[0].getsockname()[1]
    known = home.parent / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {key.export_public_key().decode()}")
    try:
        yield port, known
    finally:
        run(end())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
