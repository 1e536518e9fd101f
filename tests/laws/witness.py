"""Evidence, from outside a program, of whether the machine let it run and the disk answered.

``loss_window`` is a promise in seconds. A machine that stands still breaks any such promise, and docs/guarantees.md
says so. What a program loses says something about the program only if the machine did not stand still: the witness
says whether it did, and knows nothing of the engine. What the program does to itself is not the machine's doing: a
thread that waits for a lock, or for another of its own threads, does not wait for a CPU.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

import pytest

__all__ = ["Standstill", "Witness", "conclusive"]

BEAT = 0.01
SPAN = 1.25  # windows before the end of a trial in which the machine is to go on
PATIENCE = 3.0  # seconds for which such a moment is waited for
VAIN = 4  # trials that may say nothing, besides as many as are wanted
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_T = TypeVar("_T")


class Standstill(NamedTuple):
    """For how long, in seconds, the machine may have kept a program from its work."""

    machine: float  # the longest between two looks of the witness, who wants to look every 10 ms
    cpu: float  # for which the program's threads could have run and had no CPU, together; and for which a host took it
    disk: float  # the longest that three syncs took

    @property
    def worst(self) -> float:
        return max(self)

    def proves(self, window: float) -> bool:
        """Whether it was so short that a promise of ``window`` seconds has to be kept."""
        return self.worst <= window / 4

    def __str__(self) -> str:
        return f"{self.machine:.3f} s without a beat, {self.cpu:.3f} s without a CPU, {self.disk:.3f} s for the disk"


class Witness:
    """Looks every 10 ms whether a program runs, and how long a disk takes. From ``with`` on, until its end.

    Args:
        pid: the program.
        folder: on a disk like the one that the program uses; None: no disk is asked.
    """

    def __init__(self, pid: int, folder: Path | None) -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._folder = folder
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._beat)]
        if folder is not None:
            self._threads.append(threading.Thread(target=self._probe, args=[folder]))
        self._seen: dict[str, tuple[int, int, float]] = {}  # of each thread: time on a CPU, for one, and when it was so
        self._waited = 0
        self._looks: list[tuple[float, float, float]] = []  # when, seconds without a CPU till then, of them unfinished
        self._probes: list[tuple[float, float]] = []
        self._asked: float | None = None

    def __enter__(self) -> Witness:  # noqa: PYI034 - Self is in typing from Python 3.11 on
        self._look()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def quiet(self, window: float, meanwhile: Callable[[], object] | None = None) -> tuple[float, Standstill]:
        """Wait for a moment before which the machine went on; not for long. Returns the moment, and how it was then.

        It does not look at what the program has done, so no loss is overlooked. A program that does nothing where it
        should save needs no CPU: for such a one the moment comes at once.

        Args:
            window: seconds of the promise that it would have to keep.
            meanwhile: called again and again, instead of a wait.
        """
        end = time.monotonic() + PATIENCE
        while True:
            now = time.monotonic()
            still = self.standstill(now - SPAN * window, now)
            if still.proves(window) or now > end:
                return now, still
            if meanwhile is None:
                self._end.wait(BEAT)
            else:
                meanwhile()

    def standstill(self, since: float, until: float) -> Standstill:
        """What it has seen between two moments of ``time.monotonic``; ``until`` is not in the future."""
        asked, probes, looks = self._asked, list(self._probes), list(self._looks)
        if asked is not None and asked not in [began for began, _ in probes]:
            probes.append((asked, until))
        before = [look for look in looks if look[0] <= since] or looks[:1]
        inside = [before[-1], *(look for look in looks if since < look[0] <= until)]
        moments = [*(look[0] for look in inside), until]
        return Standstill(
            machine=max(later - earlier for earlier, later in pairwise(moments)),
            cpu=inside[-1][1] - inside[0][1] + inside[-1][2],
            disk=max((min(end, until) - began for began, end in probes if began < until and end > since), default=0.0),
        )

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            self._look()

    def _look(self) -> None:
        """Add up for how long threads have waited for a CPU, also those that still wait."""
        now, longest = time.monotonic(), 0.0
        with suppress(OSError):  # it has ended, or this system keeps no such figures
            for thread in self._tasks.iterdir():
                with suppress(OSError):
                    wants = (thread / "stat").read_text().rpartition(")")[2].split()[0] == "R"
                    ran, waited, _ = map(int, (thread / "schedstat").read_text().split())
                    ran_before, waited_before, at = self._seen.get(thread.name, (ran, 0, now))
                    if not wants or (ran, waited) != (ran_before, waited_before):
                        at = now
                    self._waited += waited - waited_before
                    self._seen[thread.name] = (ran, waited, at)
                    longest = max(longest, now - at)
        self._looks.append((time.monotonic(), self._waited / 1e9 + _stolen(), longest))

    def _probe(self, folder: Path) -> None:
        """As a first save does: a new file in its place, its folder, and more at its end."""
        new, place = folder / "probe-new", folder / "probe"
        while not self._end.wait(BEAT):
            self._asked = began = time.monotonic()
            with new.open("wb", buffering=0) as file:
                file.write(bytes(4096))
                os.fsync(file.fileno())
                new.rename(place)
                _sync(folder)
                file.write(bytes(4096))
                os.fsync(file.fileno())
            self._probes.append((began, time.monotonic()))


def conclusive(
    trial: Callable[[], tuple[Standstill, _T]], wanted: int, window: float, what: str = "cuts"
) -> Iterator[_T]:
    """Repeat a trial until ``wanted`` of them were on a machine that went on, and hand these out as they come.

    Where too many trials say nothing, the test is skipped, and that says why; what was handed out before is judged by
    then.

    Args:
        trial: returns for how long the machine stood still, and what came of it.
        wanted: how many are to be conclusive.
        window: the promise, in seconds.
        what: the name of the trials.
    """
    found, vain = 0, list[Standstill]()
    while found < wanted:
        still, result = trial()
        if still.proves(window):
            found += 1
            yield result
            continue
        vain.append(still)
        print(f"says nothing: {still}, for a window of {window} s")
        if len(vain) >= wanted + VAIN:
            least = min(vain, key=lambda one: one.worst)
            pytest.skip(
                f"THE MACHINE STANDS STILL TOO OFTEN FOR A PROMISE OF {window} s: {found} of {wanted} {what} are"
                f" conclusive and found good, {len(vain)} are not; the best of these: {least}"
            )
    print(f"{found} {what} conclusive, {len(vain)} not, for a window of {window} s")


def _stolen() -> float:
    """Seconds for which a hypervisor ran something else."""
    try:
        with Path("/proc/stat").open() as file:
            return int(file.readline().split()[8]) * _TICK
    except (OSError, IndexError):
        return 0.0


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
