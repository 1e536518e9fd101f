"""Inspection: what a queue directory holds, for people and scripts, read without locking it.

A directory may be inspected while a program holds it, and nothing that is done here keeps a program from starting.
What writes is in ``maintenance``.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from resilient_exporters.delivery.attempt import decode, raw_records
from resilient_exporters.delivery.block import BlockDamaged, Payload, salvage, unpack
from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.cursor import Cursor
from resilient_exporters.delivery.deadletters import DeadLetter, Letter, read_letters
from resilient_exporters.delivery.directory import holder
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.queue import Piece, Queue, QueueState, Taken
from resilient_exporters.delivery.recovery import attach, decode_state, take_over
from resilient_exporters.delivery.rescue import waiting_for_rescue
from resilient_exporters.delivery.ring import Ring
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.snapshot import RingUnreadable, RowReader, copy_ring, ring_file
from resilient_exporters.delivery.spool import STATE, disk_bytes, span_of

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Finding", "Inspection", "QueueView", "TargetView", "WaitingRecord", "find_queues", "is_queue"]

_PATIENCE = 1.0
"""Seconds for which a ring that is being written is read again before it is taken as it came."""
_PAUSE = 0.002


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


class Finding(msgspec.Struct, frozen=True):
    """Something that ``Inspection.verify`` found.

    Attributes:
        damage: whether something is damaged now; else it is a remark.
        where: the place.
        what: in words.
    """

    damage: bool
    where: str
    what: str


class _Held(NamedTuple):
    """Where a run of records lies: in our copy of the ring, or in a row."""

    start: int
    stop: int
    key: int | None
    piece: Piece | None


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
        if not is_queue(directory):
            raise FileNotFoundError(f"{directory} is no queue directory: it has neither a lock file nor a database")
        self.directory = directory
        self.holder = _holder(directory)
        self.live = self.holder is not None
        self.unreadable = 0
        self._moved = False
        self._trouble: list[str] = []
        self._ring_damage = ""
        self._rows = RowReader(directory)
        self._state: bytes | None = None
        self._letter_keys: list[int] = []
        self._queue = self._look()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._rows.close()

    def _look(self) -> Queue:
        """Copy the ring, then list the rows: what is saved and leaves the ring in between is still seen."""
        queue = self._look_once()
        until = time.monotonic() + _PATIENCE
        while self.live and (queue.damaged or self._moved) and time.monotonic() < until:
            time.sleep(_PAUSE)  # its owner was writing where we read
            queue = self._look_once()
        if self._rows.damage:
            self._trouble.append(f"the database cannot be read: {self._rows.damage}")
        return queue

    def _look_once(self) -> Queue:
        ring: Ring | None = None
        self._trouble.clear()
        try:
            ring = copy_ring(self.directory)
        except RingUnreadable as error:
            self._ring_damage = str(error)
            self._trouble.append(f"memory cannot be read: {error}")
        if ring is None and self.live:
            self._trouble.append("the memory of the program cannot be seen: what is not on disk is not counted")
        queue = Queue(Settings.check(), ring or Ring(None, 1 << 16, self.directory), Clock())
        take_over(queue)
        keys, self._letter_keys = self._rows.keys()
        self._state = self._rows.get(STATE)
        kept = decode_state(self._state)
        if self._rows.exists:
            # Saved after the ring was copied: the two are not of one moment.
            end = max(0 if kept is None else kept.following, span_of(keys[-1])[1] if keys else 0)
            self._moved = not queue.ring.fresh and end > queue.following
            if self._moved and self.live:
                keys, kept = _as_of(queue, keys, kept)
            attach(queue, keys, kept)
        queue.recall()
        return queue

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
        trouble = list(self._trouble)
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
            waiting=sum(b - a for a, b in self._open()),
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

    def _open(self) -> IntervalSet:
        """The offsets that some target has not settled."""
        found = IntervalSet()
        for cursor in self._queue.cursors.values():
            for start, stop in cursor.open(cursor.floor, _end(cursor, self._queue)):
                found.add(start, stop)
        return found

    def _in_memory(self) -> int:
        open_ones, found = self._open(), IntervalSet()
        for block in self._queue.stock.blocks:
            found.add(block.first, block.end)
        for key in [*self._queue.stock.index, *(key for block in self._queue.stock.blocks for key in block.replaces)]:
            found.remove(*span_of(key))
        return sum(max(0, min(b, d) - max(a, c)) for a, b in open_ones for c, d in found)

    def _oldest_age(self) -> float | None:
        """By the oldest block on disk that somebody waits for: the ring does not note times."""
        open_ones = self._open()
        for key in self._queue.stock.index:
            start, stop = span_of(key)
            if any(a < stop and start < b for a, b in open_ones):
                payload = self._payload(key)
                return None if payload is None else max(0.0, self._queue.clock.now() - payload.born)
        return None

    # -- records -----------------------------------------------------------------------------------------------------

    def records(self, target: str | None = None) -> Iterator[WaitingRecord]:
        """The waiting records, oldest first: those of one target, or of all. Read as you go."""
        cursors = [one for one in self._queue.cursors.values() if target is None or one.identity == target]
        seen = 0
        for held in self._held():
            # After a kill, a block in memory may begin within the last row on disk.
            start, waiting = max(seen, held.start), dict[int, list[str]]()
            for cursor in cursors:
                for a, b in cursor.open(start, min(held.stop, _end(cursor, self._queue))):
                    for offset in range(a, b):
                        waiting.setdefault(offset, []).append(cursor.identity)
            if waiting and (piece := self._piece(held)) is not None:
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
        for letter in self._letters():
            yield letter.open()

    def _letters(self) -> Iterator[Letter]:
        for key in sorted(self._letter_keys, reverse=True):
            yield from read_letters(self._rows.get(key))

    def _held(self) -> list[_Held]:
        stock = self._queue.stock
        found = [_Held(*span_of(key), key, None) for key in stock.index]
        for block in stock.blocks:
            data = self._queue.ring.memory[block.start : block.stop]
            piece = Piece(data, None, block.run, block.origin, block.first - block.origin)
            found.append(_Held(block.first, block.end, None, piece))
        return sorted(found, key=lambda held: held.start)

    def _piece(self, held: _Held) -> Piece | None:
        if held.key is None:
            return held.piece
        payload = self._payload(held.key)
        if payload is None:
            return None
        return Piece(payload.data, payload.found, payload.run, payload.origin, held.start - payload.origin)

    def _payload(self, key: int) -> Payload | None:
        row = self._rows.get(key)
        if row is None:
            return None
        try:
            return unpack(row)
        except BlockDamaged:
            return salvage(row)

    # -- verifying ---------------------------------------------------------------------------------------------------

    def verify(self) -> Iterator[Finding]:
        """Check everything that has a checksum, and what must fit together. Read as you go."""
        yield from self._verify_database()
        yield from self._verify_blocks()
        yield from self._verify_letters()
        yield from self._verify_cursors()
        for entry in sorted([*self.directory.glob("quarantine/*"), *self.directory.glob("damaged-*.db")]):
            name = str(entry.relative_to(self.directory))
            yield Finding(False, name, "damaged before and replaced; kept for whoever wants to look, may be deleted")
        if self.live:
            yield Finding(False, "lock", f"held by {self.holder}: what it changed meanwhile was not judged")

    def _verify_database(self) -> Iterator[Finding]:
        if not self._rows.exists:
            return
        if self._rows.damage:
            yield Finding(True, "cache.db", f"cannot be read: {self._rows.damage}")
            return
        for line in self._rows.check():
            yield Finding(True, "cache.db", f"SQLite says: {line}")
        if strange := self._rows.strange():
            yield Finding(True, "cache.db", f"{strange} rows that are none of a queue")

    def _verify_blocks(self) -> Iterator[Finding]:
        before = 0
        for key in self._queue.stock.index:
            start, stop = span_of(key)
            where = f"block {start}"
            if start < before:
                yield Finding(False, where, f"repeats {before - start} records of the block before it, as after a kill")
            before = max(before, stop)
            row = self._rows.get(key)
            if row is None:
                if not self.live:
                    yield Finding(True, where, f"the row of {stop - start} records cannot be read")
                continue
            try:
                payload = unpack(row)
            except BlockDamaged as error:
                part = salvage(row)
                whole = 0 if part is None else len(part.frames)
                yield Finding(True, where, f"{whole} of {stop - start} records are intact ({error})")
                continue
            if payload.count != stop - start:
                yield Finding(True, where, f"holds {payload.count} records, its key says {stop - start}")

    def _verify_letters(self) -> Iterator[Finding]:
        found: dict[str, int] = {}
        for key in self._letter_keys:
            row = self._rows.get(key)
            letters = read_letters(row)
            if not letters and not self.live:
                yield Finding(True, f"dead letters {key}", "cannot be read")
            for letter in letters:
                found[letter.target] = found.get(letter.target, 0) + 1
        if self.live or self._rows.damage:
            return
        for cursor in self._queue.cursors.values():
            if found.get(cursor.identity, 0) < cursor.dead:
                number = cursor.dead - found.get(cursor.identity, 0)
                yield Finding(True, cursor.identity, f"{number} of {cursor.dead} dead letters are gone")

    def _verify_cursors(self) -> Iterator[Finding]:
        queue = self._queue
        if self._ring_damage:
            yield Finding(True, "memory", self._ring_damage)
        if self._state is not None and decode_state(self._state) is None:
            yield Finding(True, "cursors", "the row with the cursors cannot be read")
        if not queue.cursors and len(queue.stock.index):
            yield Finding(True, "cursors", f"gone; {len(queue.stock.index)} blocks wait for nobody knows whom")
        if self.live:
            return
        held = IntervalSet()
        for one in self._held():
            held.add(one.start, one.stop)
        lost = sum(b - a for start, stop in self._open() for a, b in held.gaps(start, stop))
        if lost:
            yield Finding(True, "records", f"{lost} that wait are neither in memory nor on disk")
        for target in map(self._target, queue.cursors.values()):
            settled = target.delivered + sum(target.dropped.values()) + target.dead + target.pending
            if settled != target.accepted:
                text = f"counters do not add up: {target.accepted} accepted, {settled} settled or waiting"
                yield Finding(True, target.name, text)


def is_queue(directory: Path) -> bool:
    """Whether a directory is (or was) a queue's."""
    return (directory / "cache.db").is_file() or (directory / "lock").is_file()


def find_queues(root: Path) -> list[Path]:
    """The queue directories in ``root``, or ``root`` itself if it is one."""
    if is_queue(root):
        return [root]
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and is_queue(entry)) if root.is_dir() else []


def _as_of(queue: Queue, keys: array[int], kept: QueueState | None) -> tuple[array[int], QueueState | None]:
    """What the disk held when the ring was copied: without what was saved since, and cursors that the ring has."""
    before = array("q", [key for key in keys if span_of(key)[1] <= queue.following])
    if kept is None:
        return before, None
    cursors = [state for state in kept.cursors if _identity(state) not in queue.cursors]
    return before, QueueState(kept.version, kept.run, min(kept.following, queue.following), kept.clock, cursors)


def _identity(state: bytes) -> str | None:
    try:
        return Cursor.restore(state).identity
    except msgspec.MsgspecError:
        return None  # said by ``attach``


def _holder(directory: Path) -> str | None:
    try:
        return holder(directory)
    except PermissionError as error:
        raise PermissionError(f"{directory} belongs to {directory.owner()}: run this as that user or root") from error


def _end(cursor: Cursor, queue: Queue) -> int:
    return queue.following if cursor.left is None else min(cursor.left, queue.following)
