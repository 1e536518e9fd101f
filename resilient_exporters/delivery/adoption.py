"""Adoption: the backlog of a numbered queue directory whose holder is gone moves to whoever opens next."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from resilient_exporters.delivery.block import Block, pack
from resilient_exporters.delivery.cursor import EXCLUDED, Cursor
from resilient_exporters.delivery.deadletters import read_letters
from resilient_exporters.delivery.directory import DirectoryLock
from resilient_exporters.delivery.queue import Queue
from resilient_exporters.delivery.recovery import attach, decode_state, take_over
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
    if not spool.exists and not (path and path.exists()):
        return
    ring = Ring(path, engine.settings.max_memory, place)
    orphan = Queue(engine.settings, ring, engine.queue.clock.clock)
    take_over(orphan)
    try:
        letter_keys: list[int] = []
        if spool.exists:
            spool.open()
            keys, letter_keys = spool.keys()
            attach(orphan, keys, decode_state(spool.get(STATE)))
        orphan.settle_in()
        waiting = {one.identity for one in orphan.cursors.values() if one.pending(orphan.following) or one.dead}
        ours = {target.cursor.identity for target in engine.targets}
        if waiting - ours:
            return
        moved = 0
        for block, frames in list(_blocks(orphan, spool)):
            moved += _move(engine, orphan, block, frames)
        letters = [letter for key in sorted(letter_keys, reverse=True) for letter in read_letters(spool.get(key))]
        if letters:
            engine.keeper.letters.add(letters)
            for letter in letters:
                engine.queue.cursors[letter.target].excluded -= 1
                engine.queue.cursors[letter.target].dead += 1
        if moved or letters:
            log.warning("adopted %d records and %d dead letters that waited in %s", moved, len(letters), place)
    finally:
        spool.close()
    ring.close(keep=False)
    if path is not None:
        path.unlink(missing_ok=True)
    for entry in place.iterdir():
        if entry.name != "lock":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _blocks(orphan: Queue, spool: Spool) -> Iterator[tuple[Block, bytes]]:
    for key in orphan.stock.index:
        payload, _ = spool.read(key)
        if payload is None:
            continue
        first, stop = span_of(key)
        block = Block(
            first, stop - first, payload.run, 0, len(payload.data), payload.born, payload.last, payload.origin
        )
        yield block, payload.data
    for block in orphan.stock.blocks:
        yield block, bytes(orphan.ring.memory[block.start : block.stop])


def _move(engine: Engine, orphan: Queue, block: Block, frames: bytes) -> int:
    """Save one block as ours, under new offsets but with the ids it had."""
    queue = engine.queue
    now = queue.clock.now()
    first = queue.reserve(block.count, again=True)
    ours = Block(first, block.count, block.run, -1, -1, now, now, block.origin)
    done = False
    try:
        done = engine.keeper.write_row(key_of(first, block.count), pack(ours, frames))
    finally:
        queue.placed(first, block.count, done=done)
    if not done:
        raise SpoolUnavailable("no room for an adopted backlog")
    for target in engine.targets:
        target.settlement.doubtful.add(first, first + block.count)
    for cursor in orphan.cursors.values():
        present = queue.cursors.get(cursor.identity)
        if present is not None:
            _settle_as_there(queue, cursor, present, block, first)
    return block.count


def _settle_as_there(queue: Queue, there: Cursor, here: Cursor, block: Block, first: int) -> None:
    """What a target had settled in the orphan is none of its business here."""
    shift, at = first - block.first, block.first
    for start, stop in [*there.open(block.first, block.end), (block.end, block.end)]:
        queue.settle(here, at + shift, start + shift, EXCLUDED)
        at = stop
