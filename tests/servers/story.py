"""The story of all tests with real servers: an application sends on, something goes wrong and well again, judgement."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from resilient_exporters import DeadLetter, Exporter
from resilient_exporters.delivery.breaker import HELD
from tests.servers.watch import PATIENCE, Watch
from tests.targets import balanced

SLOW_SEND = 1.0
"""Seconds that no ``send`` may take. One that waits for a dead link takes a time-out, which is longer."""
_TICK = 0.005


class Application:
    """A program that sends, and knows what was accepted and how long that took. Records count up in ``n``.

    Args:
        exporter: to what it sends.
        text: what the record with this number has beside it, where that matters.

    Attributes:
        sent: records that were accepted.
        longest: seconds of the longest ``send``.
        stalled: seconds for which a thread that does nothing got no turn, at the most: the machine is to blame.
    """

    def __init__(self, exporter: Exporter, text: Callable[[int], str] | None = None) -> None:
        self._exporter = exporter
        self._text = text
        self._more = threading.Condition()
        self.sent = 0
        self.longest = 0.0
        self.stalled = 0.0

    def send(self, count: int, size: int = 50) -> None:
        """Send at once."""
        for _ in range(count):
            text = "x" * size if self._text is None else self._text(self.sent)
            began = time.monotonic()
            self._exporter.send({"n": self.sent, "text": text})
            self.longest = max(self.longest, time.monotonic() - began)
            with self._more:
                self.sent += 1
                self._more.notify_all()

    @contextmanager
    def sending(self, rate: float) -> Iterator[None]:
        """Send so many a second, from a thread, until the block ends."""
        over = threading.Event()
        with ThreadPoolExecutor(2) as threads:
            running = [threads.submit(self._send_on, rate, over), threads.submit(self._look_on, over)]
            try:
                yield
            finally:
                over.set()
                for one in running:
                    one.result()

    def wait_for(self, more: int) -> None:
        """Wait until so many more were sent."""
        with self._more:
            until = self.sent + more
            assert self._more.wait_for(lambda: self.sent >= until, PATIENCE + more), "the application stands still"

    def _send_on(self, rate: float, over: threading.Event) -> None:
        began, done = time.monotonic(), 0
        while not over.wait(_TICK):
            due = int((time.monotonic() - began) * rate) - done
            self.send(due)
            done += due

    def _look_on(self, over: threading.Event) -> None:
        began = time.monotonic()
        while not over.wait(_TICK):
            now = time.monotonic()
            self.stalled = max(self.stalled, now - began - _TICK)
            began = now


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of the records of a story.

    Attributes:
        accepted: those that ``send`` took.
        lost: accepted ones that are not in the target.
        doubled: copies in the target beyond the first.
        strange: records in the target that nobody sent.
        disordered: those that stand behind a later one.
        longest_send: seconds of the longest ``send``.
        recovery: seconds from the end of a fault until all that was accepted before had arrived, the longest time.
        stalled: seconds for which the machine let the test stand still, at the most.
    """

    accepted: int
    lost: int
    doubled: int
    strange: int
    disordered: int
    longest_send: float = 0.0
    recovery: float = 0.0
    stalled: float = 0.0

    @classmethod
    def of(cls, sent: Iterable[int], there: Sequence[int], **times: float) -> Verdict:
        """Compare what was sent with what is there, in the order in which it was written."""
        expected, found = set(sent), Counter(there)
        return cls(
            accepted=len(expected),
            lost=len(expected - found.keys()),
            doubled=found.total() - len(found),
            strange=len(found.keys() - expected),
            disordered=sum(later < earlier for earlier, later in itertools.pairwise(there)),
            **times,
        )

    def hold(self, *, in_order: bool) -> None:
        """Laws 1, 6 and 8, and 3 where order is promised."""
        assert (self.lost, self.doubled, self.strange) == (0, 0, 0), self
        assert not (in_order and self.disordered), self
        assert self.longest_send < SLOW_SEND + 2 * self.stalled, self


class Story:
    """An exporter, an application that sends to it, and what its target has in the end.

    Args:
        make: makes the exporter, given options.
        numbers: reads ``n`` of all that is in the target, in the order in which it was written.
        patience: seconds that each wait may take.
        **options: of the exporter, instead of ones that make a test short.
    """

    def __init__(
        self,
        make: Callable[..., Exporter],
        numbers: Callable[[], Sequence[int]],
        *,
        patience: float = PATIENCE,
        **options: Any,
    ) -> None:
        self.watch = Watch(patience)
        given = {"timeout": 3.0, "retry": 0.2, "batch_records": 100, "listeners": [self.watch], **options}
        self.exporter: Any = make(**given)
        self.application = Application(self.exporter)
        self.numbers = numbers
        self._recovery = 0.0

    @property
    def sent(self) -> int:
        """How many records were accepted."""
        return self.application.sent

    def send(self, count: int, size: int = 50) -> None:
        """Let the application send at once."""
        self.application.send(count, size)

    def recover(self) -> None:
        """A fault has ended, and who ended it says so if he has to: wait for all that was accepted until now."""
        ended, owed = time.monotonic(), self.sent
        if HELD in self.watch.states[-1:]:
            self.exporter.mended()
        self._recovery = max(self._recovery, self.watch.wait_for(owed) - ended)

    def last_error(self) -> str:
        """What the last attempt that failed said; nothing if none did."""
        return str(self.exporter.stats().targets[self.exporter.name].last_error)

    def lawful(self) -> None:
        """Law 1, at this moment: accepted = delivered + dropped + dead + pending."""
        balanced(self.exporter)

    def judge(self) -> Verdict:
        """Wait until all is delivered, and compare; the exporter's own figures must say the same."""
        self.watch.wait_for(self.sent)
        figures = balanced(self.exporter).targets[self.exporter.name]
        assert (figures.accepted, figures.delivered, figures.dead, figures.dropped, figures.pending) == (
            self.sent, self.sent, 0, {}, 0,
        )  # fmt: skip
        return Verdict.of(
            range(self.sent),
            self.numbers(),
            longest_send=self.application.longest,
            recovery=self._recovery,
            stalled=self.application.stalled,
        )

    def all_arrive_once(self, *, in_order: bool = False) -> Verdict:
        """Judge, and hold the verdict against the laws."""
        verdict = self.judge()
        verdict.hold(in_order=in_order)
        return verdict

    def letters(self) -> list[DeadLetter]:
        """The dead letters, once they are on disk."""
        assert self.exporter.flush(PATIENCE).complete
        return list(self.exporter.dead_letters())
