"""Inspection: what a queue directory holds, for people and scripts, read without locking it.

A directory may be inspected while a program holds it, and nothing that is done here keeps a program from starting.
What writes is in ``maintenance``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from resilient_exporters.delivery.attempt import decode, raw_records
from resilient_exporters.delivery.cursor import Cursor
from resilient_exporters.delivery.deadletters import DeadLetter
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.picture import Picture, is_queue
from resilient_exporters.delivery.queue import Taken
from resilient_exporters.delivery.rescue import waiting_for_rescue
from resilient_exporters.delivery.snapshot import ring_file
from resilient_exporters.delivery.spool import disk_bytes, span_of
from resilient_exporters.delivery.verification import Finding, Verification

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Finding", "Inspection", "QueueView", "TargetView", "WaitingRecord", "find_queues", "is_queue"]


class TargetView(msgspec.Struct, frozen=True):
    """Where one target stands. accepted = delivered + dropped + dead + pending.

    Attributes:
        name: its identity.
        accepted, delivered, dropped, dead, pending, retries: as in ``TargetStats``.
        present: False if the program that was started last does not have this target any more.
    """

    name: str
    accepted: int
    delivered: int
    dropped: dict[str, int]
    dead: int
    pending: int
    retries: int
    present: bool


class QueueView(msgspec.Struct, frozen=True):
    """A queue directory at a glance.

    Attributes:
        directory: its path.
        holder: who holds it, in words, or None.
        targets: where each of them stands.
        waiting: records that some target has not settled; of these ``in_memory`` are in the ring only.
        dead: dead letters.
        oldest_age: seconds since the oldest record on disk was accepted; None if it is in memory, or nothing waits.
        disk_bytes: of the directory, as ``du`` shows them.
        ring: path of the ring, or None if there is none.
        ring_bytes: how much of it is in use.
        quarantine: files with the bytes of damaged blocks, beside the database.
        set_aside: databases that were damaged and replaced.
        trouble: why the picture is not whole, or "".
    """

    directory: str
    holder: str | None
    targets: list[TargetView]
    waiting: int
    in_memory: int
    dead: int
    oldest_age: float | None
    disk_bytes: int
    ring: str | None
    ring_bytes: int
    quarantine: list[str]
    set_aside: list[str]
    trouble: str


class WaitingRecord(msgspec.Struct, frozen=True):
    """A record that some target has not settled.

    Attributes:
        id: as the targets see it; ``run`` and ``offset`` are its two halves.
        targets: the names of those it waits for.
        data: the record.
        options: the keywords that were sent with it.
        flags, payload: the record as it is kept.
    """

    id: str
    run: str
    offset: int
    targets: list[str]
    data: Any
    options: dict[str, Any]
    flags: int
    payload: bytes


class Inspection:
    """One look at a queue directory. Use it in a ``with``.

    Args:
        directory: the queue directory.

    Raises:
        FileNotFoundError: it is no queue directory.

    Attributes:
        live: a program holds the directory: the figures are of one moment, and records may be settled meanwhile.
        unreadable: records that could not be decoded, so far.
    """

    def __init__(self, directory: Path) -> None:
        self.picture = Picture(directory)
        self.directory = directory
        self.holder = self.picture.holder
        self.live = self.picture.live
        self.unreadable = 0
        self._queue = self.picture.queue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self.picture.close()

    # -- figures ---------------------------------------------------------------------------------------------------

    @property
    def targets(self) -> list[str]:
        """The names of all targets."""
        return list(self._queue.cursors)

    def view(self) -> QueueView:
        """The figures."""
        queue, ring = self._queue, ring_file(self.directory)
        known = ring is not None and ring.exists()
        cursors = list(queue.cursors.values())
        trouble = list(self.picture.trouble)
        trouble.extend(
            f"{aside.name} was damaged: what is readable in it is taken over at the next start"
            for aside in waiting_for_rescue(self.directory)
        )
        if not cursors and len(queue.stock.index):
            trouble.append("it is not known which targets its records wait for: the cursors are gone")
        return QueueView(
            directory=str(self.directory),
            holder=self.holder,
            targets=[self._target(cursor) for cursor in cursors],
            waiting=sum(b - a for a, b in self.picture.open()),
            in_memory=self._in_memory(),
            dead=sum(cursor.dead for cursor in cursors),
            oldest_age=self._oldest_age(),
            disk_bytes=disk_bytes(self.directory),
            ring=str(ring) if known else None,
            ring_bytes=queue.memory_bytes() if known else 0,
            quarantine=sorted(entry.name for entry in self.directory.glob("quarantine/*")),
            set_aside=sorted(entry.name for entry in self.directory.glob("damaged-*.db")),
            trouble="; ".join(trouble),
        )

    def _target(self, cursor: Cursor) -> TargetView:
        following = self._queue.following
        return TargetView(
            name=cursor.identity,
            accepted=cursor.accepted(following),
            delivered=cursor.delivered,
            dropped=dict(cursor.dropped),
            dead=cursor.dead,
            pending=cursor.pending(following),
            retries=cursor.retries,
            present=cursor.left is None,
        )

    def _in_memory(self) -> int:
        open_ones, found = self.picture.open(), IntervalSet()
        for block in self._queue.stock.blocks:
            found.add(block.first, block.end)
        for key in [*self._queue.stock.index, *(key for block in self._queue.stock.blocks for key in block.replaces)]:
            found.remove(*span_of(key))
        return sum(max(0, min(b, d) - max(a, c)) for a, b in open_ones for c, d in found)

    def _oldest_age(self) -> float | None:
        """By the oldest block on disk that somebody waits for: the ring does not note times."""
        open_ones = self.picture.open()
        for key in self._queue.stock.index:
            start, stop = span_of(key)
            if any(a < stop and start < b for a, b in open_ones):
                payload = self.picture.payload(key)
                return None if payload is None else max(0.0, self._queue.clock.now() - payload.born)
        return None

    # -- records -----------------------------------------------------------------------------------------------------

    def records(self, target: str | None = None) -> Iterator[WaitingRecord]:
        """The waiting records, oldest first: those of one target, or of all. Read as you go."""
        cursors = [one for one in self._queue.cursors.values() if target is None or one.identity == target]
        seen = 0
        for held in self.picture.held():
            # After a kill, a block in memory may begin within the last row on disk.
            start, waiting = max(seen, held.start), dict[int, list[str]]()
            for cursor in cursors:
                for a, b in cursor.open(start, min(held.stop, self.picture.end(cursor))):
                    for offset in range(a, b):
                        waiting.setdefault(offset, []).append(cursor.identity)
            if waiting and (piece := self.picture.piece(held)) is not None:
                yield from self._decoded(Taken(start, held.stop, [piece]), waiting)
                seen = held.stop

    def _decoded(self, taken: Taken, waiting: dict[int, list[str]]) -> Iterator[WaitingRecord]:
        raw = raw_records(taken)
        known: dict[int, WaitingRecord] = {}
        for identity in dict.fromkeys(name for names in waiting.values() for name in names):
            wanted = {offset for offset, names in waiting.items() if identity in names}
            if wanted <= known.keys():
                continue
            decoded = decode(taken, identity)
            for offset, record in zip(decoded.offsets, decoded.records, strict=True):
                if offset in wanted and offset not in known:
                    flags, payload = raw[offset]
                    known[offset] = WaitingRecord(
                        record.id, record.run, record.offset, waiting[offset], record.data, dict(record.options),
                        flags, payload,
                    )  # fmt: skip
        self.unreadable += len(waiting) - len(known)
        for offset in sorted(known):
            yield known[offset]

    def letters(self) -> Iterator[DeadLetter]:
        """The dead letters, oldest first."""
        for letter in self.picture.letters():
            yield letter.open()

    def verify(self) -> Iterator[Finding]:
        """Check everything that has a checksum, and what must fit together. Read as you go."""
        return Verification(self.picture).findings()


def find_queues(root: Path) -> list[Path]:
    """The queue directories in ``root``, or ``root`` itself if it is one."""
    if is_queue(root):
        return [root]
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and is_queue(entry)) if root.is_dir() else []
