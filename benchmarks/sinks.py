"""The other end of the peers: an HTTP server that says yes, an MQTT broker, a port where nobody is."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

HOST = "127.0.0.1"
_PATIENCE = 20.0
_LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def yes_man() -> Iterator[int]:
    """Port of an HTTP server, in a process of its own, that takes whatever is posted. It ends with the caller."""
    command = [sys.executable, "-m", "benchmarks.sinks"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as it:
        if it.stdin is None or it.stdout is None:
            raise RuntimeError("no pipe to the server")
        yield int(it.stdout.readline())
        it.stdin.close()


@contextmanager
def dead_port() -> Iterator[int]:
    """A port that refuses every connection: ours, but nobody listens."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        yield held.getsockname()[1]


@contextmanager
def mosquitto() -> Iterator[int]:
    """Port of an MQTT broker that keeps nothing on disk.

    Raises:
        TimeoutError: it does not come up.
    """
    with dead_port() as port:
        pass
    with tempfile.TemporaryDirectory() as directory:
        settings = Path(directory) / "mosquitto.conf"
        lines = [f"listener {port} {HOST}", "allow_anonymous true", "persistence false", "log_type none"]
        settings.write_text("\n".join([*lines, *([] if os.geteuid() else ["user root"])]) + "\n")
        command = [mosquitto_program() or "mosquitto", "-c", str(settings)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as broker:
            try:
                _wait_for(port)
                yield port
            finally:
                broker.terminate()


def mosquitto_program() -> str | None:
    """Where the broker is installed, if it is."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def _wait_for(port: int) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection((HOST, port), 1).close()
        except OSError as error:
            if time.monotonic() > until:
                raise TimeoutError(f"nobody listens on port {port} after {_PATIENCE} s") from error
            time.sleep(0.02)
        else:
            return


class _YesMan(asyncio.Protocol):
    """Answers each POST once its body is there."""

    def __init__(self) -> None:
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._got += data
        while True:
            head, blank, rest = self._got.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            needed = int(length[1]) if length else 0
            if not blank or len(rest) < needed:
                return
            self._got = rest[needed:]
            self._transport.write(_ANSWER)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_YesMan, HOST, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())
