"""How fast a target is given batches."""

from __future__ import annotations

import math

from resilient_exporters.errors import InvalidConfigError

__all__ = ["Concurrency", "Rate"]

_MOST = 8
_NOISE = 0.25  # seconds below which a slower attempt says nothing
_SLOWER = 2.0  # an attempt this many times slower than usual means that the target is pressed
_GAIN = 1.05  # one more batch in flight must bring this much
_LOOK = 10  # attempts that tell what a level brings: a machine that does other things, too, disturbs some of them
_LONG = 0.2  # seconds of looking after which fewer tell enough
_HOLD = 32, 256  # full batches until one more is tried again where it brought nothing: at first, and at most


class Concurrency:
    """Batches in flight: fixed, or grown while that makes the target take more, and halved when it fails.

    "auto" is additive increase, multiplicative decrease: one more batch after a round of full batches to get there and
    one to look at, half as many after a failure or when attempts take twice as long as they used to. Where one more in
    flight only makes each take longer (a server that writes one at a time), it goes back by one, and tries again later,
    one fewer as well: soon at first, since a look may have been disturbed, then ever more seldom.

    Args:
        given: a number, or "auto".
    """

    __slots__ = (
        "_auto", "_barren", "_checked", "_hold", "_level", "_look", "_patience", "_seen", "_times", "_trying", "_usual",
    )  # fmt: skip

    def __init__(self, given: int | str) -> None:
        if given != "auto" and (not isinstance(given, int) or isinstance(given, bool) or given < 1):
            raise InvalidConfigError(None, f'concurrency={given!r}: give a number from 1 on, or "auto"')
        self._auto = given == "auto"
        self._level = 1.0 if isinstance(given, str) else float(given)
        self._usual = 0.0
        self._times: dict[int, float] = {}
        self._look: list[float] = []
        self._seen = 0
        self._trying = False
        self._barren = 0
        self._checked = False
        self._hold, self._patience = 0, _HOLD[0]

    @property
    def level(self) -> int:
        """Batches that may be in flight now."""
        return int(self._level)

    def note(self, seconds: float, *, full: bool, failed: bool, most: float = math.inf) -> None:
        """An attempt has ended.

        Args:
            seconds: how long it took.
            full: the batch was large enough to say that there is a backlog.
            failed: the target did not take it.
            most: seconds that one should not take longer than, by far: where one more in flight might bring that, as
                on a link that is full, there is none.
        """
        if not self._auto:
            return
        before = self.level
        slow = full and self._usual > 0 and seconds > max(_NOISE, _SLOWER * self._usual * max(1.0, self._level))
        if failed or slow:
            self._level = max(1.0, self._level / 2)
        elif full:
            self._grow(before, seconds, most)
        else:
            self._level = max(1.0, self._level - 1 / self._level)
        if full and not failed:
            self._usual = seconds if not self._usual else min(seconds, 0.9 * self._usual + 0.1 * seconds)
        if self.level != before:
            self._seen = 0
            self._look = []
            self._trying = self.level > before

    def _grow(self, level: int, seconds: float, most: float) -> None:
        self._seen += 1
        self._hold = max(0, self._hold - 1)
        if self._seen <= level:
            return  # those that were in flight when the level changed say nothing of it
        look = self._look
        look.append(seconds)
        if len(look) <= level or (len(look) < _LOOK and sum(look) < _LONG * level):
            return
        self._times[level] = _typical(look)
        look.clear()
        if self._trying and not self._gains(level):
            self._level, self._barren, self._checked = level - 1.0, level, False
            self._hold, self._patience = self._patience, min(2 * self._patience, _HOLD[1])
            return
        if self._trying and level >= self._barren:
            self._barren, self._patience = 0, _HOLD[0]
        self._trying = False
        if self._hold:
            return
        if 1 < level < self._barren and not self._checked:
            self._level, self._checked = level - 1.0, True  # what this level brings may have been an accident, too
        elif seconds * (level + 1) <= most * level:
            self._level = min(float(_MOST), level + 1.0)

    def _gains(self, level: int) -> bool:
        """Whether so many in flight bring more than one less did."""
        fewer = self._times.get(level - 1)
        return fewer is None or level * fewer > _GAIN * (level - 1) * self._times[level]


def _typical(look: list[float]) -> float:
    """Their mean, without the slowest quarter: those may be accidents."""
    usual = sorted(look)[: len(look) - len(look) // 4]
    return sum(usual) / len(usual)


class Rate:
    """An upper limit on deliveries: so many records, or bytes, a second.

    Args:
        amount: per second.
        unit: "records" or "bytes" (of encoded records).
    """

    __slots__ = ("_amount", "_next", "_unit")

    def __init__(self, amount: float, unit: str) -> None:
        self._amount = amount
        self._unit = unit
        self._next = 0.0

    def ready_at(self, now: float) -> float:
        """When the next batch may be sent."""
        return max(now, self._next)

    def spend(self, now: float, records: int, size: int) -> None:
        """A batch is being sent."""
        self._next = max(now, self._next) + (records if self._unit == "records" else size) / self._amount
