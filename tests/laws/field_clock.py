"""A clock that goes from event to event, and knows when everything that lives by it rests."""

from __future__ import annotations

import math
import os
import threading
from typing import Any

from resilient_exporters.delivery import closing, dispatcher, engine, keeper
from resilient_exporters.delivery.clock import Bell, Clock

__all__ = ["FieldClock"]

PATIENCE = 60.0
_MOMENT = 1e-6


class WatchedBell(Bell):
    """A bell that says whether it was rung and nobody has come yet."""

    __slots__ = ("rung",)

    def __init__(self) -> None:
        super().__init__()
        self.rung = False

    def ring(self) -> None:
        self.rung = True
        super().ring()


class _Wait:
    __slots__ = ("bell", "deadline", "over")

    def __init__(self, bell: Bell, deadline: float) -> None:
        self.bell = bell
        self.deadline = deadline
        self.over = False


class FieldClock(Clock):
    """Time goes on only while everything rests, and only to the next moment at which something is due.

    Attributes:
        seconds: since the beginning, whatever the machine's own clocks say.
        engines: those that live by it.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.engines: list[engine.Engine] = []
        self._booted = 0.0
        self._boots = 1
        self._wall = 1.7e9
        self._waits: dict[threading.Thread, _Wait] = {}
        self._changed = threading.Condition()
        self._killed: set[threading.Thread] = set()
        for module in (dispatcher, keeper, engine, closing):
            module.Bell = WatchedBell  # type: ignore[attr-defined] # for the rest of the process: it only watches

    # -- what the engine asks ------------------------------------------------------------------------------------

    def now(self) -> float:
        return self.seconds - self._booted

    def time(self) -> float:
        return self._wall + self.seconds

    def boot(self) -> str:
        return f"boot {self._boots}"

    def wait(self, bell: Bell, seconds: float | None) -> bool:
        thread = threading.current_thread()
        # At least a moment: what is less than the last digit of the time would be waited for again and again.
        wait = _Wait(
            bell, math.inf if seconds is None else self.seconds + (max(_MOMENT, seconds) if seconds > 0 else 0)
        )
        with self._changed:
            self._waits[thread] = wait
            if wait.deadline <= self.seconds:
                wait.over = True
                bell.ring()
            self._changed.notify_all()
        bell.wait()
        with self._changed:
            if isinstance(bell, WatchedBell):
                bell.rung = False
            if thread in self._killed:
                del self._waits[thread]
                raise SystemExit
            del self._waits[thread]
            return not wait.over

    # -- what the field does -------------------------------------------------------------------------------------

    def go_to(self, seconds: float) -> None:
        """Let time pass, and everything happen that is due until then."""
        while True:
            with self._changed:
                due = min((wait.deadline for wait in self._waits.values()), default=math.inf)
                if due > seconds:
                    self.seconds = seconds
                    return
                self.seconds = max(self.seconds, due)
                for wait in self._waits.values():
                    if wait.deadline <= self.seconds:
                        wait.over = True
                        wait.bell.ring()
            self.rest()

    def rest(self) -> None:
        """Wait until nothing moves."""
        for _ in range(50):
            if self._resting():
                return
            os.sched_yield()
        with self._changed:
            for _ in range(int(PATIENCE / 0.0005)):
                if self._resting():
                    return
                self._changed.wait(0.0005)
        raise AssertionError(f"it never came to rest: {[thread.name for thread in self._waits]}")

    def _resting(self) -> bool:
        # The workers first: only a dispatcher can start them again, and whoever has rung it rang before we look there.
        return all(_idle(one) for one in self.engines) and all(map(self._sleeps, self._threads()))

    def _threads(self) -> list[threading.Thread]:
        return [thread for one in self.engines for thread in (one.keeper.thread, one.dispatcher.thread)] * 2

    def _sleeps(self, thread: threading.Thread) -> bool:
        wait = self._waits.get(thread)
        return wait is not None and not getattr(wait.bell, "rung", True)

    def kill(self, one: Any) -> None:
        """End the threads of an engine, wherever they wait: nothing is written any more."""
        self.engines.remove(one)
        threads = (one.keeper.thread, one.dispatcher.thread)
        with self._changed:
            self._killed.update(threads)
            for thread in threads:
                self._waits[thread].bell.ring()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        self._killed.clear()
        one.dispatcher.end_workers()

    def go_on(self, one: Any) -> None:
        """Close an exporter at the end of the story: whatever it still waits for comes at once."""
        closer = threading.Thread(target=one.close, args=(0.0,), daemon=True)
        closer.start()
        while closer.is_alive():
            closer.join(0.01)
            self.seconds += 1.0
            with self._changed:
                for wait in self._waits.values():
                    if wait.deadline <= self.seconds:
                        wait.over = True
                        wait.bell.ring()

    def reboot(self, off: float, wrong: float) -> None:
        """The machine was off for a while; its wall clock is ``wrong`` seconds behind until NTP sets it."""
        self.seconds += off
        self._booted = self.seconds - 15.0
        self._boots += 1
        self._wall -= wrong

    def step(self, seconds: float) -> None:
        """NTP sets the wall clock."""
        self._wall += seconds


def _idle(one: engine.Engine) -> bool:
    workers = one.dispatcher._workers
    with workers._lock:
        return workers._idle == workers._started
