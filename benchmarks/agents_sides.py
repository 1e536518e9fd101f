"""What is compared, from the outside: an agent with its feeder, or our program. Both are watched by the same means."""

from __future__ import annotations

import bisect
import fcntl
import http.client
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from benchmarks.agents_programs import AGENTS, Agent
from benchmarks.agents_records import BULK, bulks, stream
from benchmarks.harness import remove
from resilient_exporters.delivery.ring import ring_path
from tests.servers.provision import HOST, Cache, Instance

__all__ = ["OURS", "Side", "side"]

OURS = ("ours", "ours-bytes")
_ROOT = Path(__file__).parent.parent
_QUIET = 0.004
_CHUNK = 1 << 18


class Side(ABC):
    """One that takes records and posts them.

    Args:
        folder: all that it writes goes there.
        target: port of the receiver.
        retry: seconds between attempts; None: its default.
        queue: folder of its queue; None: one in ``folder``.

    Attributes:
        accepted: numbers of the records that it has taken, as far as `feed` has seen.
        share: part of the records that it can be given in bearable time.
    """

    share = 1.0

    def __init__(self, folder: Path, target: int, retry: float | None = None, queue: Path | None = None) -> None:
        self.accepted: set[int] = set()
        self._folder = folder
        self._target = target
        self._retry = retry
        self.queue = queue or folder / "queue"

    def __enter__(self) -> Side:  # noqa: PYI034 - typing has no Self in 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)

    @property
    @abstractmethod
    def pid(self) -> int:
        """Its process."""

    @abstractmethod
    def start(self) -> None:
        """Start it, again too, on what it left."""

    def prepare(self, first: int, count: int) -> None:  # noqa: B027 - agents are fed from here
        """Make the records that `feed` gives it: that is not what is measured."""

    @abstractmethod
    def feed(self, first: int, count: int, rate: float = 0.0, patience: float = 60.0) -> float:
        """Give it records, at a rate or as fast as it takes them; the seconds until it had them.

        Ends early if it takes nothing for ``patience`` seconds.
        """

    @abstractmethod
    def kill_now(self) -> None:
        """SIGKILL, and ``accepted`` is exact for that instant."""

    @abstractmethod
    def end(self, number: signal.Signals) -> float:
        """Send it a signal; seconds until the process is gone. Nothing if it does not run."""

    @abstractmethod
    def said(self) -> str:
        """What it logged."""

    def reboot(self) -> None:  # noqa: B027 - only we keep something that a reboot takes
        """What a reboot would do to what it left."""

    def cpu(self) -> float:
        """CPU seconds of all its threads so far, also those that ended: the kernel's clock of the process."""
        return time.clock_gettime((~self.pid << 3) | 2)

    def written(self) -> int:
        """Bytes that it made the disk write so far."""
        figures = dict(line.split(": ") for line in Path(f"/proc/{self.pid}/io").read_text().splitlines())
        return int(figures["write_bytes"])

    def resident(self) -> float:
        """MB in memory."""
        return psutil.Process(self.pid).memory_info().rss / 1e6

    def on_disk(self) -> int:
        """Bytes that its queue takes on disk, as du has it."""
        return sum(each.stat().st_blocks * 512 for each in self.queue.rglob("*") if each.is_file())

    def settle(self, patience: float = 20.0) -> None:
        """Wait until it does nothing any more."""
        deadline = time.monotonic() + patience
        calm = 0
        while calm < 2 and time.monotonic() < deadline:
            used = self.cpu()
            time.sleep(0.3)
            calm = calm + 1 if self.cpu() - used < _QUIET else 0


def side(name: str, folder: Path, target: int, **options: Any) -> Side:
    """The side of this name."""
    return Ours(name, folder, target, **options) if name in OURS else Foreign(AGENTS[name], folder, target, **options)


