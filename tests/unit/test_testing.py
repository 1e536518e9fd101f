from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resilient_exporters import Batch, Exporter, ExporterPool, Hold, InvalidConfigError, Reject, Retry
from resilient_exporters.delivery.clock import Bell
from resilient_exporters.testing import FakeClock, FlakyTarget, RecordingExporter, eventually, hang
from tests.targets import PATIENCE


def test_a_recording_exporter_keeps_records_ids_and_batches() -> None:
    with RecordingExporter() as target:
        receipts = [target.send({"n": n}, priority=n) for n in range(3)]

        assert target.wait_for(3) == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert target.ids == [receipt.id for receipt in receipts]
    assert [record.options for batch in target.batches for record in batch] == [{"priority": n} for n in range(3)]


def test_waiting_for_records_that_do_not_come_says_how_many_came() -> None:
    with RecordingExporter(name="r") as target:
        target.send("one")

        with pytest.raises(AssertionError, match=r"r: 1 of 2 records after 0\.1 s"):
            target.wait_for(2, timeout=0.1)
        with pytest.raises(AssertionError, match=r"of 9 attempts after 0\.01 s"):
            target.wait_for_attempts(9, timeout=0.01)


def test_a_script_says_what_happens_at_each_attempt() -> None:
    # Given a clock that stands still, so that retries come when the test says so
    clock = FakeClock()
    target = FlakyTarget(["ok", ConnectionError("no link"), Retry(after=30), "ok"], clock=clock, retry=10)
    target.send("first")
    target.wait_for(1)

    # When the second record meets an outage, and then a server that asks to wait
    target.send("second")
    target.wait_for_attempts(2)
    clock.advance(10)
    target.wait_for_attempts(3)
    assert target.records == ["first"]
    clock.advance(30)

    # Then
    assert target.wait_for(2) == ["first", "second"]
    assert target.stats().targets["flaky"].retries == 2
    target.close()


def test_time_passes_only_when_an_answer_that_was_given_is_noted() -> None:
    # Given an attempt that a test has seen, but whose answer has not reached the exporter
    noted = threading.Event()

    class Late(FlakyTarget):
        def export(self, batch: Batch) -> Any:
            try:
                return super().export(batch)
            finally:
                noted.wait()

    clock = FakeClock()
    target = Late([ConnectionError("no link"), "ok"], name="late", clock=clock, retry=60)
    target.send("reading")
    target.wait_for_attempts(1)

    # When time is to pass before it is noted
    advance = threading.Thread(target=clock.advance, args=(60,))
    advance.start()
    noted.set()
    advance.join()

    # Then the retry is due
    assert target.wait_for(1) == ["reading"]
    target.close()


def test_the_last_entry_stays_unless_the_script_is_a_cycle() -> None:
    sticky = FlakyTarget([ConnectionError("no")], name="sticky", retry=0)
    cyclic = FlakyTarget([ConnectionError("no"), "ok"], name="cyclic", retry=0, cycle=True)
    with ExporterPool([sticky, cyclic]) as pool:
        pool.send(1)
        cyclic.wait_for(1)
        pool.send(2)
        cyclic.wait_for(2)
        sticky.wait_for_attempts(4)
    assert sticky.records == []
    assert len(cyclic.batches) == 4


def test_entries_may_be_outcomes_lists_of_them_classes_and_functions() -> None:
    def judge(batch: Batch) -> Any:
        return [Reject("odd") if record.data % 2 else None for record in batch]

    with FlakyTarget([ConnectionError, judge], retry=0) as target:
        target.send([1, 2, 3, 4])

        assert target.wait_for(2) == [2, 4]
        assert eventually(lambda: [letter.data for letter in target.dead_letters()]) == [1, 3]


def test_a_held_target_is_seen_in_the_figures() -> None:
    with FlakyTarget([Hold("wrong password")]) as target:
        target.send("x")
        eventually(lambda: target.stats().targets["flaky"].state == "held")


def test_an_attempt_that_hangs_is_given_up_in_fake_time() -> None:
    # Given a call that does not come back
    never = threading.Event()
    clock = FakeClock()
    target = FlakyTarget([hang(never), "ok"], timeout=30, retry=1, clock=clock)
    target.send("x")
    target.wait_for_attempts(1)

    # When its time is over
    clock.advance(30)
    eventually(lambda: target.stats().targets["flaky"].hung == 1)
    clock.advance(1)

    # Then the record is tried again
    assert target.wait_for(1) == ["x"]
    never.set()
    target.close()


@pytest.mark.parametrize("script", [[], ["maybe"], [42], [["ok", "no outcome"]]])
def test_a_script_that_is_none_is_refused(script: list[Any]) -> None:
    with pytest.raises(InvalidConfigError, match="script"):
        FlakyTarget(script)


