"""What the tests of the queue's parts share: a clock that stands still, settings, and queues without threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resilient_exporters.delivery.clock import Bell, Clock
from resilient_exporters.delivery.cursor import Cursor
from resilient_exporters.delivery.frame import scan
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.queue import Queue
from resilient_exporters.delivery.recovery import take_over
from resilient_exporters.delivery.ring import Ring
from resilient_exporters.delivery.settings import Settings

SMALL = 64 * 1024


class StillClock(Clock):
    """Time that only moves when a test moves it."""

    def __init__(self, seconds: float = 100.0, boot: str = "boot-1") -> None:
        self.seconds = seconds
        self.booted = boot

    def now(self) -> float:
        return self.seconds

    def time(self) -> float:
        return 1_700_000_000.0 + self.seconds

    def boot(self) -> str:
        return self.booted

    def wait(self, bell: Bell, seconds: float | None) -> bool:
        return bell.wait(0 if seconds is not None else 60)


def make_queue(
    path: Path | None = None,
    clock: Clock | None = None,
    capacity: int = SMALL,
    directory: Path | None = None,
    **options: Any,
) -> Queue:
    """A queue over a ring file, as the engine opens one, without disk and threads."""
    settings = Settings.check(**{"max_memory": max(capacity, SMALL), **options})
    queue = Queue(settings, Ring(path, capacity, directory or Path("/queue")), clock or StillClock())
    take_over(queue)
    queue.settle_in()
    return queue


def reopened(queue: Queue, **options: Any) -> Queue:
    """The queue as the next process finds it after this one was killed."""
    ring = queue.ring
    assert ring.path is not None
    return make_queue(ring.path, queue.clock.clock, ring.capacity, **options)


def waiting(queue: Queue, cursor: Cursor) -> dict[int, bytes]:
    """Every record that a target would get now, by offset; in memory only."""
    queue.seal()
    found: dict[int, bytes] = {}
    claimed = IntervalSet()
    while (taken := queue.take(cursor, claimed, 1000, "fifo", 0)) is not None:
        mine = IntervalSet(taken.runs)
        claimed.add(taken.start, taken.stop)
        for piece in taken.pieces:
            frames = piece.frames or list(scan(memoryview(piece.data), 0, len(piece.data), piece.origin))
            for item in frames:
                if item.offset + piece.shift in mine:
                    found[item.offset + piece.shift] = piece.data[item.start : item.stop]
    return found
