"""For tests of programs that send: targets that record, targets that fail on a script, and a clock that you move.

Queues lie in the user's state folder and outlive the test, as they should. Give each test a folder of its own::

    @pytest.fixture(autouse=True)
    def queues(tmp_path, monkeypatch):
        monkeypatch.setenv("RESILIENT_EXPORTERS_DIR", str(tmp_path))

A test then reads like this::

    def test_readings_survive_an_outage():
        clock = FakeClock()
        target = FlakyTarget([ConnectionError("no link"), "ok"], clock=clock, retry=60)
        target.send({"temperature": 21.5})
        target.wait_for_attempts(1)
        clock.advance(60)
        assert target.wait_for(1) == [{"temperature": 21.5}]
        target.close()
"""

from __future__ import annotations

import threading
import time as real_time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar
from uuid import uuid4

from resilient_exporters.delivery.clock import Bell, Clock
from resilient_exporters.delivery.engine import Engine
from resilient_exporters.delivery.outcome import Batch, Delivered, Full, Hold, Outcome, Reject, Retry, Split
from resilient_exporters.errors import InvalidConfigError
from resilient_exporters.exporter import Exporter

__all__ = ["FakeClock", "FlakyTarget", "RecordingExporter", "eventually", "hang"]

_OUTCOMES = (Delivered, Retry, Reject, Hold, Split, Full)

T = TypeVar("T")


class RecordingExporter(Exporter):
    """Takes everything, and keeps it.

    Args:
        **options: those of ``Exporter``; ``linger`` is 0 unless given, so that nothing waits for time to pass. ``send``
            takes any keywords.

    Attributes:
        records: the data of the records that were delivered, in the order of delivery.
        ids: their ids.
        batches: every batch that it was given, also those that it did not take.
    """

    kind: ClassVar[str] = "recording"
    record_options: ClassVar[frozenset[str] | None] = None

    def __init__(self, **options: Any) -> None:
        self.records: list[Any] = []
        self.ids: list[str] = []
        self.batches: list[Batch] = []
        self._changed = threading.Condition()
        options.setdefault("linger", 0)
        super().__init__(**options)

    def export(self, batch: Batch) -> Outcome | Sequence[Outcome | None] | None:
        """Keep a batch."""
        self._begin(batch)
        self._keep(batch, None)
        return None

    def wait_for(self, count: int, timeout: float = 30.0) -> list[Any]:
        """Wait until ``count`` records were delivered, and return all that were.

        Args:
            count: how many at least.
            timeout: real seconds, whatever clock the exporter has.

        Raises:
            AssertionError: it took longer; the text says how many there are.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.records) >= count, timeout):
                raise AssertionError(f"{self.name}: {len(self.records)} of {count} records after {timeout:g} s")
            return list(self.records)

    def wait_for_attempts(self, count: int, timeout: float = 30.0) -> list[Batch]:
        """Wait until ``count`` batches were given to it, and return all that were.

        Args:
            count: how many at least.
            timeout: real seconds.

        Raises:
            AssertionError: it took longer; the text says how many there were.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.batches) >= count, timeout):
                raise AssertionError(f"{self.name}: {len(self.batches)} of {count} attempts after {timeout:g} s")
            return list(self.batches)

    def _begin(self, batch: Batch) -> int:
        with self._changed:
            engines = [engine for engine in self._engines if isinstance(engine.clock, FakeClock)]
            if engines:
                _answering.begin(engines, at_once=type(self).export in _AT_ONCE)
            self.batches.append(batch)
            self._changed.notify_all()
            return len(self.batches)

    def _keep(self, batch: Batch, answers: Sequence[Outcome | None] | None) -> None:
        with self._changed:
            for at, record in enumerate(batch):
                if answers is None or answers[at] is None or isinstance(answers[at], Delivered):
                    self.records.append(record.data)
                    self.ids.append(record.id)
            self._changed.notify_all()


