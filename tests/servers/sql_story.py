"""What the tests of the SQL exporters share: who waits for a target, and a stream of rows through a bad link."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from resilient_exporters import DeadLetter, Exporter, Listener
from resilient_exporters.delivery.breaker import CLOSED, HELD
from tests.targets import balanced

PATIENCE = 60.0
"""Seconds after which a test gives up."""
SLOW_SEND = 0.25
"""Seconds that no ``send`` may take, whatever the link does; a starved test machine included."""


class Watch(Listener):
    """Waits for what happens to a target."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.states: list[str] = []
        self.reasons: list[str] = []
        self.settled = 0
        self.dead: list[str] = []

    def state_changed(self, target: str, state: str, reason: str) -> None:
        with self._changed:
            self.states.append(state)
            self.reasons.append(reason)
            self._changed.notify_all()

    def delivered(self, target: str, records: int, seconds: float) -> None:
        with self._changed:
            self.settled += records
            self._changed.notify_all()

    def dead_lettered(self, target: str, record_id: str, reason: str) -> None:
        with self._changed:
            self.settled += 1
            self.dead.append(reason)
            self._changed.notify_all()

    def wait(self, condition: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), (self.settled, self.states, self.reasons, self.dead)

    def wait_for(self, records: int) -> None:
        self.wait(lambda: self.settled >= records)

    def wait_for_trouble(self) -> None:
        self.wait(lambda: any(state != CLOSED for state in self.states))

    def wait_until_held(self) -> str:
        self.wait(lambda: HELD in self.states)
        return self.reasons[self.states.index(HELD)]


class Stream:
    """Rows with a column ``n`` that counts up, sent by one exporter.

    Args:
        make: makes the exporter, given options.
        rows: reads ``n`` of every row, in the order in which they were written.
        **options: of the exporter, instead of small ones.
    """

    def __init__(self, make: Callable[..., Exporter], rows: Callable[[], Sequence[int]], **options: Any) -> None:
        self.watch = Watch()
        given = {"timeout": 3.0, "retry": 0.2, "batch_records": 100, "listeners": [self.watch], **options}
        self.exporter = make(**given)
        self._rows = rows
        self.sent = 0
        self.longest = 0.0

    def send(self, count: int) -> None:
        for n in range(self.sent, self.sent + count):
            began = time.monotonic()
            self.exporter.send({"n": n, "text": "x" * 50})
            self.longest = max(self.longest, time.monotonic() - began)
        self.sent += count

    def all_arrive_once(self, *, in_order: bool = False) -> None:
        """Laws 1, 3, 6 and 8: all that was sent is there, each once, and no ``send`` took long."""
        self.watch.wait_for(self.sent)
        there = list(self._rows())
        assert (there if in_order else sorted(there)) == list(range(self.sent))
        figures = balanced(self.exporter).targets[self.exporter.name]
        assert (figures.delivered, figures.dead, figures.pending) == (self.sent, 0, 0)
        assert self.longest < SLOW_SEND

    def letters(self) -> list[DeadLetter]:
        """The dead letters, once they are on disk."""
        assert self.exporter.flush(PATIENCE).complete
        return list(self.exporter.dead_letters())
