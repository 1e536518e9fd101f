"""The queue: what was accepted, and who has settled it.

All state is guarded by one lock that is never held across I/O. The keeper (its own thread) moves blocks between here
and the spool; the targets take batches from here and settle them.
"""

from __future__ import annotations

import logging
import threading
from bisect import insort
from collections.abc import Callable, Iterable
from typing import NamedTuple
from zlib import crc32

import msgspec

from resilient_exporters.delivery.block import Block, Payload
from resilient_exporters.delivery.clock import Clock, QueueClock
from resilient_exporters.delivery.cursor import EXCLUDED, Cursor
from resilient_exporters.delivery.frame import ELSEWHERE, HEAD, HEAD_SIZE, Frame, frame
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.ring import SLOTS, Ring
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.spool import key_of, span_of
from resilient_exporters.delivery.stock import SAVING, Stock
from resilient_exporters.errors import ClosedError, QueueFullError

__all__ = ["VERSION", "Piece", "Queue", "QueueState", "RingState", "Taken"]

log = logging.getLogger("resilient_exporters")

VERSION = 1
"""Format of the state row and of the blocks. A newer one is left alone."""
_LOW = 0xFFFF_FFFF
_RANGES_IN_SLOT = 40
_JOIN_BELOW = 4096  # raw bytes up to which a saved row is rewritten together with what came after it
_PACK = HEAD.pack


class QueueState(msgspec.Struct, array_like=True):
    """What the state row of the spool holds."""

    version: int
    run: bytes
    following: int
    clock: tuple[str, float, float]
    cursors: list[bytes]


class RingState(msgspec.Struct, array_like=True):
    """What the ring's own slot holds: where its frames begin, and up to where they were known to be written."""

    head: int
    offset: int
    sealed: int
    following: int
    clock: tuple[str, float, float]


class Piece(NamedTuple):
    """Frames of one run that hold some of a batch's records.

    ``frames`` is None where ``data`` has still to be scanned, from the offset ``origin`` on; ``shift`` added to the
    offset of a frame gives the queue's.
    """

    data: bytes
    frames: list[Frame] | None
    run: bytes
    origin: int
    shift: int


class Taken(NamedTuple):
    """What a target gets to deliver: a range of offsets that nobody else works on, and the frames it lies in."""

    start: int
    stop: int
    pieces: list[Piece]


