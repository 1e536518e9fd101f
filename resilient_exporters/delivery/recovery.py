"""A start: what an earlier process left in the ring and on disk becomes the queue again."""

from __future__ import annotations

import logging
import secrets
from array import array
from typing import Any

import msgspec

from resilient_exporters.delivery.block import Block
from resilient_exporters.delivery.clock import QueueClock
from resilient_exporters.delivery.cursor import EXCLUDED, Cursor
from resilient_exporters.delivery.frame import ELSEWHERE, HEAD_SIZE, Frame, scan
from resilient_exporters.delivery.intake import RingState
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.queue import VERSION, Queue, QueueState
from resilient_exporters.delivery.ring import SLOT_HEAD, SLOT_SIZE, SLOTS
from resilient_exporters.delivery.sealed import unseal
from resilient_exporters.delivery.spool import span_of
from resilient_exporters.errors import InvalidConfigError

__all__ = ["attach", "begin_blind", "decode_state", "take_over"]

log = logging.getLogger("resilient_exporters")

_BLIND = 1 << 41  # where offsets begin while the disk cannot tell which were given before


def decode_state(row: bytes | None) -> QueueState | None:
    """The state row of a spool; None if there is none, or it cannot be read.

    Raises:
        InvalidConfigError: it was written by a newer version.
    """
    if row is None:
        return None
    parts = [part or b"" for part in unseal(row)]
    try:
        version = _decode_version(parts[0])[0]
        if type(version) is int and version > VERSION:
            raise InvalidConfigError(
                None,
                f"this queue was written by a newer version (format {version}, this one reads {VERSION}): "
                "upgrade resilient_exporters, or give another directory",
            )
        state = _decode_state(parts[0])
    except (msgspec.MsgspecError, UnicodeDecodeError, IndexError, TypeError) as error:
        log.error("the cursors on disk cannot be read (%s): what waits there is delivered again", error)
        return None
    state.cursors = parts[1:]
    return state


def take_over(queue: Queue) -> None:
    """Find again what an earlier process left in the ring: its frames, its cursors, its clock."""
    ring = queue.ring
    if ring.fresh:
        return
    kept = _ring_state(ring.read_slot(0))
    if kept is None:
        ring.start_over()
        return
    with queue.lock:
        queue.clock = QueueClock(queue.clock.clock, kept.clock)
        for slot in range(1, SLOTS):
            state = ring.read_slot(slot)
            if state is not None:
                try:
                    cursor = Cursor.restore(state)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    log.error("a cursor in the ring cannot be read: %s", error)
                    continue
                queue.cursors[cursor.identity] = cursor
                queue.give_slot(cursor, slot)
        frames: list[Frame] = []
        if ring.base <= kept.head <= ring.end and ring.base <= kept.sealed <= ring.end:
            frames = ring.frames(kept.head, kept.offset, (kept.sealed, kept.following))
        queue.lineage = kept.lineage
        queue.ownerless = kept.offset if kept.crowded else None
        _rebuild(queue, kept, frames)


