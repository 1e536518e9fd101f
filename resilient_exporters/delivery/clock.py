"""Time as the queue sees it: never the wall clock, and going on across restarts."""

from __future__ import annotations

import _thread
import time
from pathlib import Path
from uuid import uuid4

__all__ = ["Bell", "Clock", "QueueClock"]


class Bell:
    """A wake-up for one waiting thread: rings before the wait count once, and are not lost."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake the waiter, now or at its next wait. Never waits."""
        try:
            self._lock.release()
        except RuntimeError:
            return  # rung already: one wake-up is enough

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for a ring, at most ``seconds``. Returns whether it rang."""
        if seconds is None:
            return self._lock.acquire()
        return self._lock.acquire(timeout=min(max(seconds, 0.0), _thread.TIMEOUT_MAX))


class Clock:
    """The machine's clocks, in one place so that a test can put another in (``testing.FakeClock``)."""

    def now(self) -> float:
        """Monotonic seconds; on Linux since boot, the same for all processes."""
        return time.monotonic()

    def time(self) -> float:
        """Wall-clock seconds since the epoch: for people to read, never to decide by."""
        return time.time()

    def boot(self) -> str:
        """Identity of this boot; another value means that ``now`` began again."""
        return _boot()

    def wait(self, bell: Bell, seconds: float | None) -> bool:
        """Wait for ``bell``, at most ``seconds`` (None: as long as it takes)."""
        return bell.wait(seconds)


class QueueClock:
    """Seconds in the life of a queue: grows while the machine is up, stands still where nobody can tell.

    Within one boot it follows the monotonic clock, restarts included. After a reboot it goes on from the last value
    that was kept, plus the time since boot: an age is never overestimated, and a step of the wall clock changes
    nothing.

    Args:
        clock: the machine's clocks.
        kept: ``state`` of an earlier process, or None for a new queue.
    """

    def __init__(self, clock: Clock, kept: tuple[str, float, float] | None = None) -> None:
        self.clock = clock
        self.boot = clock.boot()
        if kept is None:
            self.base = -clock.now()
        elif kept[0] == self.boot:
            self.base = kept[1]
        else:
            self.base = kept[2]

    def now(self) -> float:
        """Seconds of this queue's life."""
        return self.base + self.clock.now()

    @property
    def state(self) -> tuple[str, float, float]:
        """What the next process needs to go on: boot, base, last value."""
        return (self.boot, self.base, self.now())


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        # No boot id here: each process counts as a boot of its own, so ages are underestimated, never over.
        return _PROCESS


_PROCESS = uuid4().hex
