"""Sets of offsets, kept as ranges."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

__all__ = ["IntervalSet"]


class IntervalSet:
    """A set of integers as sorted, disjoint half-open ranges. Made for few, long ranges."""

    __slots__ = ("_starts", "_stops")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in ranges:
            self.add(start, stop)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._stops, strict=True)))

    @property
    def total(self) -> int:
        """How many integers it holds.

        Not ``len``: that may not pass 2**31 on small machines, and ``list`` makes room for as many.
        """
        return sum(self._stops) - sum(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __contains__(self, value: int) -> bool:
        at = bisect_right(self._starts, value) - 1
        return at >= 0 and value < self._stops[at]

    def add(self, start: int, stop: int) -> None:
        """Put a range in, joining what it touches."""
        if start >= stop:
            return
        low = bisect_left(self._stops, start)
        high = bisect_right(self._starts, stop)
        if low < high:
            start = min(start, self._starts[low])
            stop = max(stop, self._stops[high - 1])
        self._starts[low:high] = [start]
        self._stops[low:high] = [stop]

    def remove(self, start: int, stop: int) -> None:
        """Take a range out."""
        low = bisect_right(self._stops, start)
        high = bisect_left(self._starts, stop)
        if start >= stop or low >= high:
            return
        pieces = [(a, b) for a, b in ((self._starts[low], start), (stop, self._stops[high - 1])) if a < b]
        self._starts[low:high] = [a for a, _ in pieces]
        self._stops[low:high] = [b for _, b in pieces]

    def gaps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The ranges of ``[start, stop)`` that are not in the set, in order."""
        at = bisect_right(self._stops, start)
        while start < stop:
            edge = self._starts[at] if at < len(self._starts) else stop
            if start < edge:
                yield start, min(edge, stop)
            if at >= len(self._starts):
                return
            start = max(start, self._stops[at])
            at += 1

    def meets(self, start: int, stop: int) -> bool:
        """Whether something of ``[start, stop)`` is in the set."""
        at = bisect_right(self._stops, start)
        return start < stop and at < len(self._starts) and self._starts[at] < stop

    def covers(self, start: int, stop: int) -> bool:
        """Whether all of ``[start, stop)`` is in the set."""
        at = bisect_right(self._starts, start) - 1
        return start >= stop or (at >= 0 and stop <= self._stops[at])
