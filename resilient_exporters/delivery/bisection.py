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

_COMFORT = 2 / 3
"""What a batch may take of its time, by what smaller ones took: then there is room for a bad minute."""

_PATIENCE, _MOST_PATIENT = 4, 64
"""So many batches that took more than that pass before a larger one is tried all the same, at first and at most."""


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

    A batch that took too long is halved as well. On a narrow link the size then grows to what takes two thirds of the
    time. That more records take more time is a guess, wrong where each call has its price: so a larger one is tried
    now and then, and the more seldom the more often it failed.

    Args:
        most: records of a full batch.

    Attributes:
        suspect: the record that is passed over just now.
    """

    __slots__ = (
        "_alone", "_delivered", "_full", "_good", "_hold", "_largest", "_most", "_passed", "_patience", "_range",
        "suspect",
    )  # fmt: skip

    def __init__(self, most: int) -> None:
        self._full = most
        self._most = self._largest = most
        self._good = 0
        self._hold = _PATIENCE
        self._patience = _PATIENCE
        self._passed = False
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

    def taken(self, records: int, share: float) -> None:
        """A batch of so many was answered: the next may be twice as large, up to the full size.

        Args:
            records: of the batch.
            share: of the time that it had, how much it took.
        """
        self._good += 1
        if self._good >= _FORGET:
            self._largest = self._full
        self._passed = True
        more = records * 2
        if share <= _COMFORT / 2:
            self._hold = self._patience = _PATIENCE
        elif share < _COMFORT:
            more = max(records + 1, int(records * _COMFORT / share))
        elif self._hold:
            self._hold -= 1
            return
        else:
            self._hold = self._patience
        self._most = min(self._largest, max(self._most, more))

    def too_large(self, records: int) -> None:
        """A batch of so many was too large: stay below it, and try again only after many batches."""
        self._largest = max(1, records - 1)
        self._good = 0
        self.shrink(records)

    def found(self) -> None:
        """It was one record: what was too large because of it says nothing about the others."""
        self._largest = self._full

    def shrink(self, records: int, *, slow: bool = False) -> None:
        """A batch of so many failed with the target: the next has half of them.

        Args:
            records: of the batch.
            slow: it was not refused, it took too long. If a smaller one had passed, it is the size rather than an
                outage.
        """
        self._most = max(1, min(self._most, records) // 2)
        if slow:
            self._patience = min(_MOST_PATIENT, self._patience * (2 if self._passed else 1))
            self._hold, self._passed = self._patience, False

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