class FlakyTarget(RecordingExporter):
    """Does at each attempt what the script says.

    ::

        FlakyTarget(["ok", ConnectionError("no link"), Retry(after=5), Reject("no such column"), "ok"])

    Args:
        script: one entry for each attempt: "ok" (it takes the batch), an exception or a class of one (raised), an
            outcome or a list of one outcome per record (returned), ``hang(event)``, or a function of the batch that
            returns one of these.
        cycle: True begins again at the end of the script; False stays with the last entry.
        **options: those of ``Exporter``.

    Raises:
        InvalidConfigError: the script is empty, or an entry is none of these.

    Attributes:
        records, ids: of what it took.
        batches: of every attempt.
    """

    kind: ClassVar[str] = "flaky"

    def __init__(self, script: Iterable[Any], *, cycle: bool = False, **options: Any) -> None:
        self._script = list(script)
        self._cycle = cycle
        if not self._script:
            raise InvalidConfigError(None, 'script=[] says nothing: give ["ok"] for a target that takes everything')
        for entry in self._script:
            if not _possible(entry):
                known = '"ok", an exception, an outcome, hang(event) or a function'
                raise InvalidConfigError(None, f"script: {entry!r:.80} is no step: give {known}")
        super().__init__(**options)

    def export(self, batch: Batch) -> Outcome | Sequence[Outcome | None] | None:
        """Take the next step of the script."""
        number = self._begin(batch) - 1
        last = len(self._script) - 1
        step = self._script[number % (last + 1) if self._cycle else min(number, last)]
        if callable(step) and not _is_error(step):
            _answering.done()  # it takes as long as it takes
        while callable(step) and not _is_error(step):
            step = step(batch)
        if _is_error(step):
            raise step
        if step is None or step == "ok" or isinstance(step, Delivered):
            self._keep(batch, None)
        elif not isinstance(step, _OUTCOMES):
            self._keep(batch, step)
        return None if step == "ok" else step


def hang(event: threading.Event, then: Any = "ok") -> Callable[[Batch], Any]:
    """A step of a script: no answer until ``event`` is set, then what ``then`` says."""

    def step(batch: Batch) -> Any:  # noqa: ARG001 - a function of the batch
        event.wait()
        return then

    return step


def _possible(entry: object) -> bool:
    if isinstance(entry, list):
        return all(one is None or isinstance(one, _OUTCOMES) for one in entry)
    return entry is None or entry == "ok" or isinstance(entry, _OUTCOMES) or _is_error(entry) or callable(entry)


def _is_error(entry: object) -> bool:
    return isinstance(entry, BaseException) or (isinstance(entry, type) and issubclass(entry, BaseException))


_AT_ONCE = (RecordingExporter.export, FlakyTarget.export)


class _Answering:
    """Threads whose target has answered at once, until the exporter takes the time of the answer."""

    def __init__(self) -> None:
        self._mine = threading.local()
        self._changed = threading.Condition()
        self._threads: dict[int, tuple[list[Engine], bool]] = {}

    def begin(self, engines: list[Engine], *, at_once: bool) -> None:
        self._mine.counted = True
        with self._changed:
            self._threads[threading.get_ident()] = engines, at_once

    def done(self) -> None:
        if getattr(self._mine, "counted", False):
            self._mine.counted = False
            with self._changed:
                self._threads.pop(threading.get_ident(), None)
                self._changed.notify_all()

    def wait_for_all(self) -> None:
        """Wait until each answer is noted; where a subclass may do more than answer, for a second."""
        with self._changed:
            at_once = all(at_once for _, at_once in self._threads.values())
            self._changed.wait_for(lambda: not self._open(), 30.0 if at_once else 1.0)

    def _open(self) -> bool:
        # The answer to a queue that was closed meanwhile is noted by nobody.
        return any(not engine.closed for engines, _ in self._threads.values() for engine in engines)


_answering = _Answering()


