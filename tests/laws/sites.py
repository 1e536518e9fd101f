"""Targets as the world outside sees them: what they have outlives every process of ours."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from resilient_exporters import Batch, ConnectionError, Exporter, HoldError, RejectedError, TimeoutError
from resilient_exporters.delivery.outcome import Delivered, Full, Outcome, Reject, Retry, Split

if TYPE_CHECKING:
    from tests.laws.notes import Notes

__all__ = ["MOODS", "TIMEOUT", "VALUES", "Scripted", "Site", "is_delivered", "number_of", "same"]

TIMEOUT = 10.0

MOODS = (
    "ok", "down", "answer lost", "half, then down", "refuses", "picky", "poisoned", "held", "hangs", "slow", "too slow",
    "partly", "small", "full", "no connection", "garbage", "busy",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    1, -1.5, None, True, "ü", b"\0\xff", 10**30, Decimal("1.10"), (1, 2), {3, 4}, [{"a": [1, {"b": None}]}],
    float("inf"),
)  # fmt: skip
_AWAY: dict[str, Any] = {
    "down": ConnectionError(None, "down"), "held": HoldError(None, "no credentials"), "busy": Retry(7.0, "busy"),
}  # fmt: skip


class Site:
    """A target as the world outside sees it: it outlives every process of ours.

    Attributes:
        has: what it was given and took: each record as often as that was.
        doubtful: records that it may have, though nobody was told.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.mood = "ok"
        self.has: list[int] = []
        self.may_refuse: set[int] = set()
        self.released = 0


class Scripted(Exporter):
    """A process's way to a site."""

    kind = "scripted"
    record_options = frozenset({"mark"})

    def __init__(self, world: Notes, site: Site, **options: Any) -> None:
        self.world, self.site = world, site
        super().__init__(name=site.name, timeout=TIMEOUT, clock=world.clock, **options)

    def connect(self) -> None:
        self.world.stage.pause()
        if self.site.mood == "no connection":
            raise ConnectionError(self, "no connection")

    def export(self, batch: Batch) -> Any:
        self.world.stage.pause()
        records = self.world.offered(self.site, batch)
        answer = self._answer(records)
        self.world.stage.pause()
        self.world.given[self.world.stage.current] = ([record.id for record in batch], records, answer)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _answer(self, records: list[int]) -> Any:
        site, stage = self.site, self.world.stage
        mood = site.mood
        if mood == "hangs":
            turn = site.released
            stage.wait(lambda: site.released > turn)
            mood = "ok"
        if mood in ("slow", "too slow"):
            stage.wait(_never, stage.now + (3.3 if mood == "slow" else 14.7))
            mood = "ok"
        taken, answer = self._outcome(mood, records)
        site.has.extend(taken)
        return answer

    def _outcome(self, mood: str, records: list[int]) -> tuple[list[int], Any]:
        """What the site takes, and what it says."""
        site = self.site
        if mood in _AWAY:
            return [], _AWAY[mood]
        if mood == "answer lost":
            return records, TimeoutError(self, "no answer")
        if mood == "half, then down":
            return records[: len(records) // 2], OSError("cut")
        if mood == "refuses":
            site.may_refuse.update(records)
            return [], RejectedError(self, "never")
        if mood == "poisoned" and any(record % 5 == 0 for record in records):
            site.may_refuse.update(record for record in records if record % 5 == 0)
            self.world.books[site.name].suspicious = True
            return [], ValueError("what is this?")
        if mood == "garbage":
            site.may_refuse.update(records)
            self.world.books[site.name].suspicious = True
            return records, [None] * (len(records) + 1)
        if mood == "small" and len(records) > 2:
            return [], Split()
        if mood == "picky":
            site.may_refuse.update(record for record in records if record % 3 == 0)
            answers: list[Outcome | None] = [Reject("odd") if record % 3 == 0 else None for record in records]
        elif mood == "full":
            answers = [Full("no room") if record % 4 == 1 else Delivered(record) for record in records]
        elif mood == "partly":
            answers = [Retry(None, "later") if at % 3 == 1 else Delivered(at) for at, _ in enumerate(records)]
        else:
            return records, None
        return [record for record, one in zip(records, answers, strict=True) if is_delivered(one)], answers


def number_of(data: Any) -> int:
    """Which record it is."""
    if isinstance(data, dict):
        return int(data["n"])
    return int(data.split()[0])


def same(one: object, other: object) -> bool:
    """Whether two records are the same, types included."""
    return one == other and repr(one) == repr(other)


def is_delivered(one: object) -> bool:
    return one is None or isinstance(one, Delivered)


def _never() -> bool:
    return False
