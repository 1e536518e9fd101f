"""How far a run is: a line that moves on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, Final

from resilient_exporters.pipeline.readers.base import BaseReader

__all__ = ["Progress"]

_EVERY: Final = 60.0


class Progress:
    """Says how far a run is, with its rate, and how long it will take where the reader knows how much there is.

    Args:
        log: where to, if there is no terminal.
        reader: that is asked for its share.
        terminal: show a moving line on stderr; None: if that is a terminal, and rich is installed.
        every: seconds between two log lines.
    """

    def __init__(
        self, log: logging.Logger, reader: BaseReader, *, terminal: bool | None = None, every: float = _EVERY
    ) -> None:
        self._log = log
        self._reader = reader
        self._every = every
        self._begun = self._last = time.monotonic()
        self._first: float | None = None
        self._line = _line() if (_is_terminal() if terminal is None else terminal) else None

    def update(self, read: int, written: int) -> None:
        """After each batch: records read in this run, and written over all runs of the job."""
        now = time.monotonic()
        share = self._reader.share_done()
        if self._first is None:
            self._first = share or 0.0
        text = f"{read:,} records read, {written:,} written, {read / max(now - self._begun, 1e-6):,.0f}/s"
        text += self._left(share, now)
        if self._line is not None:
            self._line.update(text)
        elif now - self._last >= self._every:
            self._last = now
            self._log.info("EXPORTMANAGER: %s", text)

    def _left(self, share: float | None, now: float) -> str:
        if share is None:
            return ""
        done = share - (self._first or 0.0)
        if done <= 0 or share >= 1:
            return f", {share:.0%}"
        return f", {share:.0%}, {_duration((now - self._begun) * (1 - share) / done)} to go"

    def close(self, read: int, written: int) -> None:
        """The run has ended."""
        if self._line is not None:
            self._line.stop()
        seconds = time.monotonic() - self._begun
        self._log.info(
            "EXPORTMANAGER: %d records read, %d written in %s, %.0f/s",
            read, written, _duration(seconds), read / max(seconds, 1e-6),
        )  # fmt: skip


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _line() -> Any:
    try:
        from rich.console import Console
    except ModuleNotFoundError:  # the extra cli; log lines will do
        return None
    status = Console(stderr=True).status("reading …")
    status.start()
    return status


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
