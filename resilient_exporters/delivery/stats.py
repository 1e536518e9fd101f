"""Figures and reports for people and monitors."""

from __future__ import annotations

import msgspec

__all__ = ["CloseReport", "FlushReport", "Stats", "TargetStats"]


class TargetStats(msgspec.Struct, frozen=True):
    """Where one target stands. accepted = delivered + dropped + dead + pending, at any moment.

    Attributes:
        accepted: records that were this target's business, since the queue began.
        delivered: those it took.
        dropped: those that were given up, by reason: overflow, age, corrupt, full, unsaved, discarded, dead_overflow.
        dead: dead letters that are kept.
        pending: those that wait or are on their way.
        attempts: batches that it was given, by this process.
        retries: those of them that repeated a failed one.
        state: "closed" (healthy), "open" (waiting), "half-open" (probing), "held" (someone has to mend something).
        last_error: what the last failure said, or "".
        hung: attempts that never came back and were left behind.
    """

    accepted: int
    delivered: int
    dropped: dict[str, int]
    dead: int
    pending: int
    attempts: int
    retries: int
    state: str
    last_error: str
    hung: int


class Stats(msgspec.Struct, frozen=True):
    """A look at a queue, taken without waiting for disk or network.

    Attributes:
        accepted: records accepted since the queue began.
        pending: those that some target has not settled.
        memory_bytes: bytes used of ``max_memory``.
        disk_bytes: bytes of the queue directory, as ``du`` shows them, at the last save.
        written_bytes: bytes of blocks written to disk by this process, before SQLite's own overhead.
        oldest_age: seconds since the oldest pending record was accepted.
        late_saves: saves that were later than ``loss_window`` promises.
        disk_trouble: why the disk is not used just now, or None.
        targets: by name.
    """

    accepted: int = 0
    pending: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    written_bytes: int = 0
    oldest_age: float = 0.0
    late_saves: int = 0
    disk_trouble: str | None = None
    targets: dict[str, TargetStats] = {}


class FlushReport(msgspec.Struct, frozen=True):
    """What a flush did.

    Attributes:
        delivered, dropped, dead: records settled meanwhile, summed over the targets.
        pending: what still waits, summed over the targets.
        seconds: how long it took.
        complete: whether everything accepted before the call is settled.
    """

    delivered: int
    pending: int
    dropped: int
    dead: int
    seconds: float
    complete: bool


class CloseReport(msgspec.Struct, frozen=True):
    """What a close did.

    Attributes:
        delivered: records delivered meanwhile, summed over the targets.
        saved: records that wait on disk (or in the ring) for the next start.
        pending: records that some target has not settled: saved and lost ones.
        lost: records that end with this process, because nothing could keep them.
        seconds: how long it took.
    """

    delivered: int
    saved: int
    pending: int
    lost: int
    seconds: float
