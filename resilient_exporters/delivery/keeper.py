"""The keeper: the one thread that moves blocks, cursors and dead letters between memory and disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from resilient_exporters.delivery.block import Block, pack
from resilient_exporters.delivery.burials import Burials
from resilient_exporters.delivery.clock import Bell, Clock
from resilient_exporters.delivery.deadletters import DeadLetters, Letter
from resilient_exporters.delivery.guard import ResourceGuard
from resilient_exporters.delivery.listener import Listener
from resilient_exporters.delivery.queue import Queue
from resilient_exporters.delivery.recovery import attach, begin_blind, decode_state
from resilient_exporters.delivery.rescue import Rescue
from resilient_exporters.delivery.spool import STATE, Spool, SpoolDamaged, SpoolUnavailable, key_of, span_of

__all__ = ["Keeper"]

log = logging.getLogger("resilient_exporters")

_TIDY = 1.0  # seconds between two writes that only move cursors and delete rows
_RETRY_FIRST, _RETRY_MOST = 1.0, 60.0
_GUARD_EVERY = 10.0
_SHRINK_ABOVE = 1 << 20
_QUARANTINED = 100


class Keeper:
    """Owns the spool. Wakes up only when it is rung, or for what it has put off.

    Args:
        queue: the queue in memory.
        spool: the disk.
        guard: watches disk and memory.
        clock: the machine's clocks.
        listener: told when the disk fails or works again, and of letters dropped.
        name: of the thread.

    Attributes:
        trouble: why the disk is not used just now, or None.
        written: bytes of rows written.
        disk_bytes: of the directory, at the last write.
        late: saves that were later than promised.
        progress: called when dead letters were kept.
    """

    def __init__(
        self, queue: Queue, spool: Spool, guard: ResourceGuard, clock: Clock, listener: Listener, name: str
    ) -> None:
        self.queue = queue
        self.trouble: str | None = None
        self.written = 0
        self.disk_bytes = 0
        self.late = 0
        self.attached = threading.Event()
        self._spool = spool
        self._guard = guard
        self._clock = clock
        self._listener = listener
        self._bell = Bell()
        self._calls: list[Callable[[], None]] = []
        self._burials = Burials(queue, spool, listener, self._fits)
        self._rescue = Rescue(spool)
        self._waiters: list[_Waiter] = []
        self._save = False
        self._stopping = False
        self._blind = False
        self._tidied = -_TIDY
        self._guarded = -_GUARD_EVERY
        self._retry_at: float | None = None
        self._retry_wait = _RETRY_FIRST
        self._quarantined = 0
        self._stale = False
        self._joined = False
        self._failure: Exception | None = None
        self.progress: Callable[[], None] = queue.wake
        self.thread = threading.Thread(target=self._work, name=f"{name}-keeper", daemon=True)

    # -- called by others ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread and wait until what is on disk is part of the queue.

        Raises:
            InvalidConfigError: it was written by a newer version.
        """
        self.queue.save_soon = self.save_soon
        self.queue.stock.load_soon = self._bell.ring
        self.thread.start()
        self.attached.wait()
        if self._failure is not None:
            raise self._failure

    def save_soon(self) -> None:
        """Save what is not on disk, at the next opportunity."""
        self._save = True
        self._bell.ring()

    def tidy_soon(self) -> None:
        """Rows may be superfluous: delete them when it is time."""
        self._bell.ring()

    def save(self, timeout: float | None) -> bool:
        """Save all that was accepted before the call, and wait for it. False: not done in time, or not possible."""
        with self.queue.lock:
            until = self.queue.following
        return self._wait_saved(until, timeout)

    def commit(self, offset: int, timeout: float | None) -> bool:
        """Wait until the record ``offset`` is on disk; callers at the same time share one sync."""
        return self._wait_saved(offset + 1, timeout)

    def _wait_saved(self, until: int, timeout: float | None) -> bool:
        waiter = _Waiter(until)
        with self.queue.lock:
            self.queue.seal()
            if self.queue.first_unsaved() >= until:
                return True
            self._waiters.append(waiter)
            self._retry_at = None  # somebody asks: the disk is tried now
        self.save_soon()
        self._clock.wait(waiter.bell, timeout)
        with self.queue.lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            return waiter.saved

    def save_large(self, block: Block, frames: bytes) -> bool:
        """Write a block that never was in the ring, and wait for it."""
        return bool(self.call(lambda: self.write_row(key_of(block.first, block.count), pack(block, frames))))

    def bury(self, letters: list[Letter], kept: Callable[[], list[int]]) -> None:
        """Keep dead letters; ``kept`` is called, under the queue's lock, once they are on disk.

        It returns the places of those whose records were settled otherwise meanwhile: they are not kept.
        """
        self._burials.add(letters, kept)
        self._bell.ring()

    @property
    def letters(self) -> DeadLetters:
        """The dead letters on disk, for functions that run by ``call``."""
        return self._burials.letters

    def count_letters(self) -> None:
        """At the start, once the targets are there: let the cursors count the letters that are there."""
        self._burials.count()

    def call(self, function: Callable[[], Any], timeout: float | None = None) -> Any:
        """Run a function in the keeper's thread and return what it returns, or raise what it raises.

        Raises:
            SpoolUnavailable: the disk failed, or did not answer in time.
        """
        if threading.current_thread() is self.thread:
            return function()
        bell, result = Bell(), {}

        def run() -> None:
            try:
                result["value"] = function()
            except Exception as error:  # noqa: BLE001 - handed to the caller
                result["error"] = error
            finally:
                bell.ring()

        with self.queue.lock:
            if self._stopping:
                raise SpoolUnavailable("the queue is closed")
            self._calls.append(run)
        self._bell.ring()
        if not self._clock.wait(bell, timeout):
            raise SpoolUnavailable(f"no answer from the disk within {timeout} s")
        if "error" in result:
            raise result["error"]
        return result.get("value")

    def stop(self, timeout: float | None) -> bool:
        """Write what is due a last time and end the thread. Returns whether it ended in time."""
        self._stopping = True
        self._bell.ring()
        if self.thread.ident is not None:
            self.thread.join(timeout)
        return not self.thread.is_alive()

    # -- the thread ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._open()
        except Exception as error:  # noqa: BLE001 - raised again by start(), where the user sees it
            self._failure = error
            return
        finally:
            self.attached.set()
        while True:
            try:
                again = self._turn()
            except Exception:
                # A slip of ours must not end the thread that saves: it is said, and the next turn comes.
                log.exception("the keeper failed")
                again = _RETRY_FIRST
            if self._stopping and not self._calls:
                break
            self._clock.wait(self._bell, again)
        self._close()

    def _open(self) -> None:
        try:
            if self._spool.exists or self._rescue.look():
                try:
                    self._join(late=False)
                except SpoolDamaged as error:
                    self._rescue.begin(error)
                    self._join(late=False)
            self._joined = True
            self._spool.purge_aside()
            self.disk_bytes = self._spool.disk_bytes()
        except (SpoolUnavailable, OSError) as error:
            self._blind = True
            begin_blind(self.queue)
            self._fails(SpoolUnavailable(str(error)))

    def _join(self, *, late: bool) -> None:
        """Make what is on disk a part of the queue; first what an older database holds that was set aside."""
        self._spool.open()
        found = self._rescue.salvage() if self._rescue.look() else None
        if not self._joined:
            keys, letters = self._spool.keys()
            kept = decode_state(self._spool.get(STATE))
            attach(self.queue, keys, kept, late=late)
            self.letters.attach(letters)
            self._joined = True
            if found is not None:
                self._give_up(self.queue.nowhere(self.queue.low()))
                self._burials.robbed = True
            if late:
                self.queue.settle_in()
        elif found is not None:
            self._miss(found)
        if found is not None:
            self._rescue.finish()
            self._save = True
        self._blind = False

    def _miss(self, found: set[int]) -> None:
        """A fresh database has only these rows: what is in memory is saved again, the rest is gone."""
        with self.queue.lock:
            for block in self.queue.stock.blocks:
                if block.key is not None and block.key not in found:
                    block.key = None
            missing = [span_of(key) for key in self.queue.stock.index if key not in found]
        self._give_up(missing)
        self._burials.lost(found)

    def _give_up(self, lost: Iterable[tuple[int, int]]) -> None:
        number = 0
        for start, stop in lost:
            self.queue.drop(start, stop, "corrupt")
            number += stop - start
        if number:
            log.error("%d records could not be read any more", number)

    def _turn(self) -> float | None:
        """Do what is due. Returns after how many seconds to look again, or None: when rung."""
        now = self._clock.now()
        while self._calls:
            with self.queue.lock:
                calls, self._calls = self._calls, []
            for call in calls:
                call()
        if now - self._guarded >= _GUARD_EVERY:
            self._guarded = now
            self._guard.look()
            self.queue.pressed = self._guard.memory_low
        waits = self._retry_at is not None and now < self._retry_at and not self._stopping
        if waits and (self._blind or self._rescue.waits):
            return self._retry_at - now  # type: ignore[operator] # it waits, so there is a time
        try:
            if waits:
                return self._serve_full(now)
            if self._blind or self._rescue.waits:
                self._join(late=self._blind)
            self._load()
            if self._burials.work():
                self.disk_bytes = self._spool.disk_bytes()
                self.queue.wake()
                self.progress()
            if self._save or self._stopping:
                self._save = False
                self._save_all()
            again = self._tidy(now)
        except SpoolDamaged as error:
            try:
                self._rescue.begin(error)
                self._join(late=self._blind)
            except OSError as failure:
                self._fails(SpoolUnavailable(str(failure)))
                return self._retry_wait
            return 0.0
        except SpoolUnavailable as error:
            self._fails(error)
            return self._retry_wait
        self._works()
        return again

    def _serve_full(self, now: float) -> float:
        """While a save waits to be tried again: what is on disk is read all the same, and what is settled goes."""
        assert self._retry_at is not None  # noqa: S101 - the caller has looked
        self._load()
        freed = bool(self.queue.stock.freed)
        again = self._tidy(now)
        if freed and not self.queue.stock.freed:
            self._retry_at, self._save = None, True  # there is room again, perhaps
            return 0.0
        left = self._retry_at - now
        return left if again is None else min(left, again)

    def _fails(self, error: SpoolUnavailable) -> None:
        now = self._clock.now()
        if self.trouble is None:
            log.error("the queue's disk fails (%s): serving from memory, and trying it again", error)
            self._listener.disk_changed(str(error))
            self._retry_wait = _RETRY_FIRST
        else:
            self._retry_wait = min(_RETRY_MOST, self._retry_wait * 2)
        self.trouble = str(error)
        self._retry_at = now + self._retry_wait
        self._save = True
        self._answer_waiters(failed=True)

    def _works(self) -> None:
        self._retry_at = None
        if self.trouble is not None:
            log.warning("the queue's disk works again (was: %s)", self.trouble)
            self.trouble = None
            self._listener.disk_changed(None)

    # -- loading -------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        while True:
            with self.queue.lock:
                key = next(iter(self.queue.stock.wanted), None)
                if key is None:
                    return
                if key in self.queue.stock.freed or key not in self.queue.stock.index:
                    del self.queue.stock.wanted[key]
                    continue
            self._spool.open()
            payload, damaged = self._spool.read(key)
            if damaged and self._quarantined < _QUARANTINED:
                self._quarantined += 1
                self._spool.quarantine(f"{key}.block", damaged)
            self.queue.put_loaded(key, payload)

    # -- saving --------------------------------------------------------------------------------------------------

    def _save_all(self) -> None:
        with self.queue.lock:
            self.queue.seal()
            until = self.queue.following
        while True:
            born = self.queue.oldest_unsaved()
            gathered = self.queue.gather(self._spool.transaction_bytes, until)
            if not gathered:
                self._answer_waiters(failed=False)
                return
            blocks = [block for block, _, _ in gathered]
            done = False
            try:
                memory = self.queue.ring.memory
                frames = [memory[start:stop] for _, start, stop in gathered]  # not under the lock: senders go on
                kept = [(block, part) for block, part in zip(blocks, frames, strict=True) if block.start >= 0]
                puts = {key_of(block.first, block.count): pack(block, part) for block, part in kept}
                if not self._spool.exists and not self._guard.growth():
                    raise SpoolUnavailable("min_free_disk is reached")
                self._spool.open()
                if not self._make_room([len(row) for row in puts.values()]):
                    raise SpoolUnavailable("max_disk or min_free_disk is reached")
                self._write(puts, [key for block in blocks for key in block.replaces])
                done = True
            finally:
                self.queue.saved(blocks, done=done)
            window = self.queue.settings.loss_window
            if window and born is not None and self.queue.clock.now() - born > window:
                self.late += 1
            self._answer_waiters(failed=False)

    def _make_room(self, sizes: list[int]) -> bool:
        """Whether rows of these sizes fit the bounds; drops the oldest rows to make it so, if that is the policy."""
        while not self._spool.fits(sizes, self._guard.growth()):
            if self.queue.stock.freed:
                self._write({}, [])
                continue
            if self.queue.settings.on_full != "drop_oldest" or not self.queue.drop_oldest_row():
                return False
        return True

    def _write(self, puts: dict[int, bytes], deletes: list[int]) -> None:
        """One transaction: rows in, superfluous rows out, and the cursors as they stand."""
        with self.queue.lock:
            freed = self.queue.stock.freed
            self.queue.stock.freed = []
            state = self.queue.state()
        try:
            self._spool.write({**puts, STATE: state}, [*freed, *deletes])
        except BaseException:
            with self.queue.lock:
                self.queue.stock.freed.extend(freed)
            raise
        self.written += sum(map(len, puts.values())) + len(state)
        self._tidied = self._clock.now()
        self._stale = self._stale or bool(freed)
        self.disk_bytes = self._spool.disk_bytes()

    def _tidy(self, now: float) -> float | None:
        """Delete superfluous rows and note the cursors, at most once in a while; nothing where nothing is on disk."""
        with self.queue.lock:
            freed = bool(self.queue.stock.freed)
            rows_left = bool(self.queue.stock.index) or any(b.key is not None for b in self.queue.stock.blocks)
            dirty = rows_left and any(cursor.dirty for cursor in self.queue.cursors.values())
        if freed or dirty:
            wait = self._tidied + _TIDY - now
            if wait > 0 and not self._stopping:
                return wait
            self._spool.open()
            self._write({}, [])
        if self._stale and not rows_left and not self._save and self.disk_bytes > _SHRINK_ABOVE:
            self._stale = False
            self._spool.shrink()
            self.disk_bytes = self._spool.disk_bytes()
        return None

    def _answer_waiters(self, *, failed: bool) -> None:
        with self.queue.lock:
            saved = self.queue.first_unsaved()
            for waiter in list(self._waiters):
                if failed or waiter.until <= saved:
                    waiter.saved = waiter.until <= saved
                    self._waiters.remove(waiter)
                    waiter.bell.ring()

    def write_row(self, key: int, row: bytes) -> bool:
        """In the keeper's thread: write one row now. False if the disk does not take it."""
        if self._blind or self._rescue.waits:
            return False
        try:
            self._spool.open()
            if not self._make_room([len(row)]):
                return False
            self._write({key: row}, [])
        except SpoolUnavailable as error:
            self._fails(error)
            return False
        return True

    def _fits(self, size: int) -> bool:
        return self._spool.fits([size], self._guard.growth())

    def _close(self) -> None:
        try:
            self._spool.close()
        except (SpoolUnavailable, SpoolDamaged) as error:
            log.error("closing the queue's database: %s", error)


class _Waiter:
    """Somebody who waits until everything before an offset is on disk."""

    __slots__ = ("bell", "saved", "until")

    def __init__(self, until: int) -> None:
        self.until = until
        self.bell = Bell()
        self.saved = False
