"""The queue: what was accepted, and who has settled it.

All state is guarded by one lock that is never held across I/O. The keeper (its own thread) moves blocks between here
and the spool; the targets take batches from here and settle them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec

from resilient_exporters.delivery.block import Block, Payload
from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.cursor import EXCLUDED, Cursor
from resilient_exporters.delivery.frame import Frame
from resilient_exporters.delivery.intake import Intake
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.ring import SLOTS, Ring
from resilient_exporters.delivery.sealed import seal
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.spool import key_of, span_of
from resilient_exporters.delivery.stock import SAVING

__all__ = ["VERSION", "Piece", "Queue", "QueueState", "Taken"]

log = logging.getLogger("resilient_exporters")

VERSION = 1
"""Format of the state row and of the blocks. A newer one is left alone."""
_RANGES_IN_SLOT = 40
_JOIN_BELOW = 4096  # raw bytes up to which a saved row is rewritten together with what came after it


class QueueState(msgspec.Struct, array_like=True):
    """What the state row of the spool holds: its first part, and a part for each cursor."""

    version: int
    run: bytes
    following: int
    clock: tuple[str, float, float]
    cursors: list[bytes] = []


class Piece(NamedTuple):
    """Frames of one run that hold some of a batch's records.

    ``frames`` is None where ``data`` has still to be scanned, from the offset ``origin`` on; ``shift`` added to the
    offset of a frame gives the queue's. ``plain`` are the payloads, where that is all there is to know.
    """

    data: bytes
    frames: list[Frame] | None
    run: bytes
    origin: int
    shift: int
    plain: list[bytes] | None = None


class Taken(NamedTuple):
    """What a target gets to deliver: a range of offsets that nobody else works on, and the frames it lies in.

    Attributes:
        start, stop: the range.
        pieces: the frames.
        gaps: parts of the range that are settled, or that someone else works on: they do not belong to it. What a
            target refused for now in the middle of others makes one batch again, not one for each record.
    """

    start: int
    stop: int
    pieces: list[Piece]
    gaps: Sequence[tuple[int, int]] = ()

    @property
    def runs(self) -> list[tuple[int, int]]:
        """What belongs to it."""
        return list(IntervalSet(self.gaps).gaps(self.start, self.stop)) if self.gaps else [(self.start, self.stop)]

    @property
    def records(self) -> int:
        """How many belong to it."""
        return self.stop - self.start - sum(stop - start for start, stop in self.gaps)

    @property
    def size(self) -> int:
        """Bytes of the frames, of those too that are not in the range."""
        return sum(len(piece.data) for piece in self.pieces)


class Queue(Intake):
    """The log of accepted records: what targets take from it, settle, and what the keeper saves of it.

    Args:
        settings: the exporter's options, checked.
        ring: the memory tier, opened.
        clock: the machine's clocks.

    Attributes:
        damaged: ranges that were found damaged in the ring at the start, until it is clear what the disk has of them.
        unread: offsets that may lie on a disk which does not open yet: nobody is given them, and none is given up.
        in_hand: whether some target is just working on something of a range.
        ownerless: at a start without cursors, the first offset that is held: those who join then begin there.
    """

    def __init__(self, settings: Settings, ring: Ring, clock: Clock) -> None:
        self.damaged: list[tuple[int, int]] = []
        self.unread = IntervalSet()
        self.in_hand: Callable[[int, int], bool] = _nobody
        self.ownerless: int | None = None
        self._slots: dict[str, int] = {}
        super().__init__(settings, ring, clock)

    # -- taking --------------------------------------------------------------------------------------------------

    def take(self, cursor: Cursor, claimed: IntervalSet, most: int, order: str, fresh: int) -> Taken | None:
        """The next records of a target that nobody works on, or None: nothing sealed, or not read from disk yet.

        Args:
            cursor: where the target stands.
            claimed: offsets in flight.
            most: records at most.
            order: "fifo", "newest_first" or "balanced".
            fresh: offset from which records count as fresh ("balanced").
        """
        if self.unread:
            claimed = IntervalSet([*claimed, *self.unread])
        while (span := self._next_span(cursor, claimed, most, order, fresh)) is not None:
            at, stop, gaps = span
            pieces: list[Piece] = []
            size = 0
            while (at := _behind(gaps, at)) < stop and size < self.settings.batch_bytes:
                block = self.stock.block_at(at)
                if block is not None:
                    if pieces and size + block.size > self.settings.batch_bytes:
                        break
                    data = self.ring.memory[block.start : block.stop]
                    pieces.append(Piece(data, None, block.run, block.origin, block.first - block.origin))
                    at = min(block.end, stop)
                elif (key := self.stock.key_at(at)) is not None:
                    payload = self.stock.loaded(key)
                    if payload is None:
                        break
                    first, end = span_of(key)
                    data, shift = payload.data, first - payload.origin
                    pieces.append(Piece(data, payload.found, payload.run, payload.origin, shift, payload.plain))
                    at = min(end, stop)
                else:
                    break
                size += len(data)
            if pieces:
                gaps = [gap for gap in gaps if gap[0] < at]
                if gaps and gaps[-1][1] >= at:
                    at = gaps.pop()[0]
                return Taken(span[0], at, pieces, gaps)
            if at in self.limbo or self.stock.key_at(at) is not None:
                return None
            # Neither in memory nor on disk: damage found at the start. It must not stop the rest.
            hole = next(self.limbo.gaps(at, self.stock.next_held(at, stop)))
            self.drop(*hole, "corrupt")
        return None

    def _next_span(
        self, cursor: Cursor, claimed: IntervalSet, most: int, order: str, fresh: int
    ) -> tuple[int, int, list[tuple[int, int]]] | None:
        """The range of the next batch, and its gaps."""
        end = self._open_first
        if order == "newest_first":
            open_runs = [gap for a, b in cursor.open(cursor.floor, end) for gap in claimed.gaps(a, b)]
            return (max(open_runs[-1][0], open_runs[-1][1] - most), open_runs[-1][1], []) if open_runs else None
        for begin in (max(fresh, cursor.floor), cursor.floor) if order == "balanced" else (cursor.floor,):
            runs = (run for a, b in cursor.open(begin, end) for run in claimed.gaps(a, b))
            for start, stop in runs:
                return self._bridged(start, min(stop, start + most), most, runs)
        return None

    def _bridged(
        self, start: int, stop: int, most: int, runs: Iterator[tuple[int, int]]
    ) -> tuple[int, int, list[tuple[int, int]]]:
        """A range that goes on over what is settled, if that is no more than a batch at a time."""
        gaps: list[tuple[int, int]] = []
        left = most - (stop - start)
        while left and (run := next(runs, None)) is not None and run[0] - stop <= self.settings.batch_records:
            gaps.append((stop, run[0]))
            stop = min(run[1], run[0] + left)
            left -= stop - run[0]
        return start, stop, gaps

    def put_loaded(self, key: int, payload: Payload | None) -> None:
        """Take what the keeper read of a row: what is not whole in it counts as corrupt."""
        with self.lock:
            start, stop = span_of(key)
            whole = IntervalSet()
            if payload is not None and payload.whole and payload.count == stop - start:
                whole.add(start, stop)
            elif payload is not None:
                shift = start - payload.origin
                for item in payload.frames:
                    whole.add(item.offset + shift, item.offset + shift + 1)
            self.stock.put_loaded(key, payload)
            for a, b in list(whole.gaps(start, stop)):
                self.drop(a, b, "corrupt")
            self.wake()

    # -- settling ------------------------------------------------------------------------------------------------

    def settle(self, cursor: Cursor, start: int, stop: int, how: str) -> int:
        """A target's answer for a range. Returns how many records of it were open."""
        with self.lock:
            number = cursor.settle(start, stop, how)
            if number:
                self.keep_cursor(cursor)
                self._free(start, stop)
            return number

    def drop(self, start: int, stop: int, reason: str) -> None:
        """Settle a range for every target as dropped."""
        with self.lock:
            for cursor in self.cursors.values():
                end = stop if cursor.left is None else min(stop, cursor.left)
                if cursor.settle(start, end, reason):
                    self.keep_cursor(cursor)
            self.on_drop(start, stop, reason)
            self._free(start, stop)

    def low(self) -> int:
        """The offset below which every target has settled everything."""
        return min(
            (c.floor for c in self.cursors.values() if c.left is None or c.floor < c.left), default=self._open_first
        )

    def _free(self, start: int, stop: int) -> None:
        """Let go of the blocks around a range that everyone has settled."""
        low = self.low()
        freed = self.stock.free_below(low)
        if stop > low:
            freed |= self.stock.free_between(max(start, low), stop, self._settled)
        if freed:
            self._move_head()
        elif self.settings.max_records is not None:
            self._bound()
        self._let_in()

    def _settled(self, start: int, stop: int) -> bool:
        return all(cursor.settled(start, stop) for cursor in self.cursors.values())

    def waiting(self) -> IntervalSet:
        """The offsets that some target has not settled."""
        with self.lock:
            found = IntervalSet()
            for cursor in self.cursors.values():
                for start, stop in cursor.open(cursor.floor, self.following if cursor.left is None else cursor.left):
                    found.add(start, stop)
            return found

    # -- keeping -------------------------------------------------------------------------------------------------

    def keep_cursor(self, cursor: Cursor) -> None:
        """Note in the ring where a target stands."""
        slot = self._slots.get(cursor.identity)
        if slot is not None and not self.ring.write_slot(slot, cursor.state(_RANGES_IN_SLOT)):
            self.ring.write_slot(slot, cursor.state(0))

    def give_slot(self, cursor: Cursor, slot: int | None = None) -> None:
        """Let a cursor have a place in the ring; without a free one it is only kept on disk."""
        if slot is None and cursor.identity not in self._slots:
            slot = min(set(range(1, SLOTS)) - set(self._slots.values()), default=None)
        if slot is not None:
            self._slots[cursor.identity] = slot
        elif cursor.identity not in self._slots and not self.crowded:
            self.crowded = True
            self.keep_ring()
        self.keep_cursor(cursor)

    def join(self, identity: str) -> Cursor:
        """The cursor of a target: the one kept of an earlier start, or a new one that begins here."""
        with self.lock:
            cursor = self.cursors.get(identity)
            if cursor is None:
                joined = self.following if self.ownerless is None else self.ownerless
                cursor = self.cursors[identity] = Cursor(identity, joined)
            elif cursor.left is not None:
                left, cursor.left = cursor.left, None
                cursor.settle(left, self.following, EXCLUDED)
            self.give_slot(cursor)
            self._bound()
            return cursor

    def leave(self, identity: str) -> None:
        """A target is not there at this start: its backlog stays, new records are not its business."""
        with self.lock:
            cursor = self.cursors[identity]
            if cursor.left is None:
                cursor.left = self.following
            if cursor.floor >= cursor.left and not cursor.dead:
                del self.cursors[identity]
                slot = self._slots.pop(identity, None)
                if slot is not None:
                    self.ring.clear_slot(slot)
            else:
                self.give_slot(cursor)
            self._bound()

    def state(self) -> bytes:
        """What the state row of the spool holds now: what is not on its way there is not in it."""
        with self.lock:
            for cursor in self.cursors.values():
                cursor.dirty = False
            cursors = [cursor.state() for cursor in self.cursors.values()]
            unsaved = self.stock.unsaved()
            following = self._open_first if unsaved is None else unsaved.first
            return seal([_encode(QueueState(VERSION, self.ring.run, following, self.clock.state)), *cursors])

    def settle_in(self) -> None:
        """After a start: let go of what was settled, and note where everything stands now."""
        with self.lock:
            on_disk = IntervalSet()
            for key in self.stock.index:
                on_disk.add(*span_of(key))
            if self.unread:
                return  # what is missing may be on the disk that does not open yet; ``attach`` is still to come
            self.recall()
            damaged, self.damaged = self.damaged, []
            for start, stop in damaged:
                for first, end in list(on_disk.gaps(start, stop)):
                    log.error("memory was damaged: records %d to %d are lost", first, end - 1)
                    self.drop(first, end, "corrupt")
            if self.ownerless is not None:
                log.warning("more targets than places in memory: what waits may be delivered to some of them again")
            elif self.cursors or not (self.stock.index or self.stock.blocks):
                self._free(0, self.following)
            else:
                # The cursors are gone, the records are not: whoever joins now begins with them.
                log.error("the cursors of this queue are lost: what waits in it is delivered to all targets")
                held = [span_of(key)[0] for key in self.stock.index[:1]] + [b.first for b in self.stock.blocks[:1]]
                self.ownerless = min(held)
            self._move_head()

    def recall(self) -> None:
        """Let the cursors find again what they had settled and had no place to note."""
        vague = [cursor for cursor in self.cursors.values() if cursor.vague is not None]
        if vague:
            gone = self.nowhere(min(cursor.floor for cursor in vague))
            for start, stop in self.damaged:
                gone.remove(start, stop)
            for cursor in vague:
                cursor.recall(gone)
                self.keep_cursor(cursor)

    def nowhere(self, start: int) -> IntervalSet:
        """The sealed offsets from ``start`` on that lie neither in memory nor on disk."""
        held = IntervalSet([*self.limbo, *map(span_of, self.stock.index)])
        for block in self.stock.blocks:
            held.add(block.first, block.end)
        return IntervalSet(held.gaps(start, self._open_first))

    # -- what the keeper does ------------------------------------------------------------------------------------

    def oldest_unsaved(self) -> float | None:
        """Queue time at which the oldest record that is not on disk was accepted, or None."""
        block = self.stock.unsaved()
        if block is not None:
            return block.born
        return self.born if self.open_count else None

    def first_unsaved(self) -> int:
        """The offset below which everything is on disk or settled."""
        for block in self.stock.blocks:
            if block.key is None or block.key == SAVING:
                return block.first
        return self._open_first

    def gather(self, most: int, until: int) -> list[tuple[Block, int, int]]:
        """Unsaved blocks and where they lie in the ring, oldest first: marked as being saved.

        They stay where they are until ``saved``, unless everyone settles them: ``start`` is -1 then.

        Args:
            most: bytes, about.
            until: the offset that the last of them begins before.
        """
        with self.lock:
            blocks = self.stock.blocks
            found: list[tuple[Block, int, int]] = []
            at, size = self.stock.first_unsaved(), 0
            while at < len(blocks) and size < most and blocks[at].first < until:
                if blocks[at].key is None:
                    if not found and at and self._join_small(blocks[at - 1], blocks[at]):
                        at -= 1
                    block = blocks[at]
                    block.key = SAVING
                    found.append((block, block.start, block.stop))
                    size += block.size
                at += 1
            return found

    def _join_small(self, before: Block, block: Block) -> bool:
        """Make one block of a small row and what came after it: a lone reading is not a row of its own."""
        key = before.key
        if (
            key is None
            or key == SAVING
            or before.stop != block.start
            or before.end != block.first
            or before.run != block.run
            or before.size + block.size > _JOIN_BELOW
            or self.ages_apart(before)
        ):
            return False
        before.count += block.count
        before.stop, before.last = block.stop, block.last
        before.replaces = [*before.replaces, key, *block.replaces]
        before.key = None
        self.stock.blocks.remove(block)
        return True

    def saved(self, blocks: Iterable[Block], *, done: bool) -> None:
        """The keeper's answer to ``gather``."""
        with self.lock:
            for block in blocks:
                if block.start < 0:
                    # Settled meanwhile: its row is superfluous already.
                    if done:
                        self.stock.freed.append(key_of(block.first, block.count))
                    continue
                block.key = key_of(block.first, block.count) if done else None
                if done:
                    block.replaces = []
            self._let_in()

    def drop_oldest_row(self) -> int:
        """Drop the oldest block on disk, to make room there. Returns how many records that were.

        One that a target has in hand goes only if there is no other: it is about to leave by itself.
        """
        with self.lock:
            spans = chain(
                map(span_of, self.stock.index),
                ((b.first, b.end) for b in self.stock.blocks if b.key is not None and b.key != SAVING),
            )
            oldest = next(spans, None)
            if oldest is None:
                return 0
            free = (span for span in chain((oldest,), spans) if not self.in_hand(*span))
            start, stop = next(free, oldest)
            self.drop(start, stop, "overflow")
            return stop - start

    def expire(self, max_age: float) -> float | None:
        """Drop what is too old. Returns in how many seconds to look again, or None: when something comes."""
        with self.lock:
            self.seal()
            while True:
                if self._row_is_oldest():
                    start, stop = span_of(self.stock.index[0])
                    times = self.stock.oldest_row()
                    if times is None:
                        self.stock.want(self.stock.index[0])
                        return None
                    last = times[1]
                elif self.stock.blocks:
                    start, stop = self.stock.blocks[0].first, self.stock.blocks[0].end
                    last = self.stock.blocks[0].last
                else:
                    return None
                left = last + max_age - self.clock.now()
                if left > 0:
                    return left
                self.drop(start, stop, "age")

    def _row_is_oldest(self) -> bool:
        index, blocks = self.stock.index, self.stock.blocks
        return bool(index) and (not blocks or span_of(index[0])[0] < blocks[0].first)

    def oldest_age(self) -> float:
        """Seconds since the oldest waiting record was accepted; 0 if none waits."""
        with self.lock:
            if self.low() >= self.following:
                return 0.0
            if self._row_is_oldest() and (times := self.stock.oldest_row()) is not None:
                return self.clock.now() - times[0]
            if self.stock.blocks:
                return self.clock.now() - self.stock.blocks[0].born
            return self.clock.now() - self.born if self.open_count else 0.0


def _nobody(start: int, stop: int) -> bool:  # noqa: ARG001 - stands in for what the engine puts there
    return False


def _behind(gaps: Sequence[tuple[int, int]], at: int) -> int:
    """The first offset from ``at`` on that is in no gap."""
    return next((stop for start, stop in gaps if start <= at < stop), at)


_encode = msgspec.msgpack.Encoder().encode