# -- FakeClock -------------------------------------------------------------------------------------------------------


class Waiter:
    """A thread that waits for a bell by a clock."""

    def __init__(self, clock: FakeClock, seconds: float | None, before: Callable[[], None] = lambda: None) -> None:
        self.bell = Bell()
        self.rung: bool | None = None

        def work() -> None:
            before()
            self.rung = clock.wait(self.bell, seconds)

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()

    def ended(self) -> bool | None:
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        return self.rung


def waits(clock: FakeClock, count: int = 1) -> None:
    eventually(lambda: len(clock._waiting) == count)


def test_time_stands_still_until_it_is_advanced() -> None:
    clock = FakeClock(now=5, time=100)
    clock.advance(2.5)

    assert (clock.now(), clock.time()) == (7.5, 102.5)


def test_a_wait_ends_when_its_time_has_come_and_not_before() -> None:
    clock = FakeClock()
    waiter = Waiter(clock, 10)
    waits(clock)

    clock.advance(9.9)
    assert waiter.thread.is_alive()
    clock.advance(0.1)
    assert waiter.ended() is False


def test_a_bell_ends_a_wait_at_once() -> None:
    clock = FakeClock()
    waiters = [Waiter(clock, 10), Waiter(clock, None)]
    waits(clock)
    for waiter in waiters:
        waiter.bell.ring()

    assert [waiter.ended() for waiter in waiters] == [True, True]
    assert not clock._waiting


def test_a_bell_that_rang_before_is_not_lost() -> None:
    clock, bell = FakeClock(), Bell()
    bell.ring()

    assert clock.wait(bell, 10)
    assert not clock.wait(bell, 0)


def test_a_waiting_thread_takes_no_cpu() -> None:
    clock = FakeClock()
    waiter = Waiter(clock, 10)
    waits(clock)
    assert waiter.thread.ident is not None
    cpu = time.pthread_getcpuclockid(waiter.thread.ident)  # not the process's: other tests may have left threads
    before = time.clock_gettime(cpu)
    real = threading.Event()
    real.wait(0.2)

    assert time.clock_gettime(cpu) - before < 0.05
    clock.advance(10)
    waiter.ended()


def test_time_that_passes_between_reading_the_clock_and_waiting_counts() -> None:
    # Given a thread that has read the time and is about to wait
    clock = FakeClock()
    read, advanced = threading.Event(), threading.Event()

    def before() -> None:
        clock.now()
        read.set()
        advanced.wait(PATIENCE)

    waiter = Waiter(clock, 10, before)
    read.wait(PATIENCE)

    # When the time passes just then
    clock.advance(10)
    advanced.set()

    # Then it is not missed
    assert waiter.ended() is False


def test_the_wall_clock_is_stepped_alone() -> None:
    clock = FakeClock(now=5, time=1000)
    clock.step_wall(-900)

    assert (clock.now(), clock.time()) == (5, 100)


def test_time_never_goes_back() -> None:
    with pytest.raises(ValueError, match="step_wall"):
        FakeClock().advance(-1)


def test_a_reboot_is_another_boot_with_a_new_monotonic_clock() -> None:
    clock = FakeClock(time=1000)
    before = clock.boot()
    clock.reboot(off=60)

    assert clock.boot() != before
    assert (clock.now(), clock.time()) == (0.0, 1060)


def test_old_records_expire_in_fake_time_whatever_the_wall_clock_does() -> None:
    # Given
    clock = FakeClock()
    target = FlakyTarget([ConnectionError("no")], clock=clock, max_age=3600, retry=10_000)
    target.send("reading")
    target.wait_for_attempts(1)

    # When the wall clock jumps by a year, nothing happens
    clock.step_wall(365 * 86400)
    clock.advance(3000)
    assert target.stats().pending == 1

    # Then after an hour of the monotonic clock it is dropped, and counted
    clock.advance(700)
    eventually(lambda: target.stats().targets["flaky"].dropped == {"age": 1})
    target.close()


# -- eventually ------------------------------------------------------------------------------------------------------


def test_eventually_returns_what_the_condition_gave() -> None:
    answers: Iterator[Any] = iter([0, None, [], "there"])

    assert eventually(lambda: next(answers)) == "there"


def test_eventually_takes_an_assertion_for_not_yet() -> None:
    answers = iter([1, 2, 3])

    def condition() -> bool:
        assert next(answers) == 3
        return True

    assert eventually(condition)


def test_eventually_says_what_it_saw_last() -> None:
    with pytest.raises(AssertionError, match=r"no such luck within 0\.02 s; the last was 0"):
        eventually(lambda: 0, timeout=0.02, message="no such luck")


def test_targets_are_exporters_and_take_their_options() -> None:
    assert issubclass(FlakyTarget, Exporter)
    assert RecordingExporter(name="mine", loss_window=None).name == "mine"
