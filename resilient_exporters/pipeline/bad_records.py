"""What becomes of records that cannot be read, filtered, changed or written."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from typing import Any

import msgspec

from resilient_exporters.pipeline.errors import BadRecordError

__all__ = ["CHOICES", "BadRecord", "BadRecords"]

CHOICES = ("fail", "skip", "dead")
_SHOWN = 200
_LOGGED = 3
log = logging.getLogger("export-pipeline")


class BadRecord(msgspec.Struct, frozen=True):
    """A record that was put aside.

    Attributes:
        data: the record, or the text or bytes that should have been one.
        reason: what is wrong with it.
        where: file and line, topic and offset, or whatever the reader knows of it.
        part: which part of the pipeline refused it.
    """

    data: Any
    reason: str
    where: str
    part: str


class BadRecords:
    """Decides by ``on_bad_record``, counts, and keeps those put aside until the next commit.

    Args:
        choice: "fail" ends the run with a clear error, and nothing of the batch is committed; "skip" counts and goes
            on; "dead" keeps the record with the job's state, too (``rexport jobs show``).

    Attributes:
        count: how many there were, by part.
    """

    def __init__(self, choice: str = "fail") -> None:
        self.choice = choice
        self.count: dict[str, int] = {}
        self._kept: list[BadRecord] = []
        self._lock = threading.Lock()

    def add(self, data: Any, error: object, *, part: str, where: str = "") -> None:
        """Say that a record cannot be used; returns if the run goes on without it.

        Raises:
            BadRecordError: ``on_bad_record`` is "fail".
        """
        reason = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error)
        if self.choice == "fail":
            place = f" at {where}" if where else ""
            raise BadRecordError(
                None,
                f"{part}: a bad record{place}: {reason}: {_shown(data)}. "
                'on_bad_record="skip" goes on without such records, "dead" keeps them, too',
            ) from (error if isinstance(error, BaseException) else None)
        with self._lock:
            number = self.count[part] = self.count.get(part, 0) + 1
            if self.choice == "dead":
                self._kept.append(BadRecord(data, reason, where, part))
        if number <= _LOGGED:
            last = ", more are only counted" if number == _LOGGED else ""
            log.warning("%s: a bad record left out (%s) %s%s", part, reason, where, last)

    def drain(self, *, of: Collection[str] | None = None, but: Collection[str] = ()) -> list[BadRecord]:
        """Those put aside since the last call.

        Args:
            of: of these parts only; None: of all.
            but: not of these.
        """
        with self._lock:
            taken: list[BadRecord] = []
            left: list[BadRecord] = []
            for one in self._kept:
                (taken if (of is None or one.part in of) and one.part not in but else left).append(one)
            self._kept = left
        return taken


def _shown(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
