"""A stage: the engine's own threads, of which one runs at a time, chosen by a seed.

The engine is not changed: its modules get other ``threading`` and ``SimpleQueue`` names, whose waits hand over to the
next thread that can go on. Time is the stage's too, and passes only when nobody can: what takes a second takes none,
and the same seed gives the same run. A wait that nobody will ever end is found at once, and so is a thread that never
rests. A killed process is one whose threads get no further turn.
"""

from __future__ import annotations

import math
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from random import Random
from types import ModuleType
from typing import Any

import pytest

from resilient_exporters import exporter, exporter_pool
from resilient_exporters.delivery import dispatcher, engine, intake, keeper, target, workers
from resilient_exporters.delivery.clock import Bell, Clock

__all__ = ["Killed", "Stage", "StageClock", "Stuck"]

_STAGED = (dispatcher, engine, exporter, exporter_pool, intake, keeper, target, workers)
_MOST_TURNS = 4000
_PATIENCE = 600.0
_INSTANT = 1e-6
_MOST_SPINS = 20


class Killed(BaseException):
    """This thread's process was killed."""


class Stuck(AssertionError):
    """Everybody waits for somebody, or somebody never rests."""


class Actor:
    """A thread on the stage.

    Attributes:
        ready: whether what it waits for is there; None: it can go on.
        deadline: until when it waits.
        told: what its wait gives back: whether it was ready.
        resting: it goes on when nobody else can.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.turn = threading.Semaphore(0)
        self.ready: Callable[[], bool] | None = None
        self.deadline = math.inf
        self.told = True
        self.resting = False
        self.killed = False
        self.over = False
        self.spins = 0


class Stage:
    """Whose turn it is.

    Args:
        seed: of the choices.
        restless: how probable it is that a thread loses its turn where it could go on.
    """

    def __init__(self, seed: int, restless: float) -> None:
        self.now = 1000.0
        self.main = Actor("the program")
        self.current = self.main
        self.actors = [self.main]
        self.crash_in: int | None = None
        self.on_crash: Callable[[], None] = _nothing
        self.turns = 0
        self.instants = 0
        self._random = Random(seed)
        self._restless = restless
        self._since_rest = 0

    def put_on(self, patch: pytest.MonkeyPatch) -> None:
        """Let the engine's modules use this stage."""
        names = self._names()
        for module in _STAGED:
            if hasattr(module, "threading"):
                patch.setattr(module, "threading", names)
        patch.setattr(workers, "SimpleQueue", lambda: Jobs(self))

    def _names(self) -> ModuleType:
        names = ModuleType("threading")
        names.__dict__.update(threading.__dict__)
        names.__dict__.update(
            Thread=lambda **given: Thread(self, **given),
            Lock=lambda: Lock(self),
            RLock=lambda: Lock(self),
            Condition=lambda lock: Door(self, lock),
            Event=lambda: Event(self),
        )
        return names

    # -- waiting -----------------------------------------------------------------------------------------------------

    def wait(self, ready: Callable[[], bool], deadline: float = math.inf) -> bool:
        """Wait until ``ready``, at most until ``deadline``. Returns whether it is."""
        self._instant()
        if ready():
            return True
        me = self.current
        if self.now >= deadline:
            me.ready, me.told = None, False
        else:
            me.ready, me.deadline = ready, deadline
        return self._hand_over(me)

    def pause(self) -> None:
        """A place where another thread may have its turn."""
        self._instant()
        if self._restless and self._random.random() < self._restless:
            me = self.current
            me.ready, me.told = None, True
            self._hand_over(me)

    def rest(self) -> None:
        """In the program: let everybody come to rest. No time passes."""
        self.main.resting = True
        try:
            self.wait(_never)
        finally:
            self.main.resting = False

    def advance(self, seconds: float) -> None:
        """In the program: let time pass, from one thing that is due to the next."""
        until = self.now + seconds
        self.rest()
        while (due := min(actor.deadline for actor in self.actors)) <= until:
            self.now = max(self.now, due)
            self.rest()
        self.now = until
        self.rest()

    # -- crashes -----------------------------------------------------------------------------------------------------

    def _instant(self) -> None:
        """The place of a possible crash."""
        me = self.current
        if me.killed:
            raise Killed
        self.instants += 1
        if self.crash_in is None:
            return
        self.crash_in -= 1
        if self.crash_in <= 0:
            self.crash_in = None
            self.on_crash()
            self.main.killed = True
            if me is not self.main:
                me.ready, me.told = None, True
                self._pass_to(self.main, me)
            raise Killed

    def kill_others(self) -> None:
        """End every thread but the program's: where it waits, it waits no more."""
        for actor in self.actors[1:]:
            actor.killed = True
            actor.ready, actor.told = None, False
            self._pass_to(actor, self.main)
            assert actor.over, actor.name
        del self.actors[1:]
        self.main.killed = False
        self.main.ready = None

    # -- whose turn it is --------------------------------------------------------------------------------------------

    def _hand_over(self, me: Actor) -> bool:
        following = self._choose()
        if following is not me:
            self._pass_to(following, me)
        if me.killed:
            raise Killed
        if isinstance(self._failure, Stuck) and me is self.main:
            failure, self._failure = self._failure, None
            raise failure
        me.deadline = math.inf
        return me.told

    _failure: Stuck | None = None

    def _pass_to(self, following: Actor, me: Actor) -> None:
        self.current = following
        following.turn.release()
        if not me.over:
            assert me.turn.acquire(timeout=_PATIENCE), f"{me.name}: the stage stands still"

    def _choose(self) -> Actor:
        self.turns += 1
        self._since_rest += 1
        if self._since_rest > _MOST_TURNS:
            return self._give_up(f"no rest after {_MOST_TURNS} turns")
        while True:
            able = [actor for actor in self.actors if not actor.over and self._is_able(actor)]
            if able:
                return self._random.choice(able)
            if self.main.resting:
                self._since_rest = 0
                self.main.told = True
                return self.main
            due = min(actor.deadline for actor in self.actors if not actor.over)
            if due == math.inf:
                return self._give_up("everybody waits for somebody")
            if due > self.now + 1e-3:
                self._since_rest = 0
            self.now = max(self.now, due)

    def _is_able(self, actor: Actor) -> bool:
        if actor.ready is not None:
            if actor.ready():
                actor.told = True
            elif self.now >= actor.deadline:
                actor.told = False
            else:
                return False
            actor.ready = None
        return True

    def _give_up(self, text: str) -> Actor:
        frames = sys._current_frames()
        lines = [text]
        for actor in self.actors:
            thread = next((one for one in threading.enumerate() if getattr(one, "actor", None) is actor), None)
            frame = frames.get(thread.ident or 0) if thread is not None else None
            where = traceback.extract_stack(frame)[-6:] if frame is not None else []
            lines.append(f"{actor.name}: " + " < ".join(f"{one.name}:{one.lineno}" for one in reversed(where)))
        self._failure = Stuck("\n".join(lines))
        self._since_rest = 0
        self.main.ready = None
        return self.main

    def leave(self, actor: Actor) -> None:
        """A thread has ended."""
        actor.over = True
        if actor.killed:
            self.current = self.main
            self.main.ready = None
            self.main.turn.release()
        else:
            self.actors.remove(actor)
            self._pass_to(self._choose(), actor)


