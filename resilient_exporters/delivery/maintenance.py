"""Maintenance: what is changed in a queue directory by hand, while no program holds it.

The directory is opened as an engine would open it, without targets: nothing is delivered.
"""

from __future__ import annotations

import os
from bisect import insort
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from resilient_exporters.delivery.block import Block, Payload, pack
from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.cursor import Cursor
from resilient_exporters.delivery.deadletters import Letter
from resilient_exporters.delivery.directory import DirectoryLock
from resilient_exporters.delivery.frame import HEAD_SIZE, Frame
from resilient_exporters.delivery.guard import ResourceGuard
from resilient_exporters.delivery.inspection import is_queue
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.keeper import Keeper
from resilient_exporters.delivery.listener import Listener
from resilient_exporters.delivery.queue import Queue
from resilient_exporters.delivery.recovery import take_over
from resilient_exporters.delivery.replay import replay
from resilient_exporters.delivery.ring import Ring, ring_path
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.spool import STATE, Spool, key_of, span_of

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Maintenance", "RepairReport"]

_UNBOUNDED = 1 << 60
_STOP = 60.0


class RepairReport(msgspec.Struct, frozen=True):
    """What a repair did.

    Attributes:
        blocks: damaged blocks that were written anew with what was whole in them; their bytes are in quarantine.
        lost: by target, records that could not be saved; they count as ``dropped{corrupt}``.
        letters: by target, dead letters that could not be saved.
        set_aside: the database that was replaced, or "".
        salvaged: records that were read out of it.
        saved: records that were in memory only and are on disk now.
        ownerless: blocks that wait for nobody knows whom, because the cursors are gone. They are left as they are.
    """

    blocks: int
    lost: dict[str, int]
    letters: dict[str, int]
    set_aside: str
    salvaged: int
    saved: int
    ownerless: int

    @property
    def sound(self) -> bool:
        """Whether there was nothing to repair."""
        return not (self.blocks or self.lost or self.letters or self.set_aside or self.ownerless)


