"""How far a run is: a log line now and then."""

from __future__ import annotations

import logging
import time

__all__ = ["Progress"]

_EVERY = 60.0


class Progress:
    """Says how far a run is.

    Args:
        log: where to.
        every: seconds between two lines.
    """

    def __init__(self, log: logging.Logger, every: float = _EVERY) -> None:
        self._log = log
        self._every = every
        self._begun = self._last = time.monotonic()

    def update(self, read: int, written: int) -> None:
        """After each batch: records read in this run, and written over all runs of the job."""
        now = time.monotonic()
        if now - self._last >= self._every:
            self._last = now
            rate = read / (now - self._begun)
            self._log.info("EXPORTMANAGER: %d records read, %d written, %.0f/s", read, written, rate)

    def close(self) -> None:
        """The run has ended."""
