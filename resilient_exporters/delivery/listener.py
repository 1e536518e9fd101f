"""Listeners: told of what happens, by calls that do nothing unless overridden."""

from __future__ import annotations

import logging
from collections.abc import Iterable

__all__ = ["Listener", "Listeners"]

log = logging.getLogger("resilient_exporters")


class Listener:
    """Override what interests you. Calls come from delivery threads: be quick, and do not call the exporter.

    What a listener raises is logged and goes no further.
    """

    def state_changed(self, target: str, state: str, reason: str) -> None:
        """A target's breaker is now "closed", "open" or "held". Once for each change, and for each new reason to hold.

        The probes in between ("half-open" in ``stats``) are not told.
        """

    def delivered(self, target: str, records: int, seconds: float) -> None:
        """A batch was delivered; ``seconds`` is what the attempt took."""

    def dropped(self, target: str | None, records: int, reason: str) -> None:
        """Records were dropped, by one target or (None) by all. ``reason`` as in the counters."""

    def dead_lettered(self, target: str, record_id: str, reason: str) -> None:
        """A target refused a record for good, and its dead letter is on disk.

        With ``max_dead=0`` there is no letter: then ``dropped`` follows.
        """

    def disk_changed(self, trouble: str | None) -> None:
        """The queue's disk fails with ``trouble``, or (None) works again."""


class Listeners(Listener):
    """Many listeners as one."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._all = tuple(listeners)

    def __bool__(self) -> bool:
        return bool(self._all)

    def _tell(self, call: str, *args: object) -> None:
        for listener in self._all:
            try:
                getattr(listener, call)(*args)
            except Exception:
                log.exception("%s.%s failed", type(listener).__name__, call)

    def state_changed(self, target: str, state: str, reason: str) -> None:
        """Tell all of them."""
        self._tell("state_changed", target, state, reason)

    def delivered(self, target: str, records: int, seconds: float) -> None:
        """Tell all of them."""
        self._tell("delivered", target, records, seconds)

    def dropped(self, target: str | None, records: int, reason: str) -> None:
        """Tell all of them."""
        self._tell("dropped", target, records, reason)

    def dead_lettered(self, target: str, record_id: str, reason: str) -> None:
        """Tell all of them."""
        self._tell("dead_lettered", target, record_id, reason)

    def disk_changed(self, trouble: str | None) -> None:
        """Tell all of them."""
        self._tell("disk_changed", trouble)