class Maintenance:
    """A queue directory opened for changes. Use it in a ``with``; at its end everything is on disk.

    Args:
        directory: the queue directory.

    Raises:
        FileNotFoundError: it is no queue directory.
        PermissionError: it belongs to someone else, whose program could not open what we would leave there.
        QueueLockedError: a program holds it.
        OSError: its disk fails.
    """

    def __init__(self, directory: Path) -> None:
        if not is_queue(directory):
            raise FileNotFoundError(f"{directory} is no queue directory: it has neither a lock file nor a database")
        if directory.stat().st_uid != os.getuid():
            raise PermissionError(f"{directory} belongs to {directory.owner()}: run this as that user")
        self.directory = directory
        self._lock = DirectoryLock(directory)
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise

    def _open(self) -> None:
        # Nothing may be dropped for a bound that is not the program's: what has no room stays where it is.
        settings = Settings.check(max_disk=_UNBOUNDED, min_free_disk=0, on_full="raise", max_dead=1 << 40)
        before = self._set_aside()
        self._ring = Ring(ring_path(self.directory), settings.max_memory, self.directory)
        self._queue = Queue(settings, self._ring, Clock())
        take_over(self._queue)
        self._corrupt_before = self._corrupt()
        self._spool = Spool(self.directory, settings.max_disk)
        guard = ResourceGuard(self.directory, 0)
        self._keeper = Keeper(self._queue, self._spool, guard, Clock(), Listener(), "rexport")
        self._keeper.start()
        self._aside = next(iter(sorted(self._set_aside() - before)), "")
        self._salvaged = sum(b - a for a, b in map(span_of, self._queue.stock.index)) if self._aside else 0
        if self._keeper.trouble is not None:
            self._keeper.stop(_STOP)
            raise OSError(f"{self.directory}: {self._keeper.trouble}")
        if not self._corrupt_before:
            self._corrupt_before = self._corrupt()
        if self._queue.cursors:
            # Without cursors this would let go of all there is, as nobody's.
            self._queue.settle_in()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Save what changed, and let the directory go."""
        if self._spool.exists:
            self._call(self._keep_state)
        stopped = self._keeper.stop(_STOP)
        empty = self._queue.empty_ring()
        if stopped:
            self._ring.close(keep=not empty)
        self._lock.release()

    def _keep_state(self) -> None:
        self._spool.open()
        self._spool.write({STATE: self._queue.state()})

    def _call(self, function: Callable[[], Any]) -> Any:
        """Run something in the thread that owns the database."""
        return self._keeper.call(function)

    # -- repairing ---------------------------------------------------------------------------------------------------

    def repair(self) -> RepairReport:
        """Do what the next start would do, and more: write damaged blocks anew, and account for what is gone."""
        saved = self._in_memory_only()
        blocks = self._call(self._mend_blocks) if self._spool.exists else 0
        self._settle_missing()
        letters = self._call(self._count_letters)
        if saved and not self._keeper.save(_STOP):
            saved = 0
        corrupt = self._corrupt()
        before = {name: number + letters.get(name, 0) for name, number in self._corrupt_before.items()}
        lost = {name: number - before.get(name, letters.get(name, 0)) for name, number in corrupt.items()}
        return RepairReport(
            blocks=blocks,
            lost={name: number for name, number in lost.items() if number},
            letters=letters,
            set_aside=self._aside,
            salvaged=self._salvaged,
            saved=saved,
            ownerless=len(self._queue.stock.index) if not self._queue.cursors else 0,
        )

    def _in_memory_only(self) -> int:
        found = IntervalSet()
        for block in self._queue.stock.blocks:
            found.add(block.first, block.end)
        for key in [*self._queue.stock.index, *(key for block in self._queue.stock.blocks for key in block.replaces)]:
            found.remove(*span_of(key))
        return sum(stop - start for start, stop in found)

    def _mend_blocks(self) -> int:
        """In the keeper's thread: look at every row, and write what is whole in a damaged one anew."""
        stock, mended = self._queue.stock, 0
        self._spool.open()
        for key in list(stock.index):
            payload, row = self._spool.read(key)
            if payload is not None and not row:
                continue
            mended += 1
            if row:
                self._spool.quarantine(f"{key}.block", row)
            puts = {} if payload is None else dict(_rewritten(payload, span_of(key)[0]))
            self._spool.write(puts, [key])
            with self._queue.lock:
                stock.index.remove(key)
                for new in puts:
                    insort(stock.index, new)
        return mended

    def _settle_missing(self) -> None:
        """Count what some target waits for and what is nowhere."""
        queue = self._queue
        with queue.lock:
            held = IntervalSet()
            for key in queue.stock.index:
                held.add(*span_of(key))
            for block in queue.stock.blocks:
                held.add(block.first, block.end)
            for cursor in list(queue.cursors.values()):
                end = queue.following if cursor.left is None else cursor.left
                for start, stop in list(cursor.open(cursor.floor, end)):
                    for first, last in list(held.gaps(start, stop)):
                        queue.drop(first, last, "corrupt")

    def _count_letters(self) -> dict[str, int]:
        """In the keeper's thread: dead letters that are counted but not there any more."""
        there: dict[str, int] = {}
        for letter in self._keeper.letters:
            there[letter.target] = there.get(letter.target, 0) + 1
        gone: dict[str, int] = {}
        with self._queue.lock:
            for cursor in self._queue.cursors.values():
                if (number := cursor.dead - there.get(cursor.identity, 0)) > 0:
                    gone[cursor.identity] = number
                    cursor.move_dead(number, "corrupt")
                    self._queue.keep_cursor(cursor)
        return gone

    def _corrupt(self) -> dict[str, int]:
        return {cursor.identity: cursor.dropped.get("corrupt", 0) for cursor in self._queue.cursors.values()}

    def _set_aside(self) -> set[str]:
        return {entry.name for entry in self.directory.glob("damaged-*.db")}

    # -- discarding --------------------------------------------------------------------------------------------------

    def discard_letters(self, *, ids: Collection[str] | None = None, target: str | None = None) -> int:
        """Throw dead letters away: those with these ids, or all; of one target, or of all. They count as dropped."""

        def wanted(letter: Letter) -> bool:
            return (ids is None or letter.id in ids) and target in (None, letter.target)

        taken: list[Letter] = self._call(lambda: self._keeper.letters.take(wanted))
        with self._queue.lock:
            for letter in taken:
                cursor = self._queue.cursors.get(letter.target)
                if cursor is not None:
                    cursor.move_dead(1, "discarded")
                    self._queue.keep_cursor(cursor)
        self._forget_gone()
        return len(taken)

    def discard_pending(self, target: str | None = None) -> int:
        """Give up what waits, for one target or for all. It counts as dropped. Returns the sum over the targets."""
        queue, number = self._queue, 0
        with queue.lock:
            for cursor in list(queue.cursors.values()):
                if target in (None, cursor.identity):
                    end = queue.following if cursor.left is None else cursor.left
                    number += queue.settle(cursor, cursor.floor, end, "discarded")
        self._forget_gone()
        return number

    def _forget_gone(self) -> None:
        """A target that is not there any more and keeps nothing is forgotten."""
        for identity, cursor in list(self._queue.cursors.items()):
            if cursor.left is not None:
                self._queue.leave(identity)

    # -- replaying ---------------------------------------------------------------------------------------------------

    def replay(self, *, ids: Collection[str] | None = None, target: str | None = None) -> tuple[int, int]:
        """Queue dead letters again, for the target that refused them and under the ids they had.

        Returns:
            How many are queued, and how many stay because the program has their target no more.
        """
        found: list[Letter] = self._call(lambda: list(self._keeper.letters))
        letters = [one for one in found if (ids is None or one.id in ids) and target in (None, one.target)]
        known = [one for one in letters if _present(self._queue.cursors.get(one.target))]
        self._call(lambda: replay(self._queue, self._keeper, known))
        return len(known), len(letters) - len(known)


def _present(cursor: Cursor | None) -> bool:
    return cursor is not None and cursor.left is None


def _rewritten(payload: Payload, first: int) -> Iterator[tuple[int, bytes]]:
    """Rows for what is whole in a damaged block: one for each run of consecutive records."""
    shift, run = first - payload.origin, list[Frame]()
    for item in [*payload.frames, None]:
        if run and (item is None or item.offset != run[-1].offset + 1):
            data = b"".join(payload.data[one.start - HEAD_SIZE : one.stop] for one in run)
            start, origin = run[0].offset + shift, run[0].offset
            block = Block(start, len(run), payload.run, 0, len(data), payload.born, payload.last, origin)
            yield key_of(start, len(run)), pack(block, data)
            run = []
        if item is not None:
            run.append(item)
