"""The dispatcher: the one thread that decides when something is sent, saved or given up."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable

from resilient_exporters.delivery.attempt import Attempt
from resilient_exporters.delivery.breaker import CLOSED, HALF_OPEN
from resilient_exporters.delivery.clock import Bell, Clock
from resilient_exporters.delivery.guard import LinkWatch
from resilient_exporters.delivery.keeper import Keeper
from resilient_exporters.delivery.queue import Queue
from resilient_exporters.delivery.target import Target
from resilient_exporters.delivery.workers import Workers

__all__ = ["Dispatcher"]

log = logging.getLogger("resilient_exporters")

_LINK_EVERY = 2.0
_THREADS_EVERY = 1.0  # while the system has no more threads for us
_SLOWEST_LOOK = 60.0


class Dispatcher:
    """Hands batches to targets. Sleeps until it is rung or something is due: nothing due, no wake-up.

    Args:
        queue: the queue.
        keeper: asked to save in time.
        targets: those that take from the queue; may grow.
        clock: the machine's clocks.
        name: of the threads.
        workers: threads that are started with the first batch.

    Attributes:
        settle_down: called when a worker has nothing more to do.
    """

    def __init__(
        self, queue: Queue, keeper: Keeper, targets: list[Target], clock: Clock, name: str, workers: int
    ) -> None:
        self._queue = queue
        self._keeper = keeper
        self._targets = targets
        self._clock = clock
        self._bell = Bell()
        self._workers = Workers(f"{name}-worker", workers)
        self._link: LinkWatch | None = None
        self._link_at = 0.0
        self._stopping = False
        self._paused = False
        self._expire_at = 0.0
        self._waiters: list[Callable[[], None]] = []
        self.settle_down: Callable[[], None] = _nothing
        self.thread = threading.Thread(target=self._work, name=f"{name}-dispatcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._queue.wake = self._bell.ring
        self.thread.start()

    def stop(self, timeout: float) -> None:
        """Send nothing more. Attempts under way end by themselves."""
        self._stopping = True
        self._bell.ring()
        self.thread.join(timeout)

    def end_workers(self) -> None:
        """End the worker threads, the busy ones after their job."""
        self._workers.close()

    def ring(self) -> None:
        """Look again."""
        self._bell.ring()

    def watch(self, waiter: Callable[[], None]) -> None:
        """Call ``waiter`` after each attempt and each drop, until ``unwatch``."""
        with self._queue.lock:
            self._waiters.append(waiter)

    def unwatch(self, waiter: Callable[[], None]) -> None:
        """Call it no more."""
        with self._queue.lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def progress(self) -> None:
        """Tell the watchers that something was settled or tried."""
        if self._waiters:
            with self._queue.lock:
                waiters = list(self._waiters)
            for waiter in waiters:
                waiter()

    def _work(self) -> None:
        while not self._stopping:
            try:
                wait = self._turn()
            except Exception:
                # A slip of ours must not end all deliveries: it is said, and the next turn comes.
                log.exception("the dispatcher failed")
                wait = 1.0
            self._clock.wait(self._bell, wait)

    def _turn(self) -> float | None:
        """Do what is due. Returns after how many seconds to look again, or None: when rung."""
        queue = self._queue
        expired = False
        with queue.lock:
            now = self._clock.now()
            ready = any(target.ready(now) for target in self._targets)
            wake = self._seal_in_time(now) if ready else math.inf
            save = self._save_in_time(now)
            wake = min(wake, save, self._expire(now))
            for target in self._targets:
                expired = bool(target.expired(now)) or expired
                while (attempt := target.next(now)) is not None:
                    self._workers.submit(_job(self, target, attempt))
                wake = min(wake, target.wake_at(now))
            # Whoever sends next rings only if nothing else would make us look in time.
            queue.alert = save == math.inf or any(target.ready(now) for target in self._targets)
        wake = min(wake, self._watch_link(now, wake))
        if self._workers.catch_up():
            wake = min(wake, now + _THREADS_EVERY)
        if expired:
            self.progress()
        return None if wake == math.inf else max(0.0, wake - now)

    def _seal_in_time(self, now: float) -> float:
        queue = self._queue
        if not queue.open_count:
            return math.inf
        left = queue.born + queue.settings.linger - queue.clock.now()
        if left <= 0:
            queue.seal()
            return math.inf
        return now + left

    def _save_in_time(self, now: float) -> float:
        """When to look whether something is to be saved: half of ``loss_window`` is for waiting, half for the disk."""
        window = self._queue.settings.loss_window
        born = None if window is None else self._queue.oldest_unsaved()
        if window is None or born is None:
            return math.inf
        left = born + window / 2 - self._queue.clock.now()
        if left <= 0:
            if self._keeper.trouble is None:
                self._keeper.save_soon()
            return math.inf  # the keeper rings when it has saved, and tries again by itself where it cannot
        return now + left

    def _expire(self, now: float) -> float:
        most = self._queue.settings.max_age
        if most is None:
            return math.inf
        if now >= self._expire_at:
            left = self._queue.expire(most)
            grain = min(most / 20, _SLOWEST_LOOK)
            self._expire_at = now + (grain if left is None else max(left, grain))
        return self._expire_at if self._queue.low() < self._queue.following else math.inf

    def _watch_link(self, now: float, wake: float) -> float:
        """While a target is waited for, look whether a link comes up: then it is probed at once."""
        waiting = [t for t in self._targets if t.breaker.state not in (CLOSED, HALF_OPEN) and t.breaker.until > now]
        waiting = [t for t in waiting if t.breaker.until < math.inf and t.cursor.floor < self._queue.sealed]
        if not waiting or wake <= now:
            self._link = None
            return math.inf
        if self._link is None:
            self._link = LinkWatch()
            self._link_at = now
        elif now - self._link_at >= _LINK_EVERY:
            self._link_at = now
            if self._link.came_up():
                log.info("a network link came up: probing")
                with self._queue.lock:
                    for target in waiting:
                        target.breaker.poke()
                return now
        return self._link_at + _LINK_EVERY

    def run(self, target: Target, attempt: Attempt) -> None:
        """A worker's job: this attempt, and what follows it at the same target."""
        following: Attempt | None = attempt
        while following is not None:
            target.run(following)
            with self._queue.lock:
                following = None if self._stopping else self._following(target)
                more = following is not None and target.ready(self._clock.now())
            if more:
                self._bell.ring()
        self.settle_down()
        self._bell.ring()

    def in_worker(self, job: Callable[[], None]) -> None:
        """Run something in a worker thread."""
        self._workers.submit(job)

    def _following(self, target: Target) -> Attempt | None:
        """What a worker does next: what arrived during an attempt makes the next batch."""
        now = self._clock.now()
        if self._queue.open_count and target.ready(now):
            self._seal_in_time(now)
        return target.next(now)


def _nothing() -> None: ...


def _job(dispatcher: Dispatcher, target: Target, attempt: Attempt) -> Callable[[], None]:
    def run() -> None:
        dispatcher.run(target, attempt)

    return run