class FakeClock(Clock):
    """Time that goes on only when a test says so: ``Exporter(clock=FakeClock())``.

    Whatever the exporter waits for (a retry, ``linger``, ``loss_window``, ``max_age``, ``timeout`` of an attempt, of
    ``flush`` and ``close``) happens when ``advance`` has passed it, at once, in the threads that it happens in
    otherwise; wait for what you expect with ``wait_for`` or ``eventually``. One clock may serve many exporters. A pool
    waits for its own ``linger`` before it sends: give it ``linger=0``, or advance.

    A ``RecordingExporter`` and a scripted ``FlakyTarget`` take no time: ``advance`` lets the answer be noted first, so
    that a test that has seen the batch may advance to the retry.

    Args:
        now: monotonic seconds to begin with.
        time: wall clock to begin with, in seconds since the epoch.
    """

    def __init__(self, now: float = 1000.0, time: float = 1_700_000_000.0) -> None:
        self._now = now
        self._time = time
        self._boot = uuid4().hex
        self._lock = threading.Lock()
        self._waiting: set[_Wait] = set()
        self._seen = threading.local()

    def now(self) -> float:
        """Monotonic seconds."""
        seconds = self._now
        _answering.done()
        if getattr(self._seen, "first", None) is None:
            self._seen.first = seconds
        return seconds

    def time(self) -> float:
        """Wall-clock seconds since the epoch."""
        return self._time

    def boot(self) -> str:
        """Identity of this boot."""
        return self._boot

    def wait(self, bell: Bell, seconds: float | None) -> bool:
        """Wait for ``bell``, at most until ``advance`` has passed ``seconds`` (None: as long as it takes)."""
        # A thread reads the time, computes how long to wait, and comes here. Had ``advance`` come in between, the
        # wait would end too late by as much, perhaps never: so it counts from what the thread read first.
        first = getattr(self._seen, "first", None)
        self._seen.first = None
        if seconds is None:
            return bell.wait()
        with self._lock:
            wait = _Wait(bell, (self._now if first is None else first) + seconds)
            if wait.deadline <= self._now:
                return bell.wait(0)
            self._waiting.add(wait)
        rung = bell.wait()
        with self._lock:
            self._waiting.discard(wait)
            return rung and not wait.over

    def advance(self, seconds: float) -> None:
        """Let time pass by both clocks, and wake whoever waited for that.

        Raises:
            ValueError: ``seconds`` is negative; a wall clock that is set back is ``step_wall``.
        """
        if seconds < 0:
            raise ValueError(f"seconds={seconds!r}: monotonic time never goes back; step_wall sets the wall clock")
        _answering.wait_for_all()
        with self._lock:
            self._now += seconds
            self._time += seconds
            for wait in self._waiting:
                if wait.deadline <= self._now and not wait.over:
                    wait.over = True
                    wait.bell.ring()
        self._seen.first = None

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or (negative) back, as NTP does. Nothing that waits is woken."""
        with self._lock:
            self._time += seconds

    def reboot(self, off: float = 0.0) -> None:
        """Let the machine start anew: monotonic time begins at 0, the boot has another identity.

        Close or abandon the exporters of this clock before.

        Args:
            off: seconds that the machine was off, by the wall clock.
        """
        with self._lock:
            self._now = 0.0
            self._time += off
            self._boot = uuid4().hex
            self._waiting.clear()
        self._seen.first = None


class _Wait:
    """A thread that waits for a bell or for a time."""

    __slots__ = ("bell", "deadline", "over")

    def __init__(self, bell: Bell, deadline: float) -> None:
        self.bell = bell
        self.deadline = deadline
        self.over = False


def eventually(condition: Callable[[], T], timeout: float = 30.0, message: str = "") -> T:
    """Wait until a condition holds, and return what it gave.

    Args:
        condition: called again and again, at most every few milliseconds. An AssertionError in it counts as "not yet".
        timeout: real seconds.
        message: what to say if it does not come about.

    Raises:
        AssertionError: it did not hold in time; the text says what the condition gave last.
    """
    deadline = real_time.monotonic() + timeout
    pause, never = 0.001, threading.Event()
    while True:
        try:
            value, failed = condition(), None
        except AssertionError as error:
            value, failed = None, error
        if value:
            return value
        left = deadline - real_time.monotonic()
        if left <= 0:
            last = f"the last was {value!r:.200}" if failed is None else f"the last failed: {failed}"
            raise AssertionError(f"{message or 'the condition did not hold'} within {timeout:g} s; {last}") from failed
        never.wait(min(pause, left))
        pause = min(pause * 2, 0.02)
