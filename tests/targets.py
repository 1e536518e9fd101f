"""Targets and a clock for tests: they do as they are told, and keep what they were given."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from resilient_exporters import Batch, Exporter, ExporterPool, Outcome, Stats
from resilient_exporters.delivery.clock import Bell, Clock

__all__ = ["PATIENCE", "SOON", "FakeClock", "Target", "balanced", "numbers", "until"]

PATIENCE = 60.0
"""Seconds after which a test gives up: nothing that works takes nearly as long, but a busy machine may stand still."""

SOON = 60.0
"""Seconds that are soon enough, where the mistake would be to wait for an hour or for ever."""


class Target(Exporter):
    """Takes what it is given, or does what ``answer`` says.

    Args:
        answer: None (take it), an exception to raise, an outcome or a list of outcomes to return, or a function of
            the batch that returns one of these.
        returned: whether every record is answered by its own id.
        **options: of ``Exporter``; ``retry`` is 0 unless given, so that a failed attempt is repeated at once.

    Attributes:
        taken: the data of the records that were delivered, in the order of delivery.
        ids: their ids.
        batches: every batch that it was given, as lists of data.
        seen: the batches themselves.
        connects, disconnects: how often it was asked to.
        gate: attempts wait for it; open unless a test closes it.
        inside: a permit for each attempt that has begun. Its answer is the one of then, or, where it waits at the gate,
            the one of when it is let through.
    """

    kind = "target"
    record_options = frozenset({"table", "urgent"})

    def __init__(self, answer: Any = None, **options: Any) -> None:
        options.setdefault("retry", 0)
        super().__init__(**options)
        self.answer: Any = answer
        self.taken: list[Any] = []
        self.ids: list[str] = []
        self.batches: list[list[Any]] = []
        self.seen: list[Batch] = []
        self.connects = 0
        self.disconnects = 0
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Semaphore(0)
        self.returned = False

    def connect(self) -> None:
        self.connects += 1

    def disconnect(self) -> None:
        self.disconnects += 1

    def export(self, batch: Batch) -> Outcome | Sequence[Outcome | None] | None:
        self.batches.append([record.data for record in batch])
        self.seen.append(batch)
        through, answer = self.gate.is_set(), self.answer
        self.inside.release()
        if not through:
            self.gate.wait()
            answer = self.answer
        if callable(answer):
            answer = answer(batch)
        if isinstance(answer, BaseException):
            raise answer
        answers = list(answer) if isinstance(answer, list) else [answer] * len(batch)
        for record, one in zip(batch, answers, strict=True):
            if one is None or type(one).__name__ == "Delivered":
                self.taken.append(record.data)
                self.ids.append(record.id)
        given: Outcome | Sequence[Outcome | None] | None = answer
        return given

    def entered(self) -> None:
        """Wait until one more attempt has begun."""
        assert self.inside.acquire(timeout=PATIENCE), "no attempt began"


class FakeClock(Clock):
    """A clock that stands still until it is told to go on. ``advance`` wakes whoever waits for that time."""

    def __init__(self, now: float = 1000.0, time: float = 1.7e9, boot: str = "first") -> None:
        self._now = now
        self._time = time
        self._boot = boot
        self._lock = threading.Lock()
        self._read: dict[int, float] = {}  # what each thread reckons with: a wait counts from there
        self._waiting: dict[Bell, float] = {}
        self._late: set[Bell] = set()

    def now(self) -> float:
        now = self._read[threading.get_ident()] = self._now
        return now

    def time(self) -> float:
        return self._time

    def boot(self) -> str:
        return self._boot

    def advance(self, seconds: float) -> None:
        """Let time pass, by both clocks."""
        with self._lock:
            self._now += seconds
            self._time += seconds
            for bell, deadline in list(self._waiting.items()):
                if self._now >= deadline:
                    self._late.add(bell)
                    bell.ring()

    def step(self, seconds: float) -> None:
        """Set the wall clock, as NTP does."""
        self._time += seconds

    def wait(self, bell: Bell, seconds: float | None) -> bool:
        with self._lock:
            if seconds is not None:
                deadline = self._read.get(threading.get_ident(), self._now) + seconds
                if self._now >= deadline:
                    return bell.wait(0)
                self._waiting[bell] = deadline
        rung = bell.wait()
        with self._lock:
            self._waiting.pop(bell, None)
            if bell in self._late:
                self._late.discard(bell)
                return False
        return rung


def until(exporter: Exporter, condition: Callable[[Stats], bool]) -> None:
    """Wait until the exporter's figures are as ``condition`` says: it looks after each attempt and each drop."""
    engine = exporter._open()
    bell = Bell()
    engine.watch(bell.ring)
    deadline = time.monotonic() + PATIENCE
    try:
        while not condition(exporter.stats()):
            assert bell.wait(deadline - time.monotonic()), f"it never was so: {exporter.stats()}"
    finally:
        engine.unwatch(bell.ring)


def numbers(count: int, start: int = 0) -> list[dict[str, int]]:
    """Records that say their place."""
    return [{"n": n} for n in range(start, start + count)]


def balanced(exporter: Exporter | ExporterPool) -> Stats:
    """The exporter's figures, once law 1 is checked on them: accepted = delivered + dropped + dead + pending."""
    stats = exporter.stats()
    for name, target in stats.targets.items():
        settled = target.delivered + sum(target.dropped.values()) + target.dead
        assert target.accepted == settled + target.pending, f"{name}: {target}"
        assert min(target.accepted, target.delivered, target.dead, target.pending, *target.dropped.values()) >= 0, name
    return stats
