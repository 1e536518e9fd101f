"""One target of a queue: takes batches, reads answers, and decides what is tried next."""

from __future__ import annotations

import logging
import math
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from resilient_exporters.delivery.attempt import Attempt, Decoded, Sink, Unclear, ask, decode
from resilient_exporters.delivery.bisection import ALONE, Bisection, Suspect
from resilient_exporters.delivery.breaker import CLOSED, HALF_OPEN, HELD, Breaker
from resilient_exporters.delivery.cursor import Cursor
from resilient_exporters.delivery.deadletters import Letter
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.listener import Listener
from resilient_exporters.delivery.outcome import Batch, Delivered, Full, Hold, Record, Reject, Retry, Split
from resilient_exporters.delivery.pace import Concurrency, Rate
from resilient_exporters.delivery.queue import Queue, Taken
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.settlement import Settlement, ranges_of
from resilient_exporters.delivery.stats import TargetStats

__all__ = ["Budget", "Target"]

log = logging.getLogger("resilient_exporters")


class Budget:
    """How many records a flush may still have delivered, by all targets together."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


_MOST_HUNG = 4


class Target:
    """Delivers a queue's records to one exporter. The queue's lock guards its state; ``run`` is called without.

    Args:
        sink: the exporter. Not held here: see ``Engine``.
        cursor: where it stands in the queue.
        queue: the queue.
        concurrency: batches in flight at most, or "auto".
        settings: retry policy, batch size, order and rate.
        listener: told of what happens.
        bury: keeps dead letters, then calls back.
        progress: called when an attempt has ended.
        prepare: applied to each record before it is delivered.

    Attributes:
        settlement: books the answers.
        flying: attempts under way.
        hung: attempts that were given up and whose threads have not come back.
        budget: what a flush with ``max_records`` leaves to be delivered.
    """

    def __init__(
        self,
        sink: Sink,
        cursor: Cursor,
        queue: Queue,
        *,
        concurrency: int | str,
        settings: Settings,
        listener: Listener,
        bury: Callable[[list[Letter], Callable[[], list[int]]], None],
        progress: Callable[[], None],
        prepare: Callable[[Record], Record] | None = None,
    ) -> None:
        self._sink = weakref.ref(sink)
        self.budget: Budget | None = None
        self.cursor = cursor
        self.settlement = Settlement(cursor, queue, listener, bury)
        self.flying: list[Attempt] = []
        self.hung = 0
        self.attempts = 0
        self.last_error = ""
        self.breaker = Breaker(settings.retry, manual=settings.manual)
        self.concurrency = Concurrency(concurrency)
        self.rate = None if settings.drain_rate is None else Rate(*settings.drain_rate)
        self._queue = queue
        self._settings = settings
        self._listener = listener
        self._progress = progress
        self._prepare = prepare
        self._bisection = Bisection(settings.batch_records)
        self._fresh = queue.following
        self._connected = False
        self._connecting = threading.Lock()
        self._told = (CLOSED, "")

    @property
    def name(self) -> str:
        """What it is called in this queue: the exporter's name, with a number where two have the same."""
        return self.cursor.identity

    @property
    def sink(self) -> Sink | None:
        """The exporter, while someone holds it: an exporter that nobody has any more is not kept for our sake."""
        return self._sink()

    @property
    def stuck(self) -> bool:
        """Whether so many calls hang that no further one is made."""
        return self.hung >= _MOST_HUNG

    # -- taking work (under the queue's lock) --------------------------------------------------------------------

    def ready(self, now: float) -> bool:
        """Whether an attempt may begin now, if there is anything to send."""
        if len(self.flying) >= (self.concurrency.level if self.breaker.state == CLOSED else 1):
            return False
        if self.stuck or not self.breaker.allows(now):
            return False
        if self._bisection.suspect is not None and self.flying:
            return False
        return self.rate is None or self.rate.ready_at(now) <= now

    def next(self, now: float) -> Attempt | None:
        """The next attempt, if one may begin now."""
        sink = self.sink
        if sink is None or not self.ready(now):
            return None
        taken = self._take()
        if taken is None:
            return None
        self.breaker.begin()
        for start, stop in taken.runs:
            self.settlement.claimed.add(start, stop)
        if self.budget is not None:
            self.budget.left -= taken.records
        number = 1 + max(self._bisection.failures_alone(taken.start), self.breaker.failures)
        doubtful = self.settlement.is_doubtful(taken.start, taken.stop)
        attempt = Attempt(sink, taken, number, now, doubtful=doubtful)
        self.flying.append(attempt)
        self.attempts += 1
        if number > 1:
            self.cursor.retries += 1
        if self.rate is not None:
            self.rate.spend(now, taken.records, taken.size)
        return attempt

    def _take(self) -> Taken | None:
        most, claimed = self._bisection.limit(self.cursor, self.settlement.claimed), self.settlement.claimed
        if self.budget is not None:
            most = min(most, self.budget.left)
            if most <= 0:
                return None
        suspect = self._bisection.suspect
        if suspect is not None:
            claimed = IntervalSet(self.settlement.claimed)
            claimed.add(suspect.offset, suspect.offset + 1)
        return self._queue.take(self.cursor, claimed, most, self._settings.drain, self._fresh)

    def wake_at(self, now: float) -> float:
        """When something is to be done without anything happening before: a probe, a deadline, the rate."""
        times = [attempt.deadline for attempt in self.flying]
        if self.cursor.floor < self._queue.sealed:
            if self.breaker.state not in (CLOSED, HALF_OPEN):
                # A probe that is due but has nothing to send waits for the disk, which will ring.
                if self.breaker.until > now:
                    times.append(self.breaker.until)
            elif self.rate is not None and (ready := self.rate.ready_at(now)) > now:
                times.append(ready)
        return min(times, default=math.inf)

    def expired(self, now: float) -> list[Attempt]:
        """Give up the attempts that are past their deadline. Their threads are left behind."""
        late = [attempt for attempt in self.flying if now >= attempt.deadline]
        for attempt in late:
            attempt.abandoned = True
            self.hung += 1
            self._connecting = threading.Lock()
            self._connected = False
            reason = f"TimeoutError: no answer within {attempt.sink.timeout:g} s"
            self._end(attempt, None, Retry(None, reason))
            if self.hung == _MOST_HUNG:
                log.error("%s: %d calls hang; nothing more is sent until one returns", self.name, self.hung)
        return late

    def abandon_all(self) -> None:
        """The queue is being closed: whatever is still under way counts no more."""
        for attempt in self.flying:
            attempt.abandoned = True
            self.hung += 1
        self.flying.clear()

    # -- the attempt (in a worker, without the lock) -------------------------------------------------------------

    def run(self, attempt: Attempt) -> None:
        """Make an attempt and settle what came of it."""
        decoded = self._prepared(decode(attempt.taken, self.cursor.identity))
        answer: Any = Delivered()
        if decoded.records:
            again = attempt.doubtful or decoded.again
            size = attempt.taken.size
            batch = Batch(decoded.records, redelivered=again, deadline=attempt.deadline, size=size)
            lock = self._connecting
            answer = ask(attempt.sink, batch, lambda: self._connect(attempt.sink, lock), probe=attempt.number > 1)
        if self._outage(answer):
            self._disconnect(attempt)
        with self._queue.lock:
            if attempt.abandoned:
                self.hung -= 1
            else:
                self._end(attempt, decoded, answer)
        self._progress()

    def _prepared(self, decoded: Decoded) -> Decoded:
        """The records through the exporter's own transform, if it has one here."""
        if self._prepare is None:
            return decoded
        records: list[Record] = []
        offsets: list[int] = []
        for offset, record in zip(decoded.offsets, decoded.records, strict=True):
            try:
                records.append(self._prepare(record))
                offsets.append(offset)
            except Exception as error:  # noqa: BLE001 - a transform is a user's code; the record becomes a dead letter
                decoded.refused.append((offset, record, f"{type(error).__name__}: {error}"))
        return decoded._replace(records=records, offsets=offsets)

    def _connect(self, sink: Sink, lock: threading.Lock) -> None:
        with lock:
            if not self._connected or lock is not self._connecting:
                sink.connect()
                self._connected = True

    @staticmethod
    def _outage(answer: object) -> bool:
        if isinstance(answer, list):
            return False
        return isinstance(answer, (Retry, Unclear, Hold))

    def _disconnect(self, attempt: Attempt) -> None:
        with self._queue.lock:
            others = [other for other in self.flying if other is not attempt]
            if others or attempt.abandoned or not self._connected:
                return
            self._connected = False
        self.disconnect()

    def disconnect(self) -> None:
        """Let the exporter let go of its connection. In a worker thread, as all that concerns it."""
        sink = self.sink
        if sink is None:
            return
        try:
            sink.disconnect()
        except Exception as error:  # noqa: BLE001 - the connection is given up in any case
            log.debug("%s: disconnect failed: %s", self.name, error)

    # -- the answer (under the queue's lock) ---------------------------------------------------------------------

    def _end(self, attempt: Attempt, decoded: Decoded | None, answer: Any) -> None:
        now = self._queue.clock.clock.now()
        self.flying.remove(attempt)
        taken = attempt.taken
        for start, stop in taken.runs:
            self.settlement.claimed.remove(start, stop)
        if decoded is not None:
            self.settlement.put_aside(decoded, attempt)
        before = self.cursor.delivered
        offsets = [at for run in taken.runs for at in range(*run)] if decoded is None else decoded.offsets
        answers = answer if isinstance(answer, list) else None
        if answers is not None:
            failure = self.settlement.settle_each(decoded, answers, attempt)
        elif isinstance(answer, Delivered):
            self.settlement.deliver(offsets, [answer.returned] * len(offsets) if answer.returned is not None else None)
            failure = None
        else:
            failure = answer
        delivered = self.cursor.delivered - before
        seconds = now - attempt.started
        self._judge(attempt, offsets, failure, decoded, now, delivered)
        full = len(offsets) >= self._settings.batch_records // 2 or taken.size >= self._settings.batch_bytes // 2
        failed = isinstance(failure, (Retry, Unclear))
        self.concurrency.note(seconds, full=full, failed=failed, most=(attempt.sink.timeout or math.inf) / 2)
        if delivered:
            self._listener.delivered(self.name, delivered, seconds)

    def _judge(
        self,
        attempt: Attempt,
        offsets: Sequence[int],
        failure: Any,
        decoded: Decoded | None,
        now: float,
        delivered: int,
    ) -> None:
        """Draw the consequences for the target as a whole."""
        suspect = self._bisection.proved()
        if suspect is not None and (failure is None or isinstance(failure, _ANSWERS)):
            self._condemn(suspect)
        if isinstance(failure, Full):
            for first, stop in ranges_of(offsets):
                self.settlement.drop(first, stop, "full")
        if failure is None or isinstance(failure, Full):
            self._bisection.taken(len(offsets), _share(attempt, now))
            self._is_there("healthy again")
            return
        for start, stop in attempt.taken.runs:
            self.settlement.doubtful.add(start, stop)
        if isinstance(failure, (Reject, Split)):
            # Clear enough: the target is there, and something in the batch is wrong, or too much.
            self._is_there("reached again")
            self._refuse_or_halve(attempt, offsets, failure, decoded)
            return
        self.last_error = failure.reason
        if isinstance(failure, Hold):
            self.breaker.hold(now, failure.reason)
        elif (
            suspect is None
            and isinstance(failure, Unclear)
            and self._search_on(attempt, offsets, failure.reason, decoded)
        ):
            self.breaker.again()
        else:
            self._fail(attempt, offsets, failure, decoded, now, delivered)
        self._tell()

    def _is_there(self, text: str) -> None:
        if self.breaker.succeed():
            self._fresh = self._queue.following
        self._tell(text)

    def rest(self) -> None:
        """Manual: nothing more is sent until someone asks."""
        self.breaker.wait_for_poke()
        self._tell("waits for the next flush")

    def _condemn(self, suspect: Suspect) -> None:
        """The record behind the suspect was taken, or clearly answered: the suspect is poison."""
        log.warning("%s: record %s is poison: %s", self.name, suspect.record.id, suspect.reason)
        reason = f"failed alone {ALONE} times: {suspect.reason}"
        self.settlement.refuse([(suspect.offset, suspect.record, reason)], suspect.attempt)

    def _refuse_or_halve(
        self, attempt: Attempt, offsets: Sequence[int], failure: Reject | Split, decoded: Decoded | None
    ) -> None:
        if len(offsets) <= 1 and decoded is not None and decoded.records:
            self._bisection.found()
            self.settlement.refuse([(offsets[0], decoded.records[0], failure.reason)], attempt)
        elif isinstance(failure, Split):
            self._bisection.too_large(len(offsets))
        else:
            self._bisection.search(attempt.taken.start, attempt.taken.stop, self.cursor)

    def _search_on(self, attempt: Attempt, offsets: Sequence[int], reason: str, decoded: Decoded | None) -> bool:
        """After an unclear failure: whether there is something to find out at once, without waiting."""
        if len(offsets) > 1:
            self._bisection.search(attempt.taken.start, attempt.taken.stop, self.cursor)
            return True
        if not self._bisection.failed_alone(offsets[0]) or decoded is None or not self._others_wait(offsets[0]):
            return False
        self._bisection.suspect = Suspect(offsets[0], decoded.records[0], reason, attempt)
        return True

    def _fail(
        self,
        attempt: Attempt,
        offsets: Sequence[int],
        failure: Retry | Unclear,
        decoded: Decoded | None,
        now: float,
        delivered: int,
    ) -> None:
        """Wait: the target does not take anything just now."""
        if delivered:
            self.breaker.failures = 0
        slow = _share(attempt, now) >= 1 / 2
        alone = isinstance(failure, Unclear) and len(offsets) == 1 and self._bisection.doubts(offsets[0], self.cursor)
        opens = self.breaker.fail(now, failure.reason, getattr(failure, "after", None), alone=alone)
        if not delivered and (opens or slow):
            # The probe is smaller; and where it takes long, fewer may get through in time. That quick refusals go on
            # says nothing about the size.
            self._bisection.shrink(len(offsets), slow=slow)
        if decoded is not None and self.breaker.gives_up(now):
            reason = f"given up after {self.breaker.failures} attempts: {failure.reason}"
            pairs = zip(decoded.offsets, decoded.records, strict=True)
            self.settlement.refuse([(offset, record, reason) for offset, record in pairs], attempt)
            self.breaker.failures = 0

    def _others_wait(self, offset: int) -> bool:
        return any(start != offset or stop > offset + 1 for start, stop in self.cursor.open(0, self._queue.sealed))

    def _tell(self, text: str = "") -> None:
        """Say how the target is, once for each change. A probe under way is none; another thing to mend is."""
        state, reason = self.breaker.state, self.breaker.reason or text
        news = (state, reason if state == HELD else "")
        if state == HALF_OPEN or news == self._told:
            return
        self._told = news
        if state == CLOSED or not self.breaker.failures:
            log.info("%s: %s", self.name, text)
        else:
            log.warning(
                "%s: %s (%s); %d records wait", self.name, "held" if state == HELD else "not reached", reason,
                self.cursor.pending(self._queue.following),
            )  # fmt: skip
        self._listener.state_changed(self.name, state, "" if state == CLOSED else reason)

    # -- figures (under the queue's lock) ------------------------------------------------------------------------

    def tried(self, start: int, stop: int) -> bool:
        """Whether records were attempted, or will not be soon: the target is known to be away."""
        if self.breaker.state not in (CLOSED, HALF_OPEN):
            return True
        return not any(True for _ in self.settlement.doubtful.gaps(start, stop)) and not self.settlement.claimed.covers(
            start, stop
        )

    def stats(self, following: int) -> TargetStats:
        """The target's figures."""
        cursor = self.cursor
        return TargetStats(
            accepted=cursor.accepted(following),
            delivered=cursor.delivered,
            dropped=dict(cursor.dropped),
            dead=cursor.dead,
            pending=cursor.pending(following),
            attempts=self.attempts,
            retries=cursor.retries,
            state=self.breaker.state,
            last_error=self.last_error,
            hung=self.hung,
        )


def _share(attempt: Attempt, now: float) -> float:
    """Of the time that an attempt has, how much it took."""
    return (now - attempt.started) / (attempt.sink.timeout or math.inf)


_ANSWERS = (Reject, Split, Full)
"""What only a target that is there can say."""