class Queue:
    """The log of accepted records.

    Args:
        settings: the exporter's options, checked.
        ring: the memory tier, opened.
        clock: the machine's clocks.

    Attributes:
        lock: guards everything here.
        cursors: by target identity.
        stock: the sealed blocks.
        limbo: offsets of records too large for the ring, on their way to disk.
        large: takes the records that are larger than a quarter of the ring.
        begun: called, under the lock, by the first record of a block.
        wake, save_soon: called when there is something to dispatch or to save.
        on_drop: called with start, stop and reason of every drop, under the lock.
        alert: the next record that begins a block is to wake the dispatcher; else something is on its way anyway.
        damaged: ranges that were found damaged in the ring at the start, until it is clear what the disk has of them.
        pressed: memory is short: keep little in the ring.
    """

    def __init__(self, settings: Settings, ring: Ring, clock: Clock) -> None:
        self.settings = settings
        self.ring = ring
        self._memory = ring.memory
        self.lock = threading.RLock()
        self.cursors: dict[str, Cursor] = {}
        self.stock = Stock()
        self.limbo = IntervalSet()
        self.wake: Callable[[], None] = _nothing
        self.begun: Callable[[], None] = _nothing
        self.save_soon: Callable[[], None] = _nothing
        self.on_drop: Callable[[int, int, str], None] = _nothing_of
        self.closed = False
        self.alert = True
        self.damaged: list[tuple[int, int]] = []
        self.pressed = False
        self.large: Callable[[bytes, int], int] = _no_room
        self._large = ring.capacity // 4
        self.clock = QueueClock(clock)
        self._slots: dict[str, int] = {}
        self._door = threading.Condition(self.lock)
        self._block_bytes = min(settings.batch_bytes, ring.capacity // 8)
        self.start_at(ring.base, 0)

    def start_at(self, position: int, following: int, *, head: int | None = None, wrapped: bool = False) -> None:
        """Begin an empty open block at a place of the ring."""
        self._head = position if head is None else head
        self._wrapped = wrapped
        self._open, self._open_first = position, following
        self._mark = (position, following)
        self._fresh = True
        self.born = self.clock.now()
        self._bound()

    # -- accepting -----------------------------------------------------------------------------------------------

    @property
    def following(self) -> int:
        """The offset that the next record gets."""
        return self._mark[1]

    def append(self, payload: bytes, flags: int = 0) -> int:
        """Take one encoded record and return its offset; -1 if it was dropped as the newest of a full queue.

        Waits for nothing, unless ``on_full`` is "block".

        Raises:
            ClosedError, QueueFullError
        """
        size = len(payload)
        check = crc32(payload)
        with self.lock:
            start, offset = mark = self._mark
            end = start + HEAD_SIZE + size
            if end <= self._edge and offset < self._seal_at:
                whole = _PACK(size | flags, check ^ (offset & _LOW)) + payload
                if self._mark is mark:  # else a signal handler sent something in between
                    # From here to the mark nothing can interrupt: a half-done append would tear the chain of frames.
                    self._memory[start:end] = whole
                    self._mark = (end, offset + 1)
                    if self._fresh:
                        self._begin()
                    return offset
        if size > self._large:
            return self.large(payload, flags)
        with self.lock:
            return self._append_slowly(payload, flags)

    def append_again(self, payload: bytes, flags: int) -> int:
        """Take a record that was accepted before (a dead letter): the bounds on new ones do not hold for it.

        Raises:
            QueueFullError: there is no room in memory just now.
        """
        with self.lock:
            return self._append_slowly(payload, flags, again=True)

    def _append_slowly(self, payload: bytes, flags: int, *, again: bool = False) -> int:
        """Append where the open block is full, or the ring, or the queue."""
        size = HEAD_SIZE + len(payload)
        if again:
            self.seal()
            if not self._has_room(size, again=True):
                raise QueueFullError(None, "no room in memory just now: try again when less waits")
        elif not self._make_room(size):
            for cursor in self.cursors.values():
                if cursor.left is None:
                    cursor.refuse("overflow")
                    self.keep_cursor(cursor)
            self.on_drop(-1, 0, "overflow")
            return -1
        start, offset = self._mark
        self._memory[start : start + size] = frame(payload, offset, flags)
        self._mark = (start + size, offset + 1)
        self._begin()
        return offset

    def reserve(self, count: int, *, again: bool = False) -> int:
        """Offsets for records that never were in the ring and are being saved as a block of their own.

        They are in ``limbo`` until ``placed``. -1 if they were dropped, as ``append`` says.

        Args:
            count: how many.
            again: they were accepted before (by a queue that is adopted), so bounds on new ones do not hold.

        Raises:
            ClosedError, QueueFullError
        """
        with self.lock:
            first, made = -1, 0
            try:
                while made < count:
                    self.seal()
                    offset = self._append_slowly(b"", ELSEWHERE, again=again)
                    if offset < 0:
                        break
                    first = offset if first < 0 else first
                    made += 1
                    self._open, self._open_first = self._mark
                    self._fresh = True
            finally:
                if first >= 0:
                    self.limbo.add(first, first + made)
                    self._bound()
                    self.keep_ring()
                    if made < count:
                        self.placed(first, made, done=False)
            return first

    def placed(self, first: int, count: int = 1, *, done: bool) -> None:
        """The records with reserved offsets are on disk; or they are not, and were never accepted."""
        with self.lock:
            self.limbo.remove(first, first + count)
            if done:
                insort(self.stock.index, key_of(first, count))
            else:
                for cursor in self.cursors.values():
                    cursor.settle(first, first + count, EXCLUDED)
                    self.keep_cursor(cursor)
            self._free(first, first + count)
            self.wake()

    def close_door(self) -> None:
        """Take no more records."""
        with self.lock:
            self.seal()
            self.closed = True
            self._bound()
            self._let_in()

    def empty_ring(self) -> bool:
        """Keep in memory only what is nowhere else. Returns whether that is nothing."""
        with self.lock:
            while self._evict():
                continue
            return not self.stock.blocks

    def _begin(self) -> None:
        self._fresh = False
        self.born = self.clock.now()
        self.begun()
        if self.alert:
            self.alert = False
            self.wake()

    def _bound(self) -> None:
        """Set where the fast path ends: a full block, the end of the ring or of free space, or a full queue."""
        limit = (self._head - 1) if self._wrapped else self.ring.end
        self._edge = -1 if self.closed else min(limit, self._open + self._block_bytes)
        self._seal_at = self._open_first + self.settings.batch_records
        if self.settings.max_records is not None:
            self._seal_at = min(self._seal_at, self.low() + self.settings.max_records)

    def _make_room(self, size: int) -> bool:
        """Room for one frame at the mark, by ``on_full`` if need be. False: drop the newest."""
        deadline: float | None = None
        machine = self.clock.clock
        while True:
            if self.closed:
                raise ClosedError(None, "closed: it takes no more records")
            self.seal()
            if self._has_room(size):
                return True
            policy = self.settings.on_full
            if policy == "drop_newest":
                return False
            if policy == "raise":
                raise QueueFullError(None, self._full_text())
            if policy == "drop_oldest":
                self._drop_oldest()
                continue
            now = machine.now()
            if deadline is None and self.settings.full_timeout is not None:
                deadline = now + self.settings.full_timeout
            if deadline is not None and now >= deadline:
                raise QueueFullError(None, f"{self._full_text()}; waited {self.settings.full_timeout:g} s")
            self._door.wait(None if deadline is None else deadline - now)

    def _has_room(self, size: int, *, again: bool = False) -> bool:
        """Whether a frame fits; wraps, and lets go of blocks that are on disk, to make it so."""
        most = self.settings.max_records
        if most is not None and not again and self.following - self.low() >= most:
            return False
        while True:
            start = self._mark[0]
            if not self.stock.blocks and start != self.ring.base:
                # Nothing is in the ring: back to its first pages, which are in use already.
                self.start_at(self.ring.base, self.following)
                self.keep_ring()
                continue
            if self.pressed and self.stock.blocks and self.memory_bytes() + size > self.ring.capacity // 4 and self._evict():
                continue
            if not self._wrapped:
                if start + size <= self.ring.end:
                    break
                if self.ring.base + size <= self._head - 1:
                    self.ring.wrap(start)
                    self.start_at(self.ring.base, self.following, head=self._head, wrapped=True)
                    break
            elif start + size <= self._head - 1:
                break
            if not self._evict():
                self.save_soon()
                return False
        self._bound()
        return True

    def _evict(self) -> bool:
        if not self.stock.evict():
            return False
        self._move_head()
        return True

    def _drop_oldest(self) -> None:
        most, low = self.settings.max_records, self.low()
        if most is not None and self.following - low >= most:
            # A tenth of the bound or of a block at a time, so that a queue at its bound is not dropped one by one.
            self.drop(low, low + max(1, min(most, self.settings.batch_records) // 10), "overflow")
        else:
            self.drop(self.stock.blocks[0].first, self.stock.blocks[0].end, "overflow")

    def _full_text(self) -> str:
        return (
            f"the queue is full ({self.following - self.low()} records wait): raise max_records, max_memory or "
            'max_disk, or let on_full="drop_oldest" make room'
        )

    def seal(self) -> None:
        """End the open block: it may now be delivered and saved."""
        with self.lock:
            stop, following = self._mark
            start, first = self._open, self._open_first
            if following == first:
                return
            blocks, now = self.stock.blocks, self.clock.now()
            last = blocks[-1] if blocks else None
            if (
                last is not None
                and last.key is None
                and last.stop == start
                and last.end == first
                and last.run == self.ring.run
                and last.count + following - first <= self.settings.batch_records
                and last.size + stop - start <= self._block_bytes
            ):
                last.count += following - first
                last.stop, last.last = stop, now
            else:
                blocks.append(Block(first, following - first, self.ring.run, start, stop, self.born, now))
            self._open, self._open_first = stop, following
            self._fresh = True
            self.keep_ring()
            self._free(first, following)
            self._bound()
            if self._pressing():
                self.save_soon()

    def _pressing(self) -> bool:
        """Whether half of the ring is full of what is not on disk."""
        unsaved = self.stock.unsaved()
        if unsaved is None:
            return False
        used = self._mark[0] - unsaved.start
        return (used if used >= 0 else used + self.ring.capacity) > self.ring.capacity // 2

    @property
    def open_count(self) -> int:
        """Records in the open block."""
        return self._mark[1] - self._open_first

    @property
    def sealed(self) -> int:
        """The offset after the last sealed record."""
        return self._open_first

    # -- taking --------------------------------------------------------------------------------------------------

    def take(self, cursor: Cursor, claimed: IntervalSet, most: int, order: str, fresh: int) -> Taken | None:
        """The next records of a target that nobody works on, or None: nothing sealed, or not read from disk yet.

        Args:
            claimed: offsets in flight.
            most: records at most.
            order: "fifo", "newest_first" or "balanced".
            fresh: offset from which records count as fresh ("balanced").
        """
        while (span := self._next_span(cursor, claimed, most, order, fresh)) is not None:
            at, stop = span
            pieces: list[Piece] = []
            size = 0
            while at < stop and size < self.settings.batch_bytes:
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
                    data = payload.data
                    pieces.append(Piece(data, payload.frames, payload.run, payload.origin, first - payload.origin))
                    at = min(end, stop)
                else:
                    break
                size += len(data)
            if pieces:
                return Taken(span[0], at, pieces)
            if at in self.limbo or self.stock.key_at(at) is not None:
                return None
            # Neither in memory nor on disk: damage found at the start. It must not stop the rest.
            self.drop(at, self.stock.next_held(at, stop), "corrupt")
        return None

    def _next_span(
        self, cursor: Cursor, claimed: IntervalSet, most: int, order: str, fresh: int
    ) -> tuple[int, int] | None:
        end = self._open_first
        if order == "newest_first":
            gaps = [gap for a, b in cursor.open(cursor.floor, end) for gap in claimed.gaps(a, b)]
            return (max(gaps[-1][0], gaps[-1][1] - most), gaps[-1][1]) if gaps else None
        for begin in (max(fresh, cursor.floor), cursor.floor) if order == "balanced" else (cursor.floor,):
            for a, b in cursor.open(begin, end):
                for start, stop in claimed.gaps(a, b):
                    return start, min(stop, start + most)
        return None

    def put_loaded(self, key: int, payload: Payload | None) -> None:
        """Take what the keeper read of a row: what is not whole in it counts as corrupt."""
        with self.lock:
            start, stop = span_of(key)
            whole = IntervalSet()
            if payload is not None:
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
        return min((c.floor for c in self.cursors.values() if c.left is None or c.floor < c.left), default=self._open_first)

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

    def _let_in(self) -> None:
        self._door.notify_all()

    def _settled(self, start: int, stop: int) -> bool:
        return all(cursor.settled(start, stop) for cursor in self.cursors.values())

    def _move_head(self) -> None:
        head = self.stock.blocks[0].start if self.stock.blocks else self._open
        if self._wrapped and head < self._head:
            self._wrapped = False
        self._head = head
        self.keep_ring()
        self._bound()

    # -- keeping -------------------------------------------------------------------------------------------------

    def keep_ring(self) -> None:
        """Note in the ring where its frames begin."""
        blocks = self.stock.blocks
        head, offset = (blocks[0].start, blocks[0].first) if blocks else (self._open, self._open_first)
        self.ring.write_slot(0, _encode(RingState(head, offset, self._open, self._open_first, self.clock.state)))

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
        self.keep_cursor(cursor)

    def join(self, identity: str) -> Cursor:
        """The cursor of a target: the one kept of an earlier start, or a new one that begins here."""
        with self.lock:
            cursor = self.cursors.get(identity)
            if cursor is None:
                cursor = self.cursors[identity] = Cursor(identity, self.following)
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
            return _encode(QueueState(VERSION, self.ring.run, following, self.clock.state, cursors))

    def settle_in(self) -> None:
        """After a start: let go of what was settled, and note where everything stands now."""
        with self.lock:
            on_disk = IntervalSet()
            for key in self.stock.index:
                on_disk.add(*span_of(key))
            damaged, self.damaged = self.damaged, []
            for start, stop in damaged:
                for first, end in list(on_disk.gaps(start, stop)):
                    log.error("memory was damaged: records %d to %d are lost", first, end - 1)
                    self.drop(first, end, "corrupt")
            self._free(0, self.following)
            self._move_head()

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
        """Drop the oldest block on disk, to make room there. Returns how many records that were."""
        with self.lock:
            if self.stock.index:
                start, stop = span_of(self.stock.index[0])
            else:
                saved = next((b for b in self.stock.blocks if b.key is not None and b.key != SAVING), None)
                if saved is None:
                    return 0
                start, stop = saved.first, saved.end
            self.drop(start, stop, "overflow")
            return stop - start

    def expire(self, max_age: float) -> float | None:
        """Drop what is too old. Returns in how many seconds to look again, or None: when something comes."""
        with self.lock:
            self.seal()
            while True:
                if self.stock.index:
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

    # -- figures -------------------------------------------------------------------------------------------------

    def memory_bytes(self) -> int:
        """Bytes of the ring in use."""
        used = self._mark[0] - self._head
        return used + self.ring.capacity if self._wrapped else used

    def oldest_age(self) -> float:
        """Seconds since the oldest waiting record was accepted; 0 if none waits."""
        with self.lock:
            if self.low() >= self.following:
                return 0.0
            times = self.stock.oldest_row()
            if times is not None:
                return self.clock.now() - times[0]
            if self.stock.blocks:
                return self.clock.now() - self.stock.blocks[0].born
            return self.clock.now() - self.born if self.open_count else 0.0


_encode = msgspec.msgpack.Encoder().encode


def _nothing() -> None: ...


def _no_room(payload: bytes, flags: int) -> int:
    raise QueueFullError(None, f"a record of {len(payload)} bytes is larger than a quarter of max_memory")


def _nothing_of(start: int, stop: int, reason: str) -> None: ...