class Foreign(Side):
    """An agent, and the feeder that it needs: lines over one TCP connection, or OTLP bulks of 500 over four of HTTP."""

    def __init__(self, agent: Agent, folder: Path, target: int, **options: Any) -> None:
        super().__init__(folder, target, **options)
        settings = {"target": str(target), "queue": str(self.queue)}
        if self._retry is not None:
            settings["retry"] = f"{self._retry:g}"
        self.share = agent.share
        self._agent = agent
        self._instance = Instance(agent, folder, Cache(), settings=settings)
        self._lines: _Lines | None = None

    @property
    def pid(self) -> int:
        return self._instance.pid

    def start(self) -> None:
        self._instance.start()
        self._lines = None if self._agent.otlp else _Lines(self._instance.port, header=self._agent.name == "rsyslog")

    def feed(self, first: int, count: int, rate: float = 0.0, patience: float = 60.0) -> float:
        if self._lines is None:
            return self._post(first, count, rate, patience)
        seconds = self._lines.feed(first, count, rate, patience)
        self.accepted |= self._lines.accepted()
        return seconds

    def kill_now(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)  # what it has read is read, and no more
        while psutil.Process(self.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)
        if self._lines is not None:
            self.accepted |= self._lines.accepted()
        self._instance.kill()

    def end(self, number: signal.Signals) -> float:
        if self._lines is not None:
            self._lines.close()
            self._lines = None
        began = time.monotonic()
        if number is signal.SIGKILL:
            self._instance.kill()
        else:
            self._instance.stop(90.0)
        return time.monotonic() - began

    def said(self) -> str:
        places = (self._instance.log, self._folder / "said")
        return "".join(path.read_text(errors="replace") for path in places if path.exists())

    def _post(self, first: int, count: int, rate: float, patience: float) -> float:
        bodies = bulks(first, count)
        workers = 1 if rate else 4
        began = time.perf_counter()

        def work(lane: int) -> None:
            connection = http.client.HTTPConnection(HOST, self._instance.port, timeout=patience)
            for at in range(lane, len(bodies), workers):
                if rate:
                    time.sleep(max(0.0, began + at * BULK / rate - time.perf_counter()))
                connection.request("POST", "/v1/logs", bodies[at], {"Content-Type": "application/x-protobuf"})
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    start = first + at * BULK
                    self.accepted.update(range(start, min(start + BULK, first + count)))
            connection.close()

        with ThreadPoolExecutor(workers) as threads:
            for done in [threads.submit(work, lane) for lane in range(workers)]:
                done.result()
        return time.perf_counter() - began


class _Lines:
    """One connection with a stream of lines, and how much of it the agent has read."""

    def __init__(self, port: int, *, header: bool) -> None:
        self._header = header
        self._port = port
        self._socket = socket.create_connection((HOST, port))
        self._socket.setblocking(False)
        self._sent = 0
        self._rest = b""
        self._ends: list[int] = []
        self._numbers: list[int] = []

    def feed(self, first: int, count: int, rate: float, patience: float) -> float:
        data, ends = stream(first, count, header=self._header)
        data = self._rest + data  # what is left of a record whose beginning is sent
        base = self._sent + len(self._rest)
        self._ends += [base + end for end in ends]
        self._numbers += range(first, first + count)
        began = since = time.perf_counter()
        at, left = 0, -1
        while at < len(data) or self._unread():
            most = len(data) if not rate else int((time.perf_counter() - began) * rate / count * len(data))
            try:
                done = self._socket.send(data[at : min(at + _CHUNK, most)]) if at < most else 0
            except BlockingIOError:
                done = 0
            at += done
            self._sent += done
            waits = len(data) - at + self._unread() if not done else -1
            if done or waits != left:
                since, left = time.perf_counter(), waits
            elif time.perf_counter() - since > patience:
                break
            if not done:
                time.sleep(0.002)
            if rate and at >= len(data):
                break  # what comes next is a kill: it must find it at work
        # What was not sent is forgotten, but for the rest of a record that was begun.
        begun = bisect.bisect_right(self._ends, self._sent)
        whole = self._ends[begun] if begun < len(self._ends) and self._starts_before(begun) else self._sent
        self._rest = data[at : at + whole - self._sent]
        kept = begun + (whole > self._sent)
        del self._ends[kept:], self._numbers[kept:]
        return time.perf_counter() - began

    def accepted(self) -> set[int]:
        """The records that it has read to their end."""
        return set(self._numbers[: bisect.bisect_right(self._ends, self._sent - self._unread())])

    def close(self) -> None:
        """End the stream."""
        self._socket.close()

    def _starts_before(self, at: int) -> bool:
        return (self._ends[at - 1] if at else 0) < self._sent

    def _unread(self) -> int:
        """Bytes that wait in this end of the connection or, unread, in the other."""
        waits = struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, b"\0\0\0\0"))[0]
        ours = f":{self._socket.getsockname()[1]:04X}"
        for line in Path("/proc/net/tcp").read_text().splitlines():
            cells = line.split()
            if cells[2].endswith(ours) and cells[1].endswith(f":{self._port:04X}"):
                return int(waits) + int(cells[4].partition(":")[2], 16)
        return int(waits)