def _ring_state(raw: bytes | None) -> RingState | None:
    try:
        return _decode_ring(raw or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.error("the ring cannot be read (%s): it starts empty", error)
        return None


def _rebuild(queue: Queue, kept: RingState, frames: list[Frame]) -> None:
    blocks, expected, tail = queue.stock.blocks, kept.offset, kept.head
    now, damaged = queue.clock.now(), []
    most, most_bytes = queue.settings.batch_records, queue.settings.batch_bytes
    for item in frames:
        if item.offset > expected:
            damaged.append((expected, item.offset))
        start = item.start - HEAD_SIZE
        last = blocks[-1] if blocks else None
        follows = last is not None and last.stop == start and last.end == item.offset
        tail, expected = item.stop, item.offset + 1
        if item.flags & ELSEWHERE:
            continue
        if last is not None and follows and last.count < most and last.size + item.stop - start <= most_bytes:
            last.count += 1
            last.stop = item.stop
        else:
            blocks.append(Block(item.offset, 1, queue.ring.run, start, item.stop, now, now))
    if kept.following > expected:
        damaged.append((expected, kept.following))
        expected, tail = kept.following, kept.sealed
    head = blocks[0].start if blocks else tail
    queue.start_at(tail, expected, head=head, wrapped=tail < head)
    queue.damaged = damaged


def begin_blind(queue: Queue) -> None:
    """Start while the database is there but does not open: its records keep the lower offsets."""
    with queue.lock:
        if queue.ring.fresh:
            queue.start_at(queue.ring.base, _BLIND + secrets.randbits(38))
            queue.keep_ring()
        else:
            queue.unread = queue.nowhere(0)


def attach(queue: Queue, keys: array[int], kept: QueueState | None, *, late: bool = False) -> None:
    """Join what is on disk to what is in memory.

    Args:
        queue: after ``take_over``.
        keys: of all blocks on disk, sorted.
        kept: the cursors on disk. Those in the ring are newer and count, where there are any.
        late: records were accepted before the disk could be read.
    """
    with queue.lock:
        end = max(0 if kept is None else kept.following, span_of(keys[-1])[1] if keys else 0)
        cursors = [] if kept is None else [cursor for cursor in map(_restore, kept.cursors) if cursor is not None]
        end = max([end, *(cursor.reach for cursor in cursors)])
        if late and queue.ring.fresh:
            _precede(queue, cursors, end)
        elif queue.ring.fresh or queue.following < end or _is_foreign(queue, kept):
            waiting = _emptied(queue)
            if kept is not None:
                queue.clock = QueueClock(queue.clock.clock, kept.clock)
                queue.lineage = kept.run
            for cursor in cursors:
                queue.cursors[cursor.identity] = cursor
            for cursor in queue.cursors.values():
                queue.give_slot(cursor)
            queue.start_at(queue.ring.base, max(end, queue.following))
            for flags, payload in waiting:
                queue.append_again(payload, flags)
        else:
            room = len(queue.cursors) < SLOTS - 1
            # One that the ring has room for and does not hold was let go since (``Queue.leave``).
            without = [one for one in cursors if not room or len(one.state(0)) > SLOT_SIZE - SLOT_HEAD]
            for one in without:
                _take_in(queue, one, 0 if kept is None else kept.following)
        held = IntervalSet()
        for key in keys:
            held.add(*span_of(key))
        queue.stock.blocks[:] = [part for block in queue.stock.blocks for part in _beside(queue, block, held)]
        queue.stock.index.extend(keys)
        queue.unread = IntervalSet()


def _precede(queue: Queue, cursors: list[Cursor], end: int) -> None:
    """What is on disk is older than all that was accepted since this start."""
    if min((one.joined for one in queue.cursors.values()), default=end) < end:
        _follow(queue, cursors, end)
        return
    for cursor in cursors:
        present = queue.cursors.setdefault(cursor.identity, cursor)
        if present is not cursor:
            present.merge(cursor, end)
        elif cursor.left is None:
            cursor.left = end  # its target was not there when this process started


def _follow(queue: Queue, cursors: list[Cursor], end: int) -> None:
    """A blind start that is not the first one got offsets below those of an earlier one: its records get new ones.

    Those under way are delivered again, under new ids.
    """
    queue.seal()
    log.warning("another start without the disk was before this one: what waits is queued again, under new ids")
    waiting: list[tuple[int, bytes, list[Cursor]]] = []
    with memoryview(queue.ring.memory) as view:
        for block in queue.stock.blocks:
            for item in scan(view, block.start, block.stop, block.first):
                done = [one for one in queue.cursors.values() if one.settled(item.offset, item.offset + 1)]
                if len(done) < len(queue.cursors):
                    waiting.append((item.flags, bytes(view[item.start : item.stop]), done))
    kept = {cursor.identity: cursor for cursor in cursors}
    for identity, present in queue.cursors.items():
        present.follow(kept.pop(identity, Cursor(identity, end)), end)
    for cursor in kept.values():
        cursor.left = end if cursor.left is None else cursor.left  # its target was not there when this process started
        queue.cursors[cursor.identity] = cursor
    queue.stock.blocks.clear()
    queue.ring.start_over()
    queue.start_at(queue.ring.base, end)
    queue.keep_ring()
    for cursor in queue.cursors.values():
        queue.give_slot(cursor)
    for flags, payload, done in waiting:
        offset = queue.append_again(payload, flags)
        for cursor in done:
            cursor.settle(offset, offset + 1, EXCLUDED)
            queue.keep_cursor(cursor)


def _take_in(queue: Queue, cursor: Cursor, saved: int) -> None:
    """A cursor that only the disk has. What came after its last save and is nowhere any more, everyone had settled."""
    cursor.vague = (saved, queue.following, queue.following)
    present = queue.cursors.setdefault(cursor.identity, cursor)
    if present is not cursor:
        present.merge(cursor, present.joined)  # its target joined before the disk could be read


def _is_foreign(queue: Queue, kept: QueueState | None) -> bool:
    """Whether another ring than this one was used with the disk meanwhile (in a container, say)."""
    return kept is not None and kept.run not in (queue.ring.run, queue.lineage)


def _emptied(queue: Queue) -> list[tuple[int, bytes]]:
    """Take the records out of a ring that is older than the disk: its offsets were given anew meanwhile."""
    waiting: list[tuple[int, bytes]] = []
    if queue.ring.fresh:
        return waiting
    log.warning("the ring is older than the disk: what waits in it is queued again, under new ids")
    for block in queue.stock.blocks:
        with memoryview(queue.ring.memory) as view:
            waiting.extend(
                (item.flags, bytes(view[item.start : item.stop]))
                for item in scan(view, block.start, block.stop, block.first)
                if not all(cursor.settled(item.offset, item.offset + 1) for cursor in queue.cursors.values())
            )
    queue.stock.blocks.clear()
    queue.damaged.clear()
    queue.ring.start_over()
    return waiting


def _beside(queue: Queue, block: Block, held: IntervalSet) -> list[Block]:
    """The parts of a block in memory that are not on disk as well, where rows have other bounds than it."""
    gaps = list(held.gaps(block.first, block.end))
    if gaps == [(block.first, block.end)]:
        return [block]
    parts: list[Block] = []
    with memoryview(queue.ring.memory) as view:
        frames = {item.offset: item for item in scan(view, block.start, block.stop, block.first)} if gaps else {}
    for first, end in gaps:
        start, stop = frames[first].start - HEAD_SIZE, frames[end - 1].stop
        parts.append(Block(first, end - first, block.run, start, stop, block.born, block.last))
    return parts


def _restore(state: bytes) -> Cursor | None:
    try:
        return Cursor.restore(state)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.error("a cursor on disk cannot be read: %s", error)
        return None


_decode_version = msgspec.msgpack.Decoder(list[Any]).decode
_decode_state = msgspec.msgpack.Decoder(QueueState).decode
_decode_ring = msgspec.msgpack.Decoder(RingState).decode
