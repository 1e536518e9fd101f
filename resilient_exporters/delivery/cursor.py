"""Cursors: where one target stands in the queue, and what became of its records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from resilient_exporters.delivery.interval import IntervalSet

__all__ = ["DEAD", "DELIVERED", "EXCLUDED", "Cursor", "CursorState"]

DELIVERED = "delivered"
DEAD = "dead"
EXCLUDED = "excluded"
"""Never this target's: accepted while it was away, or meant for another one."""


class CursorState(msgspec.Struct, array_like=True):
    """A cursor as it is kept. Where there is no place for all ranges, ``vague`` stands for the last of them."""

    identity: str
    joined: int
    floor: int
    excluded: int
    dead: int
    retries: int
    dropped: dict[str, int]
    ranges: list[tuple[int, int]]
    left: int | None = None
    vague: tuple[int, int, int] | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(CursorState).decode


class Cursor:
    """Which offsets a target has settled, and how. Everything below ``floor`` is; above it, ``ranges`` are.

    Conservation: accepted = delivered + dropped + dead + pending, where ``accepted`` follows from the offsets alone
    and ``pending`` is what the ranges leave open.

    Args:
        identity: the target's, stable across restarts.
        joined: the first offset that is its business.

    Attributes:
        left: the offset at which the target was found gone, or None while it is present.
        vague: start, stop and number: so many offsets of this range are settled, but it is not known which, because
            there was no place to keep them all. None: all is known. ``recall`` finds most of them again.
    """

    __slots__ = (
        "_anew", "dead", "delivered", "dirty", "dropped", "excluded", "floor", "identity", "joined", "left", "ranges",
        "retries", "vague",
    )  # fmt: skip

    def __init__(self, identity: str, joined: int) -> None:
        self.identity = identity
        self.joined = joined
        self.floor = joined
        self.ranges = IntervalSet()
        self.excluded = 0
        self.delivered = 0
        self.dead = 0
        self.retries = 0
        self.dropped: dict[str, int] = {}
        self.left: int | None = None
        self.vague: tuple[int, int, int] | None = None
        self.dirty = True
        self._anew = 0  # accepted a second time by ``restore``

    # -- settling ----------------------------------------------------------------------------------------------

    def settle(self, start: int, stop: int, how: str) -> int:
        """Count the open offsets of ``[start, stop)`` as ``how`` and return their number.

        Args:
            start, stop: may reach below the floor, and behind where the target left: that counts for nothing.
            how: DELIVERED, DEAD, EXCLUDED, or the reason of a drop.
        """
        start = max(start, self.floor)
        if self.left is not None:
            stop = min(stop, self.left)
        if start >= stop:
            return 0
        opened = sum(b - a for a, b in self.ranges.gaps(start, stop)) if self.ranges else stop - start
        if not opened:
            return 0
        self._count(how, opened)
        if start == self.floor:
            self.floor = stop
            if self.ranges:
                self._raise_floor()
        else:
            self.ranges.add(start, stop)
        self.dirty = True
        return opened

    def refuse(self, reason: str) -> None:
        """Count a record that was turned away at the door: accepted and dropped, without an offset."""
        self.excluded -= 1
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        self.dirty = True

    def move_dead(self, number: int, how: str) -> None:
        """Count dead letters anew: ``EXCLUDED`` for those that were replayed, else the reason of a drop."""
        self.dead -= number
        self._count(how, number)
        self.dirty = True

    def merge(self, kept: Cursor, following: int) -> None:
        """Put the history that was found late (up to ``following``) in front of what happened since ``joined``."""
        if kept.left is not None:
            left, kept.left = kept.left, None
            kept.settle(left, following, EXCLUDED)
        ranges = IntervalSet(kept.ranges)
        ranges.add(following, self.joined)
        self.excluded += kept.excluded + self.joined - following
        ranges.add(self.joined, self.floor)
        for start, stop in self.ranges:
            ranges.add(start, stop)
        self.joined, self.floor, self.ranges = kept.joined, kept.floor, ranges
        self._raise_floor()
        self.vague = kept.vague
        self._add(kept)

    def follow(self, kept: Cursor, following: int) -> None:
        """Go on behind a history that was found late and reaches to ``following``; what is open here is queued anew."""
        if kept.left is not None:
            left, kept.left = kept.left, None
            kept.settle(left, following, EXCLUDED)
        self.excluded = kept.excluded - self.delivered - self.dead - sum(self.dropped.values())
        self.joined, self.floor, self.ranges, self.vague = kept.joined, kept.floor, kept.ranges, kept.vague
        self._add(kept)

    def _add(self, kept: Cursor) -> None:
        self.delivered += kept.delivered
        self.dead += kept.dead
        self.retries += kept.retries
        for reason, number in kept.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + number
        self.dirty = True

    def recall(self, gone: Iterable[tuple[int, int]]) -> None:
        """Settle what is ``vague``: whatever is nowhere any more was let go because everyone had settled it.

        Only as many as are known to have been settled: what is gone beside them was lost, and is not hidden here.

        Args:
            gone: ranges of offsets that lie neither in memory nor on disk, in order.
        """
        if self.vague is None:
            return
        (low, high, left), self.vague = self.vague, None
        for start, stop in gone:
            for first, end in list(self.open(max(start, low), min(stop, high))):
                number = self.settle(first, min(end, first + left), DELIVERED)
                again = min(number, self._anew)  # how these ended is counted already
                self.delivered -= again
                self.excluded += again
                self._anew -= again
                left -= number

    def _count(self, how: str, number: int) -> None:
        if how == DELIVERED:
            self.delivered += number
        elif how == DEAD:
            self.dead += number
        elif how == EXCLUDED:
            self.excluded += number
        else:
            self.dropped[how] = self.dropped.get(how, 0) + number

    def _raise_floor(self) -> None:
        first = next(iter(self.ranges), None)
        while first is not None and first[0] <= self.floor:
            self.floor = max(self.floor, first[1])
            self.ranges.remove(*first)
            first = next(iter(self.ranges), None)

    def settled(self, start: int, stop: int) -> bool:
        """Whether nothing of ``[start, stop)`` is open."""
        if self.left is not None:
            stop = min(stop, self.left)
        start = max(start, self.floor)
        return start >= stop or self.ranges.covers(start, stop)

    @property
    def reach(self) -> int:
        """The offset after the last one that it knows of: no other record may get one below."""
        return max(self.floor, self.joined, self.left or 0, *(stop for _, stop in self.ranges))

    def open(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The open ranges of ``[start, stop)``."""
        return self.ranges.gaps(max(start, self.floor), stop)

    # -- counting ----------------------------------------------------------------------------------------------

    def accepted(self, following: int) -> int:
        """Records that were this target's business, of all up to the offset ``following``."""
        return (following if self.left is None else self.left) - self.joined - self.excluded

    def pending(self, following: int) -> int:
        """Records that are still open: counted from the offsets, not from the other counters."""
        end = following if self.left is None else self.left
        return max(0, end - self.floor - self.ranges.total) if self.ranges else max(0, end - self.floor)

    # -- keeping -----------------------------------------------------------------------------------------------

    def state(self, most: int | None = None) -> bytes:
        """What is kept of it; with ``most`` only that many ranges, the lowest."""
        ranges, vague = list(self.ranges), self.vague
        if most is not None and len(ranges) > most:
            low, high, number = vague or (ranges[most][0], 0, 0)
            number += sum(stop - start for start, stop in ranges[most:])
            vague = min(low, ranges[most][0]), max(high, ranges[-1][1]), number
            ranges = ranges[:most]
        return _encode(
            CursorState(
                self.identity, self.joined, self.floor, self.excluded, self.dead, self.retries, self.dropped, ranges,
                self.left, vague,
            )
        )  # fmt: skip

    @classmethod
    def restore(cls, kept: bytes) -> Cursor:
        """The cursor of an earlier process.

        Raises:
            msgspec.MsgspecError, UnicodeDecodeError: if these are not the bytes of a cursor.
        """
        state = _decode(kept)
        cursor = cls(state.identity, state.joined)
        cursor.floor = state.floor
        cursor.excluded = state.excluded
        cursor.dead = state.dead
        cursor.retries = state.retries
        cursor.dropped = state.dropped
        cursor.ranges = IntervalSet(state.ranges)
        cursor.left = state.left
        cursor.vague = state.vague
        # Delivered follows from what is settled, so that the counters add up whatever part of a state was kept.
        settled = cursor.floor - cursor.joined + cursor.ranges.total - cursor.excluded
        cursor.delivered = settled - cursor.dead - sum(cursor.dropped.values())
        if cursor.delivered < 0:
            # Some that were counted are open again, for want of their ranges: they are accepted anew.
            cursor.excluded += cursor.delivered
            cursor._anew, cursor.delivered = -cursor.delivered, 0
        return cursor