class Ours(Side):
    """Our program. The queue's options are the defaults but for what is said here.

    Attributes:
        saves: whether `feed` lasts until all is on disk, not only until the last ``send`` has returned.
    """

    saves = True

    def __init__(self, name: str, folder: Path, target: int, **options: Any) -> None:
        super().__init__(folder, target, **options)
        self._options: dict[str, Any] = {"encoded": name == "ours-bytes", "on_full": "block"}
        if self._retry is not None:
            self._options["retry"] = self._retry
        self._watched = tempfile.NamedTemporaryFile(prefix="taken-")  # noqa: SIM115 - for as long as this lives
        self._watched.write(bytes(8))
        self._watched.flush()
        self._taken = mmap.mmap(self._watched.fileno(), 8)
        self._first = 0
        self._process: subprocess.Popen[str] | None = None

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        remove(self.queue)

    def set(self, **options: Any) -> None:
        """Options of the exporter, before `start`."""
        self._options |= options

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("it does not run")
        return self._process.pid

    def start(self) -> None:
        words = [str(self.queue), str(self._target), self._watched.name, json.dumps(self._options)]
        with (self._folder / "said").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.agents_ours", *words],
                cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self._answer()

    def feed(self, first: int, count: int, rate: float = 0.0, patience: float = 60.0) -> float:  # noqa: ARG002 - it takes all
        self._first = first
        if rate:
            self._tell(do="send", first=first, count=2 * count, rate=rate, save=False)
            time.sleep(count / rate)  # what comes next is a kill: it must find it at work
            return count / rate
        seconds = self.ask(do="send", first=first, count=count, rate=0, save=self.saves)["seconds"]
        self.accepted.update(range(first, first + count))
        return float(seconds)

    def prepare(self, first: int, count: int) -> None:
        self.ask(do="prepare", first=first, count=count)

    def ask(self, **what: Any) -> dict[str, Any]:
        """Have it do something, and hear the answer."""
        self._tell(**what)
        return self._answer()

    def kill_now(self) -> None:
        self.end(signal.SIGKILL)
        self.accepted.update(range(self._first, struct.unpack("Q", self._taken)[0]))

    def end(self, number: signal.Signals) -> float:
        process, self._process = self._process, None
        if process is None:
            return 0.0
        began = time.monotonic()
        process.send_signal(number)
        process.wait(90.0)
        seconds = time.monotonic() - began
        process.stdin.close()  # type: ignore[union-attr] # a pipe
        process.stdout.close()  # type: ignore[union-attr] # a pipe
        return seconds

    def said(self) -> str:
        return (self._folder / "said").read_text()

    def reboot(self) -> None:
        """A reboot clears the ring."""
        ring = ring_path(self.queue)
        if ring is not None:
            ring.unlink(missing_ok=True)

    def _tell(self, **what: Any) -> None:
        print(json.dumps(what), file=self._process.stdin, flush=True)  # type: ignore[union-attr] # it runs

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()  # type: ignore[union-attr] # it runs
        if not line:
            raise RuntimeError(f"our program ended:\n{self.said()[-3000:]}")
        found: dict[str, Any] = json.loads(line)
        return found
