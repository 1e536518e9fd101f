"""The door of the queue: where a record is taken in, and room is made for it.

The fast path is a lock, a checksum and one copy into the ring. Everything else (a full block, the end of the ring, a
full queue) goes the slow way.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from bisect import insort
from collections.abc import Callable

import msgspec

from resilient_exporters.delivery.block import Block
from resilient_exporters.delivery.checksum import crc32_function
from resilient_exporters.delivery.clock import Clock, QueueClock
from resilient_exporters.delivery.cursor import EXCLUDED, Cursor
from resilient_exporters.delivery.frame import ELSEWHERE, HEAD, HEAD_SIZE, frame
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.ring import Ring
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.spool import key_of
from resilient_exporters.delivery.stock import Stock
from resilient_exporters.errors import ClosedError, QueueFullError

__all__ = ["Intake", "RingState"]

_LOW = 0xFFFF_FFFF
_PACK = HEAD.pack


class RingState(msgspec.Struct, array_like=True):
    """What the ring's own slot holds: where its frames begin, and up to where they were known to be written."""

    head: int
    offset: int
    sealed: int
    following: int
    clock: tuple[str, float, float]
    lineage: bytes = b""
    crowded: bool = False


class Intake(ABC):
    """The open block, the ring's free space, and the bounds on what may wait.

    Args:
        settings: the exporter's options, checked.
        ring: the memory tier, opened.
        clock: the machine's clocks.

    Attributes:
        lock: guards everything here.
        cursors: by target identity.
        stock: the sealed blocks.
        limbo: offsets of records that never were in the ring, on their way to disk.
        large: takes the records that are larger than a quarter of the ring.
        begun: called, under the lock, by the first record of a block.
        alert: the next record that begins a block is to wake the dispatcher; else something is on its way anyway.
        wake, save_soon: called when there is something to dispatch or to save.
        on_drop: called with start, stop and reason of every drop, under the lock; start is -1 for a record that was
            turned away.
        crowded: some target has no place in the ring; after a kill it begins with what is there.
        lineage: run of the disk's state when the ring began: a disk of any other is not this ring's.
        pressed: memory is short: keep little in the ring.
    """

    # What ``append`` looks at has slots: there are more attributes here than the interpreter finds quickly in a dict.
    __slots__ = ("__dict__", "_crc32", "_edge", "_fresh", "_mark", "_memory", "_seal_at", "lock")

    def __init__(self, settings: Settings, ring: Ring, clock: Clock) -> None:
        self.settings = settings
        self.ring = ring
        self._memory = ring.memory
        self._crc32 = crc32_function()
        self.lock = threading.RLock()
        self.cursors: dict[str, Cursor] = {}
        self.stock = Stock()
        self.limbo = IntervalSet()
        self.wake: Callable[[], None] = _nothing
        self.begun: Callable[[], None] = _nothing
        self.save_soon: Callable[[], None] = _nothing
        self.on_drop: Callable[[int, int, str], None] = _nothing_of
        self.closed = False
        self.lineage = b""
        self.crowded = False
        self.alert = True
        self.pressed = False
        self.large: Callable[[bytes, int], int] = _no_room
        self._large = ring.capacity // 4
        self.clock = QueueClock(clock)
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

    @abstractmethod
    def low(self) -> int:
        """The offset below which every target has settled everything."""

    @abstractmethod
    def drop(self, start: int, stop: int, reason: str) -> None:
        """Settle a range for every target as dropped."""

    @abstractmethod
    def keep_cursor(self, cursor: Cursor) -> None:
        """Note in the ring where a target stands."""

    @abstractmethod
    def _free(self, start: int, stop: int) -> None:
        """Let go of the blocks around a range that everyone has settled."""

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
        check = self._crc32(payload)
        with self.lock:
            start, offset = mark = self._mark
            end = start + HEAD_SIZE + size
            if end <= self._edge and offset < self._seal_at:
                whole = _PACK(size | flags, check ^ flags ^ (offset & _LOW)) + payload
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
        while True:
            if again:
                self.seal()
                if not self._has_room(size, again=True):
                    raise QueueFullError(None, "no room in memory just now: try again when less waits")
            elif not self._make_room(size):
                return self._turn_away()
            start, offset = mark = self._mark
            whole = frame(payload, offset, flags)
            if self._mark is mark:  # as in ``append``
                break
        self._memory[start : start + size] = whole
        self._mark = (start + size, offset + 1)
        self._begin()
        return offset

    def _turn_away(self) -> int:
        for cursor in self.cursors.values():
            if cursor.left is None:
                cursor.refuse("overflow")
                self.keep_cursor(cursor)
        self.on_drop(-1, 0, "overflow")
        return -1

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
            return first if made == count else -1

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
            if (
                self.pressed
                and self.stock.blocks
                and self.memory_bytes() + size > self.ring.capacity // 4
                and self._evict()
            ):
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
                and not self.ages_apart(last)
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
            if self.half_full():
                self.save_soon()

    def ages_apart(self, block: Block) -> bool:
        """Whether what comes now is so much younger than a block that ``max_age`` would hold it back with this one."""
        most = self.settings.max_age
        return most is not None and self.clock.now() - block.born > most / 20

    def half_full(self) -> bool:
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

    # -- the ring's space ----------------------------------------------------------------------------------------

    def _let_in(self) -> None:
        self._door.notify_all()

    def _move_head(self) -> None:
        head = self.stock.blocks[0].start if self.stock.blocks else self._open
        if self._wrapped and head < self._head:
            self._wrapped = False
        self._head = head
        self.keep_ring()
        self._bound()

    def keep_ring(self) -> None:
        """Note in the ring where its frames begin."""
        blocks = self.stock.blocks
        head, offset = (blocks[0].start, blocks[0].first) if blocks else (self._open, self._open_first)
        self.ring.write_slot(
            0,
            _encode(
                RingState(head, offset, self._open, self._open_first, self.clock.state, self.lineage, self.crowded)
            ),
        )

    def renew_ring(self) -> None:
        """Put the ring's file back where it was, with all it holds.

        Raises:
            OSError: see ``Ring.renew``.
        """
        with self.lock:
            self.ring.renew()
            self._memory = self.ring.memory

    def memory_bytes(self) -> int:
        """Bytes of the ring in use."""
        used = self._mark[0] - self._head
        return used + self.ring.capacity if self._wrapped else used


_encode = msgspec.msgpack.Encoder().encode


def _nothing() -> None: ...


def _no_room(payload: bytes, flags: int) -> int:  # noqa: ARG001 - stands in for what the engine puts there
    raise QueueFullError(None, f"a record of {len(payload)} bytes is larger than a quarter of max_memory")


def _nothing_of(start: int, stop: int, reason: str) -> None: ...
