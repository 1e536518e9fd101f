"""What happens to a machine in the field: made from a seed, in simulated seconds."""

from __future__ import annotations

import bisect
import random
from dataclasses import dataclass

__all__ = ["DAY", "HOUR", "Link", "Weather"]

HOUR, DAY = 3600.0, 86400.0


@dataclass
class Weather:
    """What happens to the machine, in seconds from the beginning; made from a seed.

    Attributes:
        outages: of the link to the cloud.
        dead: the plant's own server is gone.
        revoked: the cloud refuses the credentials.
        full: the disk is, for others have filled it.
        ends: moments at which the program ends: "killed", or "cut" (the ring goes too).
        bursts: moments of bursts.
    """

    days: float
    outages: list[tuple[float, float]]
    dead: tuple[float, float]
    revoked: tuple[float, float]
    full: list[tuple[float, float]]
    ends: list[tuple[float, str]]
    bursts: list[float]

    @classmethod
    def of(cls, days: float, seed: int) -> Weather:
        """The weather of so many days: a year has an outage of three weeks, and one of two months."""
        dice = random.Random(seed)
        length, outages, at = days * DAY, [], 0.0
        while at < length:
            month = int(at // (30 * DAY))
            share = random.Random(f"{seed} {month}").uniform(0.60, 0.95)
            # By night and at weekends the link is worse; outages last from seconds to half a day.
            hour, weekday = at % DAY / HOUR, at // DAY % 7
            worse = 2.0 if hour < 6 or weekday >= 5 else 1.0
            down = min(12 * HOUR, dice.lognormvariate(5.5, 1.8))
            at += dice.expovariate(worse / (1500.0 * share / (1 - share)))
            outages.append((at, at + down))
            at += down
        outages.append((0.30 * length, 0.30 * length + 21 / 365 * length))
        ends, at = [], 0.0
        while (at := at + dice.expovariate(1 / (2.5 * DAY))) < length:
            ends.append((at, dice.choice(("killed", "cut"))))
        bursts = sorted(dice.uniform(0, length) for _ in range(int(1.5 * days)))
        full = [(share * length, share * length + 0.5 * DAY) for share in (0.32, 0.7)]
        return cls(
            days, outages, (0.5 * length, 0.5 * length + 60 / 365 * length),
            (0.8 * length, 0.8 * length + 7 / 365 * length), full,
            [(at, how) for at, how in ends if not any(a <= at <= b + DAY for a, b in full)], bursts,
        )  # fmt: skip


class Link:
    """Whether a moment lies in one of many spans. Asked in the order of time."""

    def __init__(self, spans: list[tuple[float, float]]) -> None:
        self.spans: list[tuple[float, float]] = []
        for start, stop in sorted(spans):
            if self.spans and start <= self.spans[-1][1]:
                self.spans[-1] = (self.spans[-1][0], max(stop, self.spans[-1][1]))
            else:
                self.spans.append((start, stop))
        self._starts = [start for start, _ in self.spans]

    def holds(self, at: float) -> bool:
        """Whether it does now."""
        here = bisect.bisect_right(self._starts, at) - 1
        return here >= 0 and at < self.spans[here][1]

    def total(self, until: float) -> float:
        """Seconds of it."""
        return sum(min(stop, until) - start for start, stop in self.spans if start < until)
