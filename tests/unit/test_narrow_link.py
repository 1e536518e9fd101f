"""Where time-outs come from the size of a batch, the size is found and kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from resilient_exporters import Batch
from resilient_exporters.delivery.pace import Concurrency
from tests.targets import FakeClock, Target, numbers

TIMEOUT = 30.0


def link(clock: FakeClock, seconds: Callable[[int], float]) -> Callable[[Batch], TimeoutError | None]:
    """A target behind a link that needs so many seconds for a batch of so many records."""

    def answer(batch: Batch) -> TimeoutError | None:
        needed = seconds(len(batch))
        clock.advance(min(needed, TIMEOUT - 1))
        return None if needed < TIMEOUT else TimeoutError("timed out")

    return answer


def drained(exporter: Target, records: int) -> list[int]:
    """Send them all, and return the sizes of the batches that it took."""
    exporter.gate.clear()
    exporter.send(numbers(records))
    exporter.gate.set()
    while not exporter.flush(None).complete:
        pass
    return [len(batch) for batch in exporter.batches]


@pytest.mark.parametrize("rate", [15.0, 4.0, 0.5])
def test_a_narrow_link_is_not_filled_with_batches_that_cannot_pass(rate: float) -> None:
    # Given: a second for so many records, and one for the way
    clock = FakeClock()
    exporter = Target(link(clock, lambda records: 1 + records / rate), timeout=TIMEOUT, clock=clock)

    # When: records for two hours
    began = clock.now()
    drained(exporter, int(7200 * rate))

    # Then: time-outs and the way took little of it
    assert clock.now() - began < 1.2 * 7200
    assert len(exporter.taken) == int(7200 * rate)


def test_after_a_silent_outage_batches_are_full_again() -> None:
    # Given: nothing came back, until the batches were small
    clock = FakeClock()
    silence = [TIMEOUT] * 12
    exporter = Target(link(clock, lambda _: silence.pop() if silence else 0.1), timeout=TIMEOUT, clock=clock)

    # When
    sizes = drained(exporter, 5000)

    # Then
    assert sizes[11:13] == [1, 1]
    assert 500 in sizes[13:24]


def test_a_target_that_takes_its_time_whatever_the_size_gets_full_batches() -> None:
    # Given: 12 s for any batch, and one time-out
    clock = FakeClock()
    first = [TIMEOUT]
    exporter = Target(link(clock, lambda _: first.pop() if first else 12.0), timeout=TIMEOUT, clock=clock)

    # When
    sizes = drained(exporter, 20_000)

    # Then
    assert sizes.count(500) > 30
    assert len(sizes) < 50


def test_a_target_that_takes_nearly_all_its_time_whatever_the_size_gets_full_batches() -> None:
    # Given: 25 s for any batch, and one time-out
    clock = FakeClock()
    first = [TIMEOUT]
    exporter = Target(link(clock, lambda _: first.pop() if first else 25.0), timeout=TIMEOUT, clock=clock)

    # When
    sizes = drained(exporter, 20_000)

    # Then
    assert sizes.count(500) > 30


def test_no_more_batches_in_flight_where_that_might_take_each_too_long() -> None:
    # Given: a link that is full with one batch, which takes a third of the time that it has
    auto = Concurrency("auto")
    for _ in range(100):
        auto.note(10.0, full=True, failed=False, most=TIMEOUT / 2)
    assert auto.level == 1

    # When: there is time enough
    for _ in range(3):
        auto.note(5.0, full=True, failed=False, most=TIMEOUT / 2)

    # Then
    assert auto.level == 2


def test_one_bad_minute_on_a_far_link_does_not_keep_the_number_in_flight_low_for_long() -> None:
    # Given: two in flight bring nothing, at first
    auto = Concurrency("auto")
    while auto.level < 2:
        auto.note(4.0, full=True, failed=False)
    while auto.level == 2:
        auto.note(8.0, full=True, failed=False)

    # When: then they do
    batches = 0
    while auto.level < 4 and batches < 60:
        auto.note(4.0, full=True, failed=False)
        batches += 1

    # Then: within minutes
    assert auto.level == 4


def test_batches_that_are_full_by_their_bytes_are_full() -> None:
    # Given: a thousand bytes fill a batch long before 500 records do, and a backlog of such batches was taken
    exporter = Target(concurrency="auto", batch_bytes=1000, linger=0, timeout=0)
    exporter.send([{"text": "x" * 400, "n": n} for n in range(40)])
    assert exporter.flush(None).complete
    taken = len(exporter.batches)
    for _ in range(taken):
        exporter.entered()

    # When
    exporter.gate.clear()
    exporter.send([{"text": "x" * 400, "n": n} for n in range(40)])

    # Then: more than one is in flight
    exporter.entered()
    exporter.entered()
    exporter.gate.set()
    assert exporter.flush(None).complete
