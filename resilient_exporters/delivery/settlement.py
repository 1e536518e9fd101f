"""What becomes of a target's records: delivered, dropped, dead letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from resilient_exporters.delivery.attempt import Attempt, Decoded, Unclear, raw_records
from resilient_exporters.delivery.cursor import DEAD, DELIVERED, EXCLUDED, Cursor
from resilient_exporters.delivery.deadletters import Letter
from resilient_exporters.delivery.history import History
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.listener import Listener
from resilient_exporters.delivery.outcome import Delivered, Full, Hold, Record, Reject, Retry, Split
from resilient_exporters.delivery.queue import Queue

__all__ = ["Settlement", "ranges_of"]


class Settlement:
    """Books a target's answers. Called under the queue's lock.

    Args:
        cursor: where the target stands.
        queue: the queue.
        listener: told of drops and dead letters.
        bury: keeps dead letters, then calls back; told which of them are superfluous.

    Attributes:
        claimed: offsets in flight, or on their way to be dead letters.
        doubtful: offsets that the target may have been given before.
        history: how recent records ended.
    """

    def __init__(
        self,
        cursor: Cursor,
        queue: Queue,
        listener: Listener,
        bury: Callable[[list[Letter], Callable[[], list[int]]], None],
    ) -> None:
        self.cursor = cursor
        self.claimed = IntervalSet()
        self.history = History()
        # All that was accepted before this start may have been given to the target before.
        self.doubtful = IntervalSet([(0, queue.following)])
        self._queue = queue
        self._listener = listener
        self._bury = bury

    def is_doubtful(self, start: int, stop: int) -> bool:
        """Whether some of a range may have been given to the target before."""
        return sum(b - a for a, b in self.doubtful.gaps(start, stop)) < stop - start

    def put_aside(self, decoded: Decoded, attempt: Attempt) -> None:
        """Settle what never got to the target: another one's records, broken ones, those its transform refused."""
        for offset in decoded.strange:
            self.settle(offset, offset + 1, EXCLUDED)
        for offset in decoded.broken:
            self.drop(offset, offset + 1, "corrupt")
        if decoded.refused:
            self.refuse(decoded.refused, attempt)

    def deliver(self, offsets: Sequence[int], returned: list[Any] | None) -> None:
        """The target has these records."""
        if not offsets:
            return
        start, stop = offsets[0], offsets[-1] + 1
        if returned is not None:
            if stop - start == len(offsets):
                self.history.returned(start, returned)
            else:
                for offset, value in zip(offsets, returned, strict=True):
                    self.history.returned(offset, [value])
        for first, end in ranges_of(offsets):
            self.settle(first, end, DELIVERED)

    def settle(self, start: int, stop: int, how: str) -> int:
        """A range is settled, in one of the ways of ``Cursor.settle``. Returns how many of it were open."""
        number = self._queue.settle(self.cursor, start, stop, how)
        if self.doubtful:
            self.doubtful.remove(start, stop)
        return number

    def drop(self, start: int, stop: int, reason: str) -> None:
        """This target does without a range."""
        self.history.odd(start, stop, reason)
        self.settle(start, stop, reason)
        self._listener.dropped(self.cursor.identity, stop - start, reason)

    def settle_each(self, decoded: Decoded | None, answers: list[Any], attempt: Attempt) -> Any:
        """Settle record by record. Returns the answer that stands for those that are not settled, if any."""
        assert decoded is not None  # noqa: S101 - a list of answers comes from a decoded batch
        delivered: list[int] = []
        returned: list[Any] = []
        refused: list[tuple[int, Record, str]] = []
        failure: Any = None
        for offset, record, answer in zip(decoded.offsets, decoded.records, answers, strict=True):
            if isinstance(answer, Delivered):
                delivered.append(offset)
                returned.append(answer.returned)
            elif isinstance(answer, Reject):
                refused.append((offset, record, answer.reason))
            elif isinstance(answer, Full):
                self.drop(offset, offset + 1, "full")
            elif failure is None or _weight(answer) > _weight(failure):
                failure = answer
        self.deliver(delivered, returned if any(value is not None for value in returned) else None)
        if refused:
            self.refuse(refused, attempt)
        return failure

    def refuse(self, refused: list[tuple[int, Record, str]], attempt: Attempt) -> None:
        """Make dead letters. The records stay claimed until the letters are on disk."""
        refused = [item for item in refused if not self.cursor.settled(item[0], item[0] + 1)]
        if not refused:
            return
        raw = raw_records(attempt.taken)
        wall = self._queue.clock.clock.time()
        letters = [
            Letter(
                bytes.fromhex(record.run),
                record.offset,
                self.cursor.identity,
                reason,
                attempt.number,
                wall,
                *raw[offset],
            )
            for offset, record, reason in refused
        ]
        for offset, _, _ in refused:
            self.claimed.add(offset, offset + 1)

        def kept() -> list[int]:
            superfluous = []
            for at, (offset, record, reason) in enumerate(refused):
                self.claimed.remove(offset, offset + 1)
                if self.settle(offset, offset + 1, DEAD):
                    self.history.odd(offset, offset + 1, reason)
                    self._listener.dead_lettered(self.cursor.identity, record.id, reason)
                else:
                    superfluous.append(at)  # it was dropped meanwhile, and is counted so
            return superfluous

        self._bury(letters, kept)


def ranges_of(offsets: Sequence[int]) -> list[tuple[int, int]]:
    """Sorted offsets as half-open ranges."""
    if isinstance(offsets, range) or (offsets and offsets[-1] - offsets[0] + 1 == len(offsets)):
        return [(offsets[0], offsets[-1] + 1)] if offsets else []
    found: list[tuple[int, int]] = []
    for offset in offsets:
        if found and found[-1][1] == offset:
            found[-1] = (found[-1][0], offset + 1)
        else:
            found.append((offset, offset + 1))
    return found


def _weight(answer: object) -> int:
    return (Split, Unclear, Retry, Hold).index(type(answer))
