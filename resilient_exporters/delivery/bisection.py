"""How much is tried next, after an answer that says only that something is wrong."""

from __future__ import annotations

from typing import NamedTuple

from resilient_exporters.delivery.attempt import Attempt
from resilient_exporters.delivery.cursor import Cursor
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.outcome import Record

__all__ = ["ALONE", "Bisection", "Suspect"]

ALONE = 5
"""How often a record fails alone, with an unclear error, before another one is tried behind it."""


_FORGET = 1000
"""After how many batches a size that was too large is tried again."""


class Suspect(NamedTuple):
    """A record that failed alone often enough to ask whether it is the record or the target."""

    offset: int
    record: Record
    reason: str
    attempt: Attempt


class Bisection:
    """Batch size, and the search for what is wrong in a batch.

    A batch that failed for an unclear reason, or in which something was refused, is halved until the record stands
    alone: one call for each power of two. A record that fails alone ``ALONE`` times with an unclear error is passed
    over once; whether the target takes the record behind it proves which of the two is at fault.

    Args:
        most: records of a full batch.

    Attributes:
        suspect: the record that is passed over just now.
    """

    __slots__ = ("_alone", "_delivered", "_full", "_good", "_largest", "_most", "_range", "suspect")

    def __init__(self, most: int) -> None:
        self._full = most
        self._most = self._largest = most
        self._good = 0
        self._range: tuple[int, int] | None = None
        self._alone = (-1, 0)
        self._delivered = 0
        self.suspect: Suspect | None = None

    def limit(self, cursor: Cursor, claimed: IntervalSet) -> int:
        """How many records the next batch has at most. ``claimed`` are not to be tried again."""
        if self.suspect is not None:
            return 1
        if self._range is not None:
            gaps = (gap for start, stop in cursor.open(*self._range) for gap in claimed.gaps(start, stop))
            left = sum(stop - start for start, stop in gaps)
            if left:
                return max(1, min(self._most, (left + 1) // 2))
            self._range = None
        return self._most

    def failures_alone(self, offset: int) -> int:
        """How often a record failed alone in a row."""
        return self._alone[1] if self._alone[0] == offset else 0

    def taken(self) -> None:
        """A batch was answered: the next may be twice as large, up to the full size."""
        self._good += 1
        if self._good >= _FORGET:
            self._largest = self._full
        self._most = min(self._largest, self._most * 2)

    def too_large(self, records: int) -> None:
        """A batch of so many was too large: stay below it, and try again only after many batches."""
        self._largest = max(1, records - 1)
        self._good = 0
        self.shrink(records)

    def found(self) -> None:
        """It was one record: what was too large because of it says nothing about the others."""
        self._largest = self._full

    def shrink(self, records: int) -> None:
        """A batch of so many failed with the target: the next has half of them."""
        self._most = max(1, min(self._most, records) // 2)

    def search(self, start: int, stop: int, cursor: Cursor) -> None:
        """Something is wrong in this range: halve it."""
        if self._range is None:
            self._delivered = cursor.delivered
        self._range = (start, stop)

    def doubts(self, offset: int, cursor: Cursor) -> bool:
        """Whether it is the record rather than the target: it failed alone, and others of its batch were taken since.

        Not for ever: from ``ALONE`` on nothing proved it, and the target may have gone meanwhile.
        """
        others_taken = self._range is not None and cursor.delivered > self._delivered
        return others_taken and 0 < self.failures_alone(offset) < ALONE

    def failed_alone(self, offset: int) -> bool:
        """A record failed alone with an unclear error. Returns whether it is time to try the one behind it."""
        self._alone = (offset, self.failures_alone(offset) + 1)
        return self._alone[1] >= ALONE

    def proved(self) -> Suspect | None:
        """The record behind the suspect was tried. Returns the suspect, which is passed over no more."""
        suspect, self.suspect = self.suspect, None
        return suspect