class StageClock(Clock):
    """The clocks of the machine that the stage is."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.started = 0.0
        self.wall = 1.7e9
        self.boots = 1

    def now(self) -> float:
        return self._stage.now - self.started

    def time(self) -> float:
        return self.wall + self._stage.now

    def boot(self) -> str:
        return f"boot-{self.boots}"

    def wait(self, bell: Bell, seconds: float | None) -> bool:
        stage = self._stage
        if seconds is None:
            return stage.wait(lambda: bell.wait(0))
        # Looking again takes time as well, if little: what is due in a tenth of a nanosecond would never be.
        stage.current.spins = stage.current.spins + 1 if seconds < _INSTANT else 0
        if stage.current.spins > _MOST_SPINS:
            stage.now += _INSTANT
        return stage.wait(lambda: bell.wait(0), stage.now + seconds)


class Thread(threading.Thread):
    def __init__(self, stage: Stage, **given: Any) -> None:
        super().__init__(**given)
        self._stage = stage
        self.actor = Actor(self.name)

    def start(self) -> None:
        self._stage._instant()
        self._stage.actors.append(self.actor)
        super().start()
        self._stage.pause()

    def run(self) -> None:
        self.actor.turn.acquire()
        try:
            if not self.actor.killed:
                super().run()
        except Killed:
            pass
        finally:
            self._stage.leave(self.actor)

    def join(self, timeout: float | None = None) -> None:
        stage = self._stage
        if self.actor in stage.actors:
            stage.wait(lambda: self.actor.over, math.inf if timeout is None else stage.now + timeout)
        if self.actor.over:
            super().join(_PATIENCE)

    def is_alive(self) -> bool:
        return not self.actor.over and super().is_alive()


class Lock:
    """A lock that its owner may take again; the engine's plain locks never are."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._owner: Actor | None = None
        self._depth = 0

    def acquire(self) -> bool:
        stage = self._stage
        if self._owner is not stage.current:
            stage.pause()
            while self._owner is not None:
                stage.wait(lambda: self._owner is None)
            self._owner = stage.current
        self._depth += 1
        return True

    def release(self) -> None:
        if self._owner is self._stage.current:
            self._depth -= 1
            if not self._depth:
                self._owner = None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Door:
    """A condition."""

    def __init__(self, stage: Stage, lock: Lock) -> None:
        self._stage = stage
        self._lock = lock
        self._rung = 0

    def wait(self, timeout: float | None = None) -> bool:
        stage, lock, before = self._stage, self._lock, self._rung
        me, depth = lock._owner, lock._depth
        lock._owner, lock._depth = None, 0
        try:
            return stage.wait(lambda: self._rung > before, math.inf if timeout is None else stage.now + timeout)
        finally:
            if not stage.current.killed:
                while lock._owner is not None:
                    stage.wait(lambda: lock._owner is None)
            lock._owner, lock._depth = me, depth

    def notify_all(self) -> None:
        self._rung += 1


class Event:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def wait(self, timeout: float | None = None) -> bool:
        stage = self._stage
        return stage.wait(self.is_set, math.inf if timeout is None else stage.now + timeout)


class Jobs:
    """A ``SimpleQueue``."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._jobs: deque[Any] = deque()

    def put(self, job: Any) -> None:
        self._jobs.append(job)

    def get(self) -> Any:
        while not self._jobs:
            self._stage.wait(lambda: bool(self._jobs))
        return self._jobs.popleft()


def _nothing() -> None: ...


def _never() -> bool:
    return False
