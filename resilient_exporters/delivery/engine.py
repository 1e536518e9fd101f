"""The engine: queue, keeper, dispatcher and targets of one exporter or pool, put together."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from resilient_exporters.delivery.adoption import adopt_orphans
from resilient_exporters.delivery.attempt import Sink
from resilient_exporters.delivery.block import Block
from resilient_exporters.delivery.clock import Bell, Clock
from resilient_exporters.delivery.closing import Closing
from resilient_exporters.delivery.dispatcher import Dispatcher
from resilient_exporters.delivery.frame import frame
from resilient_exporters.delivery.guard import ResourceGuard
from resilient_exporters.delivery.history import Verdict
from resilient_exporters.delivery.keeper import Keeper
from resilient_exporters.delivery.listener import Listener
from resilient_exporters.delivery.mailroom import Mailroom
from resilient_exporters.delivery.outcome import Record
from resilient_exporters.delivery.place import Place
from resilient_exporters.delivery.queue import Queue
from resilient_exporters.delivery.recovery import take_over
from resilient_exporters.delivery.ring import Ring, sweep
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.stats import CloseReport, FlushReport, Stats
from resilient_exporters.delivery.target import Budget, Target
from resilient_exporters.errors import QueueFullError

__all__ = ["Engine", "Member"]

log = logging.getLogger("resilient_exporters")

_EXIT_SAVE = 5.0


@dataclass(frozen=True)
class Member:
    """One target of an engine.

    Attributes:
        sink: the exporter.
        identity: stable across restarts; never a secret.
        concurrency: batches in flight at most, or "auto".
        settings: of which the retry policy, the batch size, the order and the rate count here.
        prepare: applied to each record before it is delivered, or None.
    """

    sink: Sink
    identity: str
    concurrency: int | str
    settings: Settings
    prepare: Callable[[Record], Record] | None = None


class Engine:
    """Accepts records and sees to it that they get where they should.

    Args:
        name: of threads and messages.
        key: what the default directory is derived from.
        settings: the options, checked.
        members: the targets.
        listener: told of what happens.
        clock: the machine's clocks.
        patience: seconds that a receipt waits for the first attempt; None for as long as it takes.
        many: whether receipts read as a pool's.
        workers: threads started with the first batch.

    Raises:
        QueueLockedError: the directory was given by hand, and another process holds it.
    """

    def __init__(
        self,
        *,
        name: str,
        key: str,
        settings: Settings,
        members: list[Member],
        listener: Listener,
        clock: Clock,
        patience: float | None,
        many: bool = False,
        workers: int = 1,
    ) -> None:
        self.name = name
        self.patience = patience
        self.many = many
        self.settings = settings
        self.targets: list[Target] = []
        self.closed = False
        self.clock = clock
        self._listener = listener
        self._closing = threading.Lock()
        self._sinks: list[weakref.ref[Sink]] = []
        self._held: list[Sink] = []
        self.place = Place(key, settings.directory)
        try:
            self.ring = Ring(self.place.ring, settings.max_memory, self.place.path)
        except BaseException:
            self.place.release()
            raise
        self.queue = Queue(settings, self.ring, clock)
        take_over(self.queue)
        guard = ResourceGuard(self.directory, settings.min_free_disk)
        self.keeper = Keeper(self.queue, self.place.spool(settings.max_disk), guard, clock, listener, name)
        self.dispatcher = Dispatcher(self.queue, self.keeper, self.targets, clock, name, workers)
        self.mailroom = Mailroom(self.queue, self.keeper, self.dispatcher.ring)
        self.keeper.progress = self.dispatcher.progress
        self.queue.on_drop = self._dropped
        self.queue.large = self._send_large
        self.queue.begun = self._hold
        self.queue.in_hand = self._in_hand
        self.dispatcher.settle_down = self._let_go
        try:
            self._start(members)
        except BaseException:
            self.keeper.stop(_EXIT_SAVE)
            self.place.release()
            raise
        _LIVE.add(self)

    def _start(self, members: list[Member]) -> None:
        self.keeper.start()
        self.queue.settle_in()
        for member in members:
            self._add(member)
        self.queue.ownerless = None
        self._leave_out({member.identity for member in members})
        self.keeper.count_letters()
        if self.directory is not None and self.settings.directory is None:
            adopt_orphans(self, self.place.first)
        sweep()
        self._hold()
        self.dispatcher.start()
        if self.settings.loss_window is not None and self.queue.stock.blocks:
            self.keeper.save_soon()  # what was taken over from memory has waited long enough

    @property
    def directory(self) -> Path | None:
        """The queue directory, or None while none can be had."""
        return self.place.directory

    # An exporter that nobody has any more is closed by the garbage collector, but not while records wait for it.

    def _hold(self) -> None:
        if not self._held:
            self._held = [sink for sink in (ref() for ref in self._sinks) if sink is not None]

    def _let_go(self) -> None:
        with self.queue.lock:
            if not self.pending():
                held, self._held = self._held, []
            else:
                held = []
        del held  # outside the lock: this may be the last one who has it

    def close_forgotten(self) -> None:
        """The exporter was collected: end, in a thread of its own, since the collector runs anywhere."""
        if not self.closed:
            threading.Thread(target=self.close, args=(0.0,), name=f"{self.name}-closing", daemon=True).start()

    def add(self, member: Member) -> None:
        """One more target: it starts at the records accepted from now on, or where it stood at an earlier start."""
        self._add(member)
        self.keeper.welcome(member.identity)

    def _add(self, member: Member) -> None:
        with self.queue.lock:
            self._sinks.append(weakref.ref(member.sink))
            self.targets.append(
                Target(
                    member.sink,
                    self.queue.join(member.identity),
                    self.queue,
                    concurrency=member.concurrency,
                    settings=member.settings,
                    listener=self._listener,
                    bury=self.keeper.bury,
                    progress=self._progress,
                    prepare=member.prepare,
                )
            )
        member.sink.joined(self)
        self.dispatcher.ring()

    def mended(self, sink: object) -> None:
        """What a target was held for is mended: it is probed at once."""
        with self.queue.lock:
            for target in self.targets:
                if target.sink is sink:
                    target.breaker.mended()
        self.dispatcher.ring()

    def _leave_out(self, present: set[str]) -> None:
        for identity in [one for one in self.queue.cursors if one not in present]:
            self.queue.leave(identity)
            cursor = self.queue.cursors.get(identity)
            if cursor is not None:
                waiting = cursor.pending(self.queue.following)
                log.warning("%s: target %s is not there; %d records wait for it", self.name, identity, waiting)

    # -- accepting -----------------------------------------------------------------------------------------------

    def commit(self, offset: int) -> None:
        """Wait until a record is on disk.

        Raises:
            QueueFullError: the disk does not take it. The record waits in memory.
        """
        if not self.keeper.commit(offset, self.settings.full_timeout):
            trouble = self.keeper.trouble or "no disk"
            raise QueueFullError(None, f"record {self.id_of(offset)} is in memory but could not be saved: {trouble}")

    def _send_large(self, payload: bytes, flags: int) -> int:
        offset = self.queue.reserve(1)
        if offset < 0:
            return offset
        now = self.queue.clock.now()
        block = Block(offset, 1, self.ring.run, -1, -1, now, now)
        done = False
        try:
            done = self.keeper.save_large(block, frame(payload, offset, flags))
        finally:
            self.queue.placed(offset, done=done)
        if not done:
            trouble = self.keeper.trouble or "max_disk is reached"
            raise QueueFullError(
                None,
                f"a record of {len(payload)} bytes is too large for memory, and the disk does not take it: {trouble}",
            )
        return offset

    def id_of(self, offset: int) -> str:
        """The id of a record accepted by this process."""
        return f"{self.ring.run.hex()}-{offset}"

    # -- asking --------------------------------------------------------------------------------------------------

    def settled(self, offsets: Sequence[int]) -> bool:
        """Whether every target has settled these records; -1 stands for one that was turned away."""
        with self.queue.lock:
            return all(target.cursor.settled(o, o + 1) for target in self.targets for o in offsets if o >= 0)

    def tried(self, offsets: Sequence[int]) -> bool:
        """Whether every target has settled or attempted these records, or is known to be away."""
        with self.queue.lock:
            return self.closed or all(
                target.cursor.settled(o, o + 1) or target.tried(o, o + 1)
                for target in self.targets
                for o in offsets
                if o >= 0
            )

    def verdict(self, target: Target, offsets: Sequence[int]) -> Verdict:
        """How records ended at a target."""
        with self.queue.lock:
            verdicts = [self._verdict(target, offset) for offset in offsets]
        if len(verdicts) == 1:
            return verdicts[0]
        reason = next((one.reason for one in verdicts if one.reason), "")
        return Verdict([one.returned for one in verdicts], all(one.successful for one in verdicts), reason)

    @staticmethod
    def _verdict(target: Target, offset: int) -> Verdict:
        if offset < 0:
            return Verdict(None, False, "overflow")
        if not target.cursor.settled(offset, offset + 1):
            return Verdict(None, False, "")
        return target.settlement.history.verdict(offset)

    def watch(self, waiter: Callable[[], None]) -> None:
        """Call ``waiter`` whenever something was settled or tried."""
        self.dispatcher.watch(waiter)

    def unwatch(self, waiter: Callable[[], None]) -> None:
        """Call it no more."""
        self.dispatcher.unwatch(waiter)

    def hurry(self) -> None:
        """Somebody waits: do not wait for more records to make a batch."""
        self.queue.seal()
        self.dispatcher.ring()

    def wait_until(self, condition: Callable[[], bool], bell: Bell, timeout: float | None) -> bool:
        """Wait until a condition holds, looking whenever ``bell`` rings."""
        deadline = None if timeout is None else self.clock.now() + timeout
        while not condition():
            left = None if deadline is None else deadline - self.clock.now()
            if left is not None and left <= 0:
                return False
            if self.closed:
                return condition()
            self.clock.wait(bell, left)
        return True

    def _progress(self) -> None:
        self.dispatcher.progress()
        if self.queue.stock.freed or self.keeper.trouble is None:
            with self.queue.lock:
                busy = bool(self.queue.stock.freed or self.queue.stock.index)
            if busy:
                self.keeper.tidy_soon()

    def _in_hand(self, start: int, stop: int) -> bool:
        return any(target.settlement.claimed.meets(start, stop) for target in self.targets)

    def _dropped(self, start: int, stop: int, reason: str) -> None:
        number = max(1, stop - start)
        if start >= 0:
            for target in self.targets:
                target.settlement.history.odd(start, stop, reason)
        self._listener.dropped(None, number, reason)
        self.dispatcher.progress()

    # -- flushing and closing ------------------------------------------------------------------------------------

    def flush(self, timeout: float | None, most: int | None) -> FlushReport:
        """Deliver what waits, as far as the targets take it; see ``Exporter.flush``."""
        began = self.clock.now()
        with self.queue.lock:
            self.queue.seal()
            until = self.queue.following
            before = self.totals()
            budget = None if most is None else Budget(most)
            for target in self.targets:
                target.breaker.poke()
                target.budget = budget
            # An attempt under way that ends from now on is a probe as well.
            probes = [(target, target.attempts - len(target.flying)) for target in self.targets]

        def over() -> bool:
            with self.queue.lock:
                flying = any(target.flying for target in self.targets)
                if budget is not None and budget.left <= 0 and not flying:
                    return True
                return all(
                    target.cursor.settled(0, until)
                    or (not target.flying and target.breaker.failures > 0 and target.attempts > probed)
                    or target.stuck
                    for target, probed in probes
                )

        bell = Bell()
        self.watch(bell.ring)
        self.dispatcher.ring()
        try:
            self.wait_until(over, bell, timeout)
        finally:
            self.unwatch(bell.ring)
        with self.queue.lock:
            for target in self.targets:
                target.budget = None
                if budget is not None and self.settings.manual:
                    target.rest()
            self.dispatcher.ring()
            after = self.totals()
            complete = all(target.cursor.settled(0, until) for target in self.targets)
        return FlushReport(
            delivered=after[0] - before[0],
            pending=after[3],
            dropped=after[1] - before[1],
            dead=after[2] - before[2],
            seconds=self.clock.now() - began,
            complete=complete,
        )

    def totals(self) -> tuple[int, int, int, int]:
        """Delivered, dropped, dead and pending records, summed over the targets."""
        cursors = [target.cursor for target in self.targets]
        following = self.queue.following
        return (
            sum(cursor.delivered for cursor in cursors),
            sum(sum(cursor.dropped.values()) for cursor in cursors),
            sum(cursor.dead for cursor in cursors),
            sum(cursor.pending(following) for cursor in cursors),
        )

    def close(self, timeout: float) -> CloseReport:
        """Save, then deliver until the deadline; see ``Exporter.close``. A second time it does nothing."""
        with self._closing:
            if self.closed:
                return CloseReport(delivered=0, saved=0, pending=0, lost=0, seconds=0.0)
            report = Closing(self, timeout).run()
            self.closed = True
            _LIVE.discard(self)
        self.dispatcher.progress()
        return report

    def pending(self) -> int:
        """Records that some target has not settled."""
        with self.queue.lock:
            return self.queue.following - self.queue.low()

    def save_at_exit(self) -> None:
        """The interpreter ends without a close: what waits is saved, nothing is delivered any more."""
        if not self.closed and self.pending() and self.settings.save_unsent:
            self.keeper.save(_EXIT_SAVE)

    def abandon(self) -> None:
        """In a forked child: the queue is the parent's. Nothing is written, nothing is unlocked."""
        self.closed = True
        self.place.abandon()

    # -- figures -------------------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """A look at everything, without waiting for disk or network."""
        queue = self.queue
        with queue.lock:
            following = queue.following
            targets = {target.name: target.stats(following) for target in self.targets}
            accepted = max((one.accepted for one in targets.values()), default=following)
            return Stats(
                accepted=accepted,
                pending=max((one.pending for one in targets.values()), default=0),
                memory_bytes=queue.memory_bytes(),
                disk_bytes=self.keeper.archive.disk_bytes,
                written_bytes=self.keeper.archive.written,
                oldest_age=queue.oldest_age(),
                late_saves=self.keeper.archive.late,
                disk_trouble=self.keeper.trouble,
                targets=targets,
            )


_LIVE: weakref.WeakSet[Engine] = weakref.WeakSet()


def _save_all_at_exit() -> None:
    for engine in list(_LIVE):
        engine.save_at_exit()


def _after_fork() -> None:
    Place.forked = True
    for engine in list(_LIVE):
        engine.abandon()
    _LIVE.clear()


atexit.register(_save_all_at_exit)
os.register_at_fork(after_in_child=_after_fork)
