"""A slot of jobs as a program of its own, for tests that kill it: ``python -m tests.laws.slot ROOT SEED``.

The target is a file beside the backlog: it takes a job by appending a line, and fails a third of the time before
that. What the process promises is told apart from what a target sees: a success is one that the process knows of,
which is when ``cleanup`` is called without an error.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resilient_exporters.jobs import Backlog, EventsExportJob, ExportError, ExportProcess

__all__ = ["lines", "moments", "say"]


def say(place: Path, what: str, job_id: str) -> None:
    """Append a line in one system call: a kill leaves it whole or away."""
    handle = os.open(place / "history", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(handle, f"{what} {job_id} {time.monotonic_ns()}\n".encode())
    os.close(handle)


def lines(place: Path) -> list[tuple[str, str]]:
    """What was said so far."""
    path = place / "history"
    text = path.read_text() if path.exists() else ""
    return [(what, job_id) for what, job_id, _ in (line.split(" ") for line in text.splitlines())]


def moments(place: Path) -> list[tuple[str, str, float]]:
    """The same, with monotonic seconds."""
    said = (line.split(" ") for line in (place / "history").read_text().splitlines())
    return [(what, job_id, int(when) / 1e9) for what, job_id, when in said]


class Export(EventsExportJob):
    """Appends to the target, or fails."""

    place: Path
    chance: random.Random

    def prepare(self) -> None:
        """The run begins."""
        say(self.place, "begin", self.job_id)

    def export_events(self) -> int:
        """A file, as jobs write them."""
        file = self.place / f"{self.job_id}.out"
        file.write_text("x" * self.chance.randrange(20_000))
        return 1

    def send_data(self) -> None:
        """Hand it to the target, which fails a third of the time."""
        if self.chance.random() < 1 / 3:
            raise ExportError("the target is down", 5)
        say(self.place, "taken", self.job_id)

    def cleanup(self, error: ExportError | None = None) -> None:
        """By now the process has noted how it went."""
        (self.place / f"{self.job_id}.out").unlink(missing_ok=True)
        say(self.place, "failed" if error else "succeeded", self.job_id)


class Told(Backlog):
    """Says which entries were accepted: those may never be lost."""

    def _store(self, job_id: str, parms: Any) -> None:
        super()._store(job_id, parms)
        say(self.directory.parent, "kept", job_id)


def main(place: Path, seed: int, count: int = 0) -> int:
    """Put ``count`` entries into the backlog, or run a slot."""
    backlog = Told("nightly", place)
    for n in range(count):
        backlog[f"{n:018d}"] = {"n": n}
    if count:
        return 0
    process = made(place, seed)
    print("ready", flush=True)
    sys.stdin.readline()
    return process.run(max_try=2, retry_delay=0)


def made(place: Path, seed: int) -> ExportProcess:
    """A slot."""
    Export.place, Export.chance = place, random.Random(seed)
    return ExportProcess(Export, Told("nightly", place))


def sweep(place: Path) -> int:
    """Kill a slot before and after each operation on a file that it does; one child for each. Returns how many."""
    # A kill leaves the page cache as it is: the disk has no part in this.
    setattr(os, "fsync", _at_once)  # noqa: B010 - mypy would not have it otherwise
    for number in range(1, 10_000):
        here = place / str(number)
        here.mkdir()
        main(here, 0, 1)
        child = os.fork()
        if child == 0:
            _kill_at(number)
            made(here, 5).run(2, 0)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            return number - 1
    raise AssertionError("a slot has no end")


def _at_once(_: Any) -> None:
    """Nothing to wait for."""


def _kill_at(number: int) -> None:
    left = itertools.count(number, -1)

    def tick(*_: Any) -> None:
        if next(left) == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result = real(*arguments)
            tick()
            return result

        return call

    for name in ("pwrite", "write", "fsync", "unlink", "replace", "rename", "close"):
        setattr(os, name, counted(getattr(os, name)))
    sys.addaudithook(lambda event, _: tick() if event in _EVENTS else None)


_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.scandir", "fcntl.flock"}

if __name__ == "__main__":
    if sys.argv[2] == "sweep":
        print(sweep(Path(sys.argv[1])))
    else:
        sys.exit(bool(main(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
