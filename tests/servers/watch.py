"""Who waits for what happens to a target."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from resilient_exporters import Listener
from resilient_exporters.delivery.breaker import CLOSED, HELD

PATIENCE = 60.0
"""Seconds after which a test gives up."""


class Watch(Listener):
    """Waits for what happens to a target, and keeps it.

    Attributes:
        states, reasons: of its breaker, in the order of the changes.
        settled: records that were delivered or refused.
        dead: why records were refused.
        last: when the last of them was settled, by the monotonic clock.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._changed = threading.Condition()
        self._patience = patience
        self.states: list[str] = []
        self.reasons: list[str] = []
        self.settled = 0
        self.dead: list[str] = []
        self.last = 0.0

    def state_changed(self, target: str, state: str, reason: str) -> None:
        with self._changed:
            self.states.append(state)
            self.reasons.append(reason)
            self._changed.notify_all()

    def delivered(self, target: str, records: int, seconds: float) -> None:
        with self._changed:
            self.settled += records
            self.last = time.monotonic()
            self._changed.notify_all()

    def dead_lettered(self, target: str, record_id: str, reason: str) -> None:
        with self._changed:
            self.settled += 1
            self.dead.append(reason)
            self.last = time.monotonic()
            self._changed.notify_all()

    @property
    def troubles(self) -> int:
        """How often an outage began."""
        return sum(state != CLOSED for state in self.states)

    def wait(self, condition: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, self._patience), (
                self.settled, self.states[-5:], self.reasons[-5:], self.dead[-5:],
            )  # fmt: skip

    def wait_for(self, records: int) -> float:
        """Wait until so many are settled. Returns when, by the monotonic clock."""
        self.wait(lambda: self.settled >= records)
        return self.last

    def wait_for_trouble(self, before: int = 0) -> None:
        """Wait for one more than there were ``before``."""
        self.wait(lambda: self.troubles > before)

    def wait_until_held(self) -> str:
        """Wait until someone has to mend something. Returns what the target said."""
        self.wait(lambda: HELD in self.states)
        return self.reasons[self.states.index(HELD)]
