"""The archive: rows of the queue's blocks, as they are written, read back and deleted."""

from __future__ import annotations

from collections.abc import Callable

from resilient_exporters.delivery.block import Block, pack
from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.guard import ResourceGuard
from resilient_exporters.delivery.queue import Queue
from resilient_exporters.delivery.spool import STATE, Spool, SpoolUnavailable, key_of

__all__ = ["Archive"]

_ANY = 1 << 60  # bytes by which the files may grow, as far as others on the disk are concerned
_TIDY, _TIDY_MOST = 1.0, 300.0  # seconds between two writes that only move cursors and delete rows
_SHRINK_ABOVE = 1 << 20
_QUARANTINED = 100


class Archive:
    """Moves blocks and cursors between a queue and its disk. Used by the keeper's thread only.

    What fails raises ``SpoolUnavailable`` or ``SpoolDamaged``, and is as it was before.

    Args:
        queue: the queue in memory.
        spool: the disk.
        guard: says what the disk may hold.
        clock: the machine's clocks.

    Attributes:
        written: bytes of rows written.
        disk_bytes: of the directory, at the last write.
        late: saves that were later than promised.
    """

    def __init__(self, queue: Queue, spool: Spool, guard: ResourceGuard, clock: Clock) -> None:
        self.written = 0
        self.disk_bytes = 0
        self.late = 0
        self._queue = queue
        self._spool = spool
        self._guard = guard
        self._clock = clock
        self._tidied = -_TIDY
        self._quarantined = 0
        self._stale = False

    def measure(self) -> None:
        """See how much disk the directory takes."""
        self.disk_bytes = self._spool.disk_bytes()

    def load(self) -> None:
        """Read the rows that somebody waits for."""
        while True:
            with self._queue.lock:
                key = next(iter(self._queue.stock.wanted), None)
                if key is None:
                    return
                if key in self._queue.stock.freed or key not in self._queue.stock.index:
                    del self._queue.stock.wanted[key]
                    continue
            self._spool.open()
            payload, damaged = self._spool.read(key)
            if damaged and self._quarantined < _QUARANTINED:
                self._quarantined += 1
                self._spool.quarantine(f"{key}.block", damaged)
            self._queue.put_loaded(key, payload)

    def save(self, done_so_far: Callable[[], None]) -> None:
        """Write what is not on disk, in as many transactions as it takes.

        Args:
            done_so_far: called after each, and at the end.
        """
        with self._queue.lock:
            self._queue.seal()
            until = self._queue.following
        while True:
            born = self._queue.oldest_unsaved()
            gathered = self._queue.gather(self._spool.transaction_bytes, until)
            if not gathered:
                done_so_far()
                self._queue.wake()  # what came meanwhile is to be saved in its own time
                return
            blocks = [block for block, _, _ in gathered]
            done = False
            try:
                puts = self._packed(gathered)
                if not self._spool.exists and not self._guard.growth():
                    raise SpoolUnavailable("min_free_disk is reached")
                self._spool.open()
                if not self._make_room([len(row) for row in puts.values()]):
                    raise SpoolUnavailable("max_disk or min_free_disk is reached")
                self._write(puts, [key for block in blocks for key in block.replaces])
                done = True
            finally:
                self._queue.saved(blocks, done=done)
            window = self._queue.settings.loss_window
            if window and born is not None and self._queue.clock.now() - born > window:
                self.late += 1
            done_so_far()

    def _packed(self, gathered: list[tuple[Block, int, int]]) -> dict[int, bytes]:
        """The rows of blocks, compressed. Not under the lock: senders go on."""
        memory, found = self._queue.ring.memory, dict[int, bytes]()
        for block, start, stop in gathered:
            frames = memory[start:stop]  # one after the other: all together are 4 MB
            if block.start >= 0:  # else everyone has settled it meanwhile, and its place may hold other records
                found[key_of(block.first, block.count)] = pack(block, frames)
        return found

    def put(self, rows: dict[int, bytes], deletes: list[int]) -> bool:
        """Write some rows now, and delete others. False if the bounds have no room for it."""
        self._spool.open()
        if not self._make_room([len(row) for row in rows.values()]):
            return False
        self._write(rows, deletes)
        return True

    def tidy(self, now: float, *, ending: bool, saving: bool, full: bool = False) -> float | None:
        """Delete superfluous rows and note the cursors, at most once in a while; nothing where nothing is on disk.

        A while is a second, or ``loss_window`` where that is more (at most 5 minutes): who accepts that a power cut
        takes so much spares the card, and what a cut takes of these notes is delivered again.

        Args:
            now: the time.
            ending: do not put it off.
            saving: there is something to save, so space is not given back yet.
            full: the disk needs the room.

        Returns:
            After how many seconds to look again, or None.
        """
        with self._queue.lock:
            freed = bool(self._queue.stock.freed)
            rows_left = bool(self._queue.stock.index) or any(b.key is not None for b in self._queue.stock.blocks)
            dirty = rows_left and any(cursor.dirty for cursor in self._queue.cursors.values())
        if freed or dirty:
            pause = _TIDY if full else max(_TIDY, min(self._queue.settings.loss_window or 0.0, _TIDY_MOST))
            wait = self._tidied + pause - now
            if wait > 0 and not ending:
                return wait
            self._spool.open()
            self._write({}, [])
        if self._stale and not rows_left and not saving and self.disk_bytes > _SHRINK_ABOVE:
            self._stale = False
            self._spool.shrink()
            self.measure()
        return None

    def fits(self, size: int) -> bool:
        """Whether a row of letters of that size fits the bounds on the disk, and the oldest can be rewritten then."""
        spare = self._spool.letter_bytes
        if self._spool.fits([size], self._guard.growth(), spare):
            return True
        if not self._queue.stock.freed:
            return False
        self._write({}, [])
        return self._spool.fits([size], self._guard.growth(), spare)

    def _make_room(self, sizes: list[int]) -> bool:
        """Whether rows of these sizes fit the bounds; drops the oldest rows to make it so, if that is the policy.

        They leave room for a row of letters, which are kept whatever waits, and for the next one.
        """
        spare = self._spool.transaction_bytes
        while not self._spool.fits(sizes, self._guard.growth(), spare):
            if self._queue.stock.freed:
                self._write({}, [])
                continue
            if not self._queue.half_full() and self._spool.fits(sizes, _ANY, spare):
                return False  # others fill the disk: that may pass, and memory has room until then
            if self._queue.settings.on_full != "drop_oldest" or not self._queue.drop_oldest_row():
                return False
        return True

    def _write(self, puts: dict[int, bytes], deletes: list[int]) -> None:
        """One transaction: rows in, superfluous rows out, and the cursors as they stand."""
        with self._queue.lock:
            freed = self._queue.stock.freed
            self._queue.stock.freed = []
            state = self._queue.state()
        try:
            self._spool.write({**puts, STATE: state}, [*freed, *deletes])
        except BaseException:
            with self._queue.lock:
                self._queue.stock.freed.extend(freed)
            raise
        self.written += sum(map(len, puts.values())) + len(state)
        self._tidied = self._clock.now()
        self._stale = self._stale or bool(freed)
        self.measure()
