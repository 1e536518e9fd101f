"""What became of recent records: for receipts that are looked at after the fact."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

__all__ = ["History", "Verdict"]

_BATCHES = 64
_ODD = 10_000


class Verdict(NamedTuple):
    """How a record ended at one target."""

    returned: Any
    successful: bool
    reason: str


class History:
    """The last batches' return values, and the last ranges that did not end in delivery.

    What is not in it was delivered, as far back as it reaches: ``horizon`` is the offset below which it does not.
    """

    __slots__ = ("_odd", "_returned", "horizon")

    def __init__(self) -> None:
        self._returned: deque[tuple[int, list[Any]]] = deque(maxlen=_BATCHES)
        self._odd: deque[tuple[int, int, str]] = deque()
        self.horizon = 0

    def returned(self, start: int, values: list[Any]) -> None:
        """Return values of consecutive records."""
        self._returned.append((start, values))

    def odd(self, start: int, stop: int, reason: str) -> None:
        """Records that were dropped or refused."""
        if self._odd and self._odd[-1][1] == start and self._odd[-1][2] == reason:
            self._odd[-1] = (self._odd[-1][0], stop, reason)
            return
        self._odd.append((start, stop, reason))
        if len(self._odd) > _ODD:
            self.horizon = max(self.horizon, self._odd.popleft()[1])

    def verdict(self, offset: int) -> Verdict:
        """How a settled record ended."""
        for start, stop, reason in reversed(self._odd):
            if start <= offset < stop:
                return Verdict(None, False, reason)
        for start, values in reversed(self._returned):
            if start <= offset < start + len(values):
                return Verdict(values[offset - start], True, "")
        return Verdict(None, True, "")
