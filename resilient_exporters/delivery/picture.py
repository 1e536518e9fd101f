"""Pictures: ring and database of a queue directory at one moment, put together as its program would.

Nothing is locked and nothing is changed: a program may hold the directory meanwhile.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from resilient_exporters.delivery.block import BlockDamaged, Payload, salvage, unpack
from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.cursor import Cursor
from resilient_exporters.delivery.deadletters import Letter, read_letters
from resilient_exporters.delivery.directory import holder
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.queue import Piece, Queue, QueueState
from resilient_exporters.delivery.recovery import attach, decode_state, take_over
from resilient_exporters.delivery.ring import Ring
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.snapshot import RingUnreadable, RowReader, copy_ring
from resilient_exporters.delivery.spool import STATE, span_of

__all__ = ["Held", "Picture", "is_queue"]

_PATIENCE = 1.0
"""Seconds for which a ring that is being written is read again before it is taken as it came."""
_PAUSE = 0.002


class Held(NamedTuple):
    """Where a run of records lies: in our copy of the ring, or in a row."""

    start: int
    stop: int
    key: int | None
    piece: Piece | None


class Picture:
    """What a queue directory holds.

    Args:
        directory: the queue directory.

    Raises:
        FileNotFoundError: it is no queue directory.

    Attributes:
        holder: who holds it, in words, or None.
        live: a program holds it: the figures are of one moment.
        queue: the queue as its program would open it, over a copy of the ring.
        rows: the database.
        state: the row with the cursors, as it is.
        letter_keys: of the rows with dead letters.
        ring_damage: why the ring cannot be read, or "".
        trouble: why the picture is not whole.
    """

    def __init__(self, directory: Path) -> None:
        if not is_queue(directory):
            raise FileNotFoundError(f"{directory} is no queue directory: it has neither a lock file nor a database")
        self.directory = directory
        self.holder = _holder(directory)
        self.live = self.holder is not None
        self.trouble: list[str] = []
        self.ring_damage = ""
        self.rows = RowReader(directory, live=self.live)
        self.state: bytes | None = None
        self.letter_keys: list[int] = []
        self._moved = False
        self.queue = self._look()

    def close(self) -> None:
        """Let go of the files."""
        self.rows.close()

    def _look(self) -> Queue:
        """Copy the ring, then list the rows: what is saved and leaves the ring in between is still seen."""
        queue = self._look_once()
        until = time.monotonic() + _PATIENCE
        while self.live and (queue.damaged or self._moved) and time.monotonic() < until:
            time.sleep(_PAUSE)  # its owner was writing where we read
            queue = self._look_once()
        if self.rows.damage:
            self.trouble.append(f"the database cannot be read: {self.rows.damage}")
        return queue

    def _look_once(self) -> Queue:
        ring: Ring | None = None
        self.trouble.clear()
        try:
            ring = copy_ring(self.directory)
        except RingUnreadable as error:
            self.ring_damage = str(error)
            self.trouble.append(f"memory cannot be read: {error}")
        if ring is None and self.live:
            self.trouble.append("the memory of the program cannot be seen: what is not on disk is not counted")
        queue = Queue(Settings.check(), ring or Ring(None, 1 << 16, self.directory), Clock())
        take_over(queue)
        keys, self.letter_keys = self.rows.keys()
        self.state = self.rows.get(STATE)
        kept = decode_state(self.state)
        if self.rows.exists:
            # Saved after the ring was copied: the two are not of one moment.
            self._moved = not queue.ring.fresh and _end_of(keys, kept) > queue.following
            if self._moved and self.live:
                keys, kept = _as_of(queue, keys, kept)
            attach(queue, keys, kept)
        queue.recall()
        return queue

    def open(self) -> IntervalSet:
        """The offsets that some target has not settled."""
        found = IntervalSet()
        for cursor in self.queue.cursors.values():
            for start, stop in cursor.open(cursor.floor, self.end(cursor)):
                found.add(start, stop)
        return found

    def end(self, cursor: Cursor) -> int:
        """The offset behind the last record that is a target's business."""
        return self.queue.following if cursor.left is None else min(cursor.left, self.queue.following)

    def letters(self) -> Iterator[Letter]:
        """The dead letters as they are kept, oldest first."""
        for key in sorted(self.letter_keys, reverse=True):
            yield from read_letters(self.rows.get(key))

    def held(self) -> list[Held]:
        """Where records lie, oldest first."""
        stock = self.queue.stock
        found = [Held(*span_of(key), key, None) for key in stock.index]
        for block in stock.blocks:
            data = self.queue.ring.memory[block.start : block.stop]
            piece = Piece(data, None, block.run, block.origin, block.first - block.origin)
            found.append(Held(block.first, block.end, None, piece))
        return sorted(found, key=lambda held: held.start)

    def piece(self, held: Held) -> Piece | None:
        """The frames of a run; None if they cannot be read."""
        if held.key is None:
            return held.piece
        payload = self.payload(held.key)
        if payload is None:
            return None
        return Piece(payload.data, payload.found, payload.run, payload.origin, held.start - payload.origin)

    def payload(self, key: int) -> Payload | None:
        """A row, or what is whole in it; None if there is nothing to be had."""
        row = self.rows.get(key)
        if row is None:
            return None
        try:
            return unpack(row)
        except BlockDamaged:
            return salvage(row)


def is_queue(directory: Path) -> bool:
    """Whether a directory is (or was) a queue's."""
    return (directory / "cache.db").is_file() or (directory / "lock").is_file()


def _as_of(queue: Queue, keys: array[int], kept: QueueState | None) -> tuple[array[int], QueueState | None]:
    """What the disk held when the ring was copied: without what was saved since, and cursors that the ring has."""
    before = array("q", [key for key in keys if span_of(key)[1] <= queue.following])
    if kept is None:
        return before, None
    # One that the ring should have and our copy has not was being written as we read.
    cursors = [
        state
        for state in kept.cursors
        if (cursor := _restored(state)) is not None
        and cursor.identity not in queue.cursors
        and cursor.reach <= queue.following
    ]
    return before, QueueState(kept.version, kept.run, min(kept.following, queue.following), kept.clock, cursors)


def _end_of(keys: array[int], kept: QueueState | None) -> int:
    """The offset up to which the disk knows of records."""
    ends = [span_of(keys[-1])[1]] if keys else [0]
    if kept is not None:
        ends.append(kept.following)
        ends.extend(cursor.reach for cursor in map(_restored, kept.cursors) if cursor is not None)
    return max(ends)


def _restored(state: bytes) -> Cursor | None:
    try:
        return Cursor.restore(state)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None  # said by ``attach``


def _holder(directory: Path) -> str | None:
    try:
        return holder(directory)
    except PermissionError as error:
        raise PermissionError(f"{directory} belongs to {directory.owner()}: run this as that user or root") from error
