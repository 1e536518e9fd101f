"""A recipe for one kind of server, and one running server of that kind."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import psutil

from tests.servers.provision.cache import Cache, run

HOST = "127.0.0.1"


class ServerError(Exception):
    """A server that is installed does not start; the text has the end of its log."""


class Server(ABC):
    """What is special about one kind of server.

    Attributes:
        name: what tests and the command line call it.
        version: what is installed.
        source: the package client it comes from; servers of one source are installed one after the other.
        ports: how many ports it takes, the first of them in ``Instance.port``.
        start_timeout: seconds it may take until it answers.
        stop_signal: what makes it stop in order without waiting for its clients.
    """

    name: ClassVar[str]
    version: str
    source: ClassVar[str]
    ports: ClassVar[int] = 1
    start_timeout: ClassVar[float] = 30.0
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def home(self, cache: Cache) -> Path:
        """Where `install` puts it."""
        return cache.root / f"{self.name}-{self.version}"

    def installed(self, cache: Cache) -> bool:
        """Whether nothing has to be done before a start."""
        return self.home(cache).exists()

    def install(self, cache: Cache) -> bool:
        """Make it ready to start. False if it was already. Raises UnavailableError."""
        if self.installed(cache):
            return False
        with cache.installing(self.home(cache).name) as folder:
            if not self.installed(cache):
                self.fetch(cache, folder)
        return True

    @abstractmethod
    def fetch(self, cache: Cache, folder: Path) -> None:
        """Get everything that has to be fetched or built, into this folder."""

    @abstractmethod
    def command(self, instance: Instance) -> list[object]:
        """Write what configuration it needs into the data folder; the command that then stays in the foreground."""

    def ready(self, instance: Instance) -> bool:
        """Whether it answers."""
        return connects(instance.port)

    def prepare(self, instance: Instance) -> None:  # noqa: B027 - most servers have nothing left to do
        """What is left to do once it answers, such as users. Must bear being done again."""


@dataclasses.dataclass
class Instance:
    """One server on a port of its own, with its data in a folder of its own.

    Stopped or killed, it can be started again on the same port and data, also with other settings.

    Attributes:
        server: its recipe.
        data: its folder; all that it writes is in there.
        cache: where it is installed.
        user: a user that may do everything; None: nobody has to say who they are.
        password: that user's password.
        tls: whether it speaks TLS, with the certificate in ``data/server.crt`` (for localhost).
        upstream: port of the server behind it, for proxies.
        settings: the server's own settings, in its own words.
    """

    server: Server
    data: Path
    cache: Cache
    user: str | None = None
    password: str | None = None
    tls: bool = False
    upstream: int | None = None
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _log_start: int = 0

    @property
    def url(self) -> str:
        """Where it is, for servers that speak HTTP."""
        return f"{'https' if self.tls else 'http'}://{'localhost' if self.tls else HOST}:{self.port}"

    @property
    def certificate(self) -> Path:
        """The certificate for clients to trust."""
        return self.data / "server.crt"

    @property
    def pid(self) -> int:
        """Its process. Raises ServerError if it does not run."""
        if self._process is None:
            raise ServerError(f"{self.server.name} does not run")
        return self._process.pid

    def start(self, **changes: object) -> Instance:
        """Start it and return once it answers. Keywords change its attributes before that.

        Raises:
            ServerError: it ended or gave no answer in time.
        """
        for name, value in changes.items():
            setattr(self, name, value)
        self.data.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port(self.server.ports)
        if self.tls:
            self._make_certificate()
        command = [*_until_we_end(self.server.stop_signal), *map(str, self.server.command(self))]
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = process = subprocess.Popen(
                command, cwd=self.data, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        if not poll(lambda: process.poll() is not None or self.server.ready(self), self.server.start_timeout):
            self.kill()
            raise ServerError(f"{self.server.name} gave no answer in {self.server.start_timeout} s:\n{self.logged()}")
        if process.poll() is not None:
            self._process = None
            raise ServerError(f"{self.server.name} ended with {process.returncode}:\n{self.logged()}")
        self.server.prepare(self)
        return self

    def stop(self, timeout: float = 20.0) -> None:
        """Stop it in order, after `timeout` seconds by force. Nothing happens if it does not run."""
        self._end(self.server.stop_signal, timeout)

    def kill(self) -> None:
        """Crash it: SIGKILL to it and to its children."""
        self._end(signal.SIGKILL, 0.0)

    def remove(self) -> None:
        """Stop it and delete its data."""
        self.stop()
        shutil.rmtree(self.data)

    @property
    def log(self) -> Path:
        """What it printed, over all its starts."""
        return self.data / "server.log"

    def logged(self) -> str:
        """What it has printed since its last start; the last 20,000 characters."""
        with self.log.open("rb") as log:
            log.seek(max(self._log_start, self.log.stat().st_size - 20_000))
            return log.read().decode(errors="replace")

    def _end(self, first: signal.Signals, timeout: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(first)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout or None if first is signal.SIGKILL else timeout)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
        if not poll(lambda: not any(map(_lives, family)), 10.0):
            raise ServerError(f"{self.server.name} leaves processes behind: {family}")

    def _make_certificate(self) -> None:
        if self.certificate.exists():
            return
        self.cache.need("openssl", "openssl")
        run(
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", f"subjectAltName=DNS:localhost,IP:{HOST}"),
            *("-keyout", self.data / "server.key", "-out", self.certificate),
        )


def poll(condition: Callable[[], bool], timeout: float) -> bool:
    """Ask until the answer is yes or time is up. Another process can only be asked: hence the short pauses."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def connects(port: int) -> bool:
    """Whether something accepts connections on this port."""
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def answers(port: int, path: str) -> bool:
    """Whether an HTTP server on this port has 200 for this path."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5.0)
    try:
        connection.request("GET", path, headers={"User-Agent": "provision"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def free_port(count: int = 1) -> int:
    """The first of `count` consecutive ports that nobody has at this moment."""
    while True:
        with contextlib.ExitStack() as held, contextlib.suppress(OSError, OverflowError):
            first = held.enter_context(socket.create_server((HOST, 0))).getsockname()[1]
            for port in range(first + 1, first + count):
                held.enter_context(socket.create_server((HOST, port)))
            return int(first)


def as_user(name: str, group: str | None = None) -> list[str]:
    """What to put in front of a command that refuses to run as root."""
    return [] if os.geteuid() else ["setpriv", f"--reuid={name}", f"--regid={group or name}", "--clear-groups"]


def _until_we_end(number: signal.Signals) -> list[str]:
    """A server must not outlive tests that were killed: the kernel tells it when its parent is gone."""
    if sys.platform == "linux" and shutil.which("setpriv"):
        return ["setpriv", "--pdeathsig", number.name.removeprefix("SIG")]
    return []


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
