"""The keeper: the one thread that moves blocks, cursors and dead letters between memory and disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from typing import Any

from resilient_exporters.delivery.archive import Archive
from resilient_exporters.delivery.block import Block, Payload, pack
from resilient_exporters.delivery.burials import Burials
from resilient_exporters.delivery.clock import Bell, Clock
from resilient_exporters.delivery.deadletters import DeadLetters, Letter
from resilient_exporters.delivery.forks import Whole
from resilient_exporters.delivery.guard import ResourceGuard
from resilient_exporters.delivery.listener import Listener
from resilient_exporters.delivery.queue import Queue
from resilient_exporters.delivery.recovery import attach, begin_blind, decode_state
from resilient_exporters.delivery.rescue import Rescue
from resilient_exporters.delivery.spool import STATE, Spool, SpoolDamaged, SpoolMoved, SpoolUnavailable, key_of, span_of

__all__ = ["Keeper"]

log = logging.getLogger("resilient_exporters")

_RETRY_FIRST, _RETRY_MOST = 1.0, 60.0
_GUARD_EVERY = 10.0


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
        archive: the rows, and figures about them.
        progress: called when dead letters were kept.
    """

    def __init__(
        self, queue: Queue, spool: Spool, guard: ResourceGuard, clock: Clock, listener: Listener, name: str
    ) -> None:
        self.queue = queue
        self.trouble: str | None = None
        self.attached = threading.Event()
        self._spool = spool
        self._guard = guard
        self._clock = clock
        self._listener = listener
        self._bell = Bell()
        self._calls: list[Callable[[], None]] = []
        self.archive = Archive(queue, spool, guard, clock)
        self._burials = Burials(queue, spool, listener, self.archive.fits)
        self._rescue = Rescue(spool)
        self._waiters: list[_Waiter] = []
        self._save = False
        self._stopping = False
        self._blind = False
        self._guarded = -_GUARD_EVERY
        self._retry_at: float | None = None
        self._retry_wait = _RETRY_FIRST
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
        if not self._blind:  # else nobody can tell yet
            self._burials.count()

    def welcome(self, identity: str) -> None:
        """A target has joined: let its cursor count the letters that are there, soon."""

        def count() -> None:
            if not self._blind:
                self._burials.welcome(identity)

        with self.queue.lock:
            self._calls.append(count)
        self._bell.ring()

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
        whole = Whole()
        try:
            with whole:
                self._open()
        except Exception as error:  # noqa: BLE001 - raised again by start(), where the user sees it
            self._failure = error
            with whole:
                self._close()
            return
        finally:
            self.attached.set()
        while True:
            try:
                with whole:
                    again = self._turn()
            except Exception:
                # A slip of ours must not end the thread that saves: it is said, and the next turn comes.
                log.exception("the keeper failed")
                again = _RETRY_FIRST
            if self._stopping and not self._calls:
                break
            self._clock.wait(self._bell, again)
        with whole:
            self._close()

    def _open(self) -> None:
        try:
            if self._spool.exists or self._rescue.look():
                try:
                    self._join(late=False)
                except SpoolDamaged as error:
                    self._rescue.begin(error)
                    self._join(late=False)
            else:
                self._burials.robbed = True
            self._joined = True
            self._spool.purge_aside()
            self.archive.measure()
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
            self._burials.robbed = kept is None
            attach(self.queue, keys, kept, late=late)
            self.letters.attach(letters)
            self._burials.robbed |= self.letters.damaged
            self._joined = True
            if found is not None:
                self._give_up(self.queue.nowhere(self.queue.low()))
                self._burials.robbed = True
            if late:
                self.queue.settle_in()
                self._burials.count()
        elif found is not None:
            self._miss(found)
        if found is not None:
            self._rescue.finish()
            self._save = True
        self._blind = False

    def _look_for_files(self) -> None:
        """See whether somebody took the files away that we write to: nothing else would tell.

        Raises:
            SpoolMoved
        """
        self._spool.check()
        ring = self.queue.ring
        if ring.durable and ring.lost:
            try:
                self.queue.renew_ring()
                log.warning("somebody removed %s: it was made again", ring.path)
            except OSError as error:
                ring.durable = False
                log.error("somebody removed %s (%s): what waits in memory ends with this process", ring.path, error)

    def _mend(self, error: SpoolMoved | SpoolDamaged) -> None:
        if isinstance(error, SpoolMoved):
            log.error("%s: what is open is put back", error)
            try:
                self._rescue.put_back()
            except SpoolDamaged as failure:
                error = failure
            else:
                self._save = True
                return
        self._rescue.begin(error)
        self._join(late=self._blind)

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
        retry_at = self._retry_at  # somebody may reset it at any time: then the bell rings
        left = 0.0 if retry_at is None or self._stopping else retry_at - now
        if left > 0 and (self._blind or self._rescue.waits):
            return left
        try:
            if left > 0:
                return self._serve_full(now, left)
            self._look_for_files()
            if self._blind or self._rescue.waits:
                self._join(late=self._blind)
            self.archive.load()
            if self._burials.work():
                self.archive.measure()
                self.queue.wake()
                self.progress()
            if self._save or self._stopping:
                self._save = False
                self.archive.save(self._answer_waiters)
            again = self.archive.tidy(now, ending=self._stopping, saving=self._save)
        except (SpoolMoved, SpoolDamaged) as error:
            try:
                self._mend(error)
            except OSError as failure:
                self._fails(SpoolUnavailable(str(failure)))
            return 0.0
        except SpoolUnavailable as error:
            self._fails(error)
            return self._retry_wait
        self._works()
        return again

    def _serve_full(self, now: float, left: float) -> float:
        """While a save waits to be tried again: what is on disk is read all the same, and what is settled goes."""
        self.archive.load()
        freed = bool(self.queue.stock.freed)
        again = self.archive.tidy(now, ending=self._stopping, saving=self._save, full=True)
        if freed and not self.queue.stock.freed:
            self._retry_at, self._save = None, True  # there is room again, perhaps
            return 0.0
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

    # -- saving --------------------------------------------------------------------------------------------------

    def _answer_waiters(self, *, failed: bool = False) -> None:
        with self.queue.lock:
            saved = self.queue.first_unsaved()
            for waiter in list(self._waiters):
                if failed or waiter.until <= saved:
                    waiter.saved = waiter.until <= saved
                    self._waiters.remove(waiter)
                    waiter.bell.ring()

    def read_row(self, key: int) -> Payload | None:
        """In the keeper's thread: what is whole in a row, or None."""
        return None if self._blind else self._spool.read(key)[0]

    def write_row(self, key: int, row: bytes, instead_of: Collection[Letter] = ()) -> bool:
        """In the keeper's thread: write one row now, in the place of some dead letters. False: the disk refuses."""
        if self._blind or self._rescue.waits:
            return False
        try:
            self._spool.open()
            puts, deletes = self.letters.without(instead_of)
            if not self.archive.put({key: row, **puts}, deletes):
                return False
            self.letters.left(instead_of, deletes)
            return True
        except SpoolUnavailable as error:
            self._fails(error)
            return False

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
