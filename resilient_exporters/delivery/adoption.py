"""Adoption: the backlog of a numbered queue directory whose holder is gone moves to whoever opens next."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from resilient_exporters.delivery.block import Block, pack
from resilient_exporters.delivery.cursor import EXCLUDED, Cursor
from resilient_exporters.delivery.deadletters import Letter, read_letters
from resilient_exporters.delivery.directory import DirectoryLock
from resilient_exporters.delivery.queue import Queue
from resilient_exporters.delivery.recovery import attach, decode_state, take_over
from resilient_exporters.delivery.rescue import Rescue
from resilient_exporters.delivery.ring import Ring, ring_path
from resilient_exporters.delivery.spool import STATE, Spool, SpoolDamaged, SpoolUnavailable, key_of, span_of
from resilient_exporters.errors import QueueFullError, QueueLockedError

if TYPE_CHECKING:
    from resilient_exporters.delivery.engine import Engine

__all__ = ["adopt_orphans"]

log = logging.getLogger("resilient_exporters")


def adopt_orphans(engine: Engine, base: Path) -> None:
    """Take over what waits in the other directories of ``base`` that nobody holds, where it is for our targets."""
    for place in sorted(base.parent.glob(f"{base.name}*")):
        number = place.name[len(base.name) :]
        if place == engine.directory or (number and not number[1:].isdigit()) or not place.is_dir():
            continue
        try:
            lock = DirectoryLock(place)
        except (QueueLockedError, OSError):
            continue
        try:
            engine.keeper.call(lambda place=place: _adopt(engine, place))  # type: ignore[misc] # bound now, on purpose
        except (SpoolUnavailable, SpoolDamaged, QueueFullError, OSError) as error:
            log.warning("the backlog in %s is left where it is: %s", place, error)
        finally:
            lock.release()


def _adopt(engine: Engine, place: Path) -> None:
    """In the keeper's thread, which is the only one that may use a spool."""
    path = ring_path(place)
    spool = Spool(place, engine.settings.max_disk)
    rescue = Rescue(spool)
    if not spool.exists and not rescue.look() and not (path and path.exists()):
        return
    # Without a ring there is nothing to be had from one: none is made.
    ring = Ring(path if path and path.exists() else None, engine.settings.max_memory, place)
    orphan = Queue(engine.settings, ring, engine.queue.clock.clock)
    take_over(orphan)
    empty = False
    try:
        letters: dict[int, list[Letter]] = {}
        if spool.exists or rescue.waits:
            spool.open()
            if rescue.look():
                rescue.salvage()
                rescue.finish()
            keys, letter_keys = spool.keys()
            attach(orphan, keys, decode_state(spool.get(STATE)))
            letters = {key: read_letters(spool.get(key)) for key in sorted(letter_keys, reverse=True)}
        orphan.settle_in()
        waiting = {one.identity for one in orphan.cursors.values() if one.pending(orphan.following)}
        waiting.update(letter.target for row in letters.values() for letter in row)
        if waiting - {target.cursor.identity for target in engine.targets}:
            return
        moved = 0
        for number, (block, frames) in enumerate(_blocks(orphan, spool)):
            if number or not _has_moved(engine, block):
                moved += _move(engine, orphan, block, frames)
            _forget(orphan, spool, block)
        for key, row in letters.items():
            _take_letters(engine, row)
            spool.write({}, [key])
        if moved or letters:
            number = sum(map(len, letters.values()))
            log.warning("adopted %d records and %d dead letters that waited in %s", moved, number, place)
        empty = True
    finally:
        spool.close()
        ring.close(keep=not empty)
    if path is not None:
        path.unlink(missing_ok=True)
    for entry in place.iterdir():
        if entry.name != "lock":
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _blocks(orphan: Queue, spool: Spool) -> Iterator[tuple[Block, bytes]]:
    """One after the other: together they may be more than memory holds."""
    for key in list(orphan.stock.index):
        payload, _ = spool.read(key)
        first, stop = span_of(key)
        if payload is None:
            # Not even its head is left. It moves as an empty row, and is counted as corrupt where it is read.
            yield Block(first, stop - first, orphan.ring.run, 0, 0, 0.0, 0.0), b""
        else:
            yield Block(first, stop - first, payload.run, 0, 0, 0.0, 0.0, payload.origin), payload.data
    for block in list(orphan.stock.blocks):
        yield block, bytes(orphan.ring.memory[block.start : block.stop])


def _forget(orphan: Queue, spool: Spool, block: Block) -> None:
    """Settle a block where it came from: should the rest have to wait, it is not moved twice."""
    for cursor in orphan.cursors.values():
        orphan.settle(cursor, block.first, block.end, EXCLUDED)
    if spool.exists:
        freed, orphan.stock.freed = orphan.stock.freed, []
        spool.write({STATE: orphan.state()}, freed)


def _take_letters(engine: Engine, letters: list[Letter]) -> None:
    new = engine.keeper.letters.add(letters)
    with engine.queue.lock:
        for letter in new:
            cursor = engine.queue.cursors[letter.target]
            cursor.move_dead(-1, EXCLUDED)
            engine.queue.keep_cursor(cursor)


def _has_moved(engine: Engine, block: Block) -> bool:
    """Whether an adoption ended (by a power cut, say) after this block had moved, and before that was noted there.

    It was the last thing that was done then, so that it is our last row.
    """
    index = engine.queue.stock.index
    row = engine.keeper.read_row(index[-1]) if index else None
    return row is not None and (row.run, row.origin, row.count) == (block.run, block.origin, block.count)


def _move(engine: Engine, orphan: Queue, block: Block, frames: bytes) -> int:
    """Save one block as ours, under new offsets but with the ids it had."""
    queue = engine.queue
    now = queue.clock.now()
    first = queue.reserve(block.count, again=True)
    ours = Block(first, block.count, block.run, -1, -1, now, now, block.origin)
    done = False
    for target in engine.targets:
        target.settlement.doubtful.add(first, first + block.count)
    for identity, present in queue.cursors.items():  # before the row is written, with which it is noted
        there = orphan.cursors.get(identity)
        if there is not None:
            _settle_as_there(queue, there, present, block, first)
        elif orphan.cursors:
            queue.settle(present, first, first + block.count, EXCLUDED)  # it was no target there
    try:
        done = engine.keeper.write_row(key_of(first, block.count), pack(ours, frames))
    finally:
        queue.placed(first, block.count, done=done)
    if not done:
        raise SpoolUnavailable("no room for an adopted backlog")
    return block.count


def _settle_as_there(queue: Queue, there: Cursor, here: Cursor, block: Block, first: int) -> None:
    """What a target had settled in the orphan is none of its business here."""
    shift, at = first - block.first, block.first
    end = block.end if there.left is None else max(block.first, min(block.end, there.left))
    for start, stop in [*there.open(block.first, end), (block.end, block.end)]:
        queue.settle(here, at + shift, start + shift, EXCLUDED)
        at = stop
