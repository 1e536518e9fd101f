"""Closing: what is done, in which order and how long, before a queue is let go."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from resilient_exporters.delivery.breaker import CLOSED, HALF_OPEN
from resilient_exporters.delivery.clock import Bell
from resilient_exporters.delivery.stats import CloseReport

if TYPE_CHECKING:
    from resilient_exporters.delivery.engine import Engine

__all__ = ["Closing"]

_QUICK = 0.02  # a healthy target takes what is left sooner than the disk would, and the disk is spared
_LEAST = 0.5  # what saving and disconnecting may take in any case


class Closing:
    """The end of an engine: deliver at once what can be, save the rest, deliver until the deadline, let go.

    Args:
        engine: what is closed.
        timeout: seconds for delivering.
    """

    def __init__(self, engine: Engine, timeout: float) -> None:
        self._engine = engine
        self._began = engine.clock.now()
        self._deadline = self._began + timeout

    def run(self) -> CloseReport:
        """Do it all, and say what is left."""
        engine, queue = self._engine, self._engine.queue
        with queue.lock:
            queue.close_door()
            before = engine.totals()
            worth = any(
                target.breaker.state in (CLOSED, HALF_OPEN) and target.cursor.pending(queue.following)
                for target in engine.targets
            )
        engine.dispatcher.ring()
        if worth:
            self._deliver_until(min(self._deadline, self._began + _QUICK))
        if engine.settings.save_unsent and engine.pending():
            engine.keeper.save(max(_LEAST, self._left()))
        if worth:
            self._deliver_until(self._deadline)
        engine.dispatcher.stop(max(_LEAST, self._left()))
        with queue.lock:
            for target in engine.targets:
                target.abandon_all()
            if not engine.settings.save_unsent:
                queue.drop(queue.low(), queue.following, "unsaved")
        self._disconnect()
        return self._finish(before)

    def _left(self) -> float:
        return max(0.0, self._deadline - self._engine.clock.now())

    def _deliver_until(self, deadline: float) -> None:
        engine = self._engine

        def over() -> bool:
            with engine.queue.lock:
                return all(
                    target.cursor.settled(0, engine.queue.following)
                    or (not target.flying and target.breaker.state not in (CLOSED, HALF_OPEN))
                    or target.stuck
                    for target in engine.targets
                )

        bell = Bell()
        engine.watch(bell.ring)
        try:
            engine.wait_until(over, bell, max(0.0, deadline - engine.clock.now()))
        finally:
            engine.unwatch(bell.ring)

    def _disconnect(self) -> None:
        """Each target in a worker, as all that concerns it; one that hangs is left behind."""
        bells = []
        for target in self._engine.targets:
            bell = Bell()
            bells.append(bell)
            self._engine.dispatcher.in_worker(_ringing(target.disconnect, bell))
        for bell in bells:
            self._engine.clock.wait(bell, max(_LEAST, self._left()))
        self._engine.dispatcher.end_workers()

    def _finish(self, before: tuple[int, int, int, int]) -> CloseReport:
        engine, queue = self._engine, self._engine.queue
        stopped = engine.keeper.stop(max(_LEAST, self._left()))
        with queue.lock:
            after = engine.totals()
            waiting = queue.waiting()
            pending = waiting.total
            if not engine.ring.durable:
                for block in queue.stock.blocks:
                    if block.key is None or block.key < 0:
                        waiting.remove(block.first, block.end)
            lost = pending - waiting.total
            empty = queue.empty_ring()
        if stopped:
            engine.ring.close(keep=not empty)
        engine.place.release()
        return CloseReport(
            delivered=after[0] - before[0],
            saved=pending - lost,
            pending=pending,
            lost=lost,
            seconds=engine.clock.now() - self._began,
        )


def _ringing(job: Callable[[], None], bell: Bell) -> Callable[[], None]:
    def run() -> None:
        try:
            job()
        finally:
            bell.ring()

    return run
