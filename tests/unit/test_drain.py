"""In which order, and how fast, a backlog goes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from resilient_exporters import Batch, Delivered, Outcome, Retry
from tests.targets import PATIENCE, FakeClock, Target, balanced, numbers, until


def takes(turn: threading.Semaphore) -> None:
    """Wait for one's turn."""
    assert turn.acquire(timeout=PATIENCE)


def backlog(**options: Any) -> Target:
    """An exporter with the records 0 to 9 waiting, its target just back."""
    exporter = Target(ConnectionError("down"), retry=10**6, batch_records=2, **options)
    for record in numbers(10):
        exporter.send(record)
    tuple(exporter.send({"n": 10}))
    exporter.answer = None
    return exporter


def test_fifo_is_the_default() -> None:
    exporter = backlog()
    assert exporter.flush(PATIENCE).complete
    assert exporter.taken == numbers(11)


def test_newest_first() -> None:
    # Given
    exporter = backlog(drain="newest_first")

    # When
    assert exporter.flush(PATIENCE).complete

    # Then: the newest batch first, each in itself in order
    got = [record["n"] for record in exporter.taken]
    assert sorted(got) == list(range(11))
    firsts = [batch[0]["n"] for batch in exporter.batches[1:]]
    assert firsts == sorted(firsts, reverse=True)
    assert got[0] > 7


def test_balanced_sends_fresh_ones_first_and_the_backlog_in_the_rest() -> None:
    # Given: back again, and in the middle of the backlog
    exporter = backlog(drain="balanced")
    turn = threading.Semaphore(0)
    exporter.answer = lambda _: takes(turn)
    exporter.inside = threading.Semaphore(0)
    engine = exporter._open()
    engine.targets[0].breaker.poke()
    engine.hurry()
    exporter.entered()
    turn.release()
    exporter.entered()

    # When: something new comes meanwhile
    fresh = exporter.send({"n": 100})
    turn.release(100)

    # Then: it does not wait for the backlog
    assert fresh.result(PATIENCE).successful
    assert exporter.flush(PATIENCE).complete
    got = [record["n"] for record in exporter.taken]
    assert sorted(got) == [*range(11), 100]
    assert got.index(100) <= 4
    assert [n for n in got if n != 100] == list(range(11))


def test_drain_rate_in_records() -> None:
    # Given: ten records a second, in batches of two
    clock = FakeClock()
    exporter = Target(batch_records=2, drain_rate="10/s", clock=clock)

    # When
    receipts = [exporter.send(record) for record in numbers(8)]
    assert receipts[1].result(None).successful

    # Then: 0.2 s for each batch
    assert exporter.taken == numbers(2)
    for upto in (4, 6, 8):
        assert not receipts[upto - 1].done()
        clock.advance(0.19)
        assert not receipts[upto - 1].done()
        clock.advance(0.02)
        assert receipts[upto - 1].result(None).successful
        assert exporter.taken == numbers(upto)


def test_drain_rate_in_bytes() -> None:
    # Given
    clock = FakeClock()
    exporter = Target(batch_records=1, drain_rate="1 kB/s", clock=clock)

    # When: each is a good second's worth
    receipts = [exporter.send("x" * 1000) for _ in range(3)]

    # Then
    assert receipts[0].result(None).successful
    clock.advance(0.9)
    assert not receipts[1].done()
    clock.advance(0.2)
    assert receipts[1].result(None).successful
    clock.advance(0.9)
    assert not receipts[2].done()
    clock.advance(0.2)
    assert receipts[2].result(None).successful


def test_waits_grow_and_a_servers_wish_counts() -> None:
    # Given: 1, 2, 4, … s by the policy, and a server that asks for 30 s
    import tenacity

    from resilient_exporters import RetryableError, RetryPolicy

    clock = FakeClock()
    exporter = Target(ConnectionError("1"), retry=RetryPolicy(tenacity.wait_exponential(multiplier=1)), clock=clock)
    receipt = exporter.send({"n": 0})
    tuple(receipt)

    # When / Then
    exporter.entered()
    clock.advance(0.9)
    assert not exporter.inside.acquire(timeout=0.1)
    clock.advance(0.2)
    exporter.entered()
    exporter.answer = RetryableError("busy", after=30.0)
    until(exporter, lambda stats: stats.targets["target"].state == "open")
    clock.advance(2.1)
    exporter.entered()
    until(exporter, lambda stats: stats.targets["target"].state == "open")
    clock.advance(29)
    assert not exporter.inside.acquire(timeout=0.1)
    exporter.answer = None
    clock.advance(1.1)
    assert receipt.result(None).successful


@pytest.mark.parametrize("drain", ["fifo", "newest_first", "balanced"])
def test_every_order_delivers_each_once_through_disk_and_restart(drain: str) -> None:
    # Given
    options: dict[str, Any] = {
        "drain": drain,
        "name": "order",
        "max_memory": "128 kB",
        "batch_records": 20,
        "on_full": "block",
    }
    exporter = Target(ConnectionError("down"), retry=3600, **options)
    for n in range(1000):
        exporter.send({"n": n, "pad": "x" * 500})
    exporter.close(0)

    # When: half of the attempts fail
    failing = iter(range(10**9))
    later = Target(lambda _: ConnectionError("cut") if next(failing) % 2 else None, **options)
    while not later.flush(PATIENCE).complete:
        pass

    # Then
    assert sorted(record["n"] for record in later.taken) == list(range(1000))


def test_what_was_refused_for_now_among_others_is_one_batch_again() -> None:
    # Given a target that takes two of three records of the first batch, as a server with several shards may
    exporter = Target(batch_records=90)

    def answer(batch: Batch) -> list[Outcome]:
        first = len(exporter.batches) == 1
        return [Retry(0, "busy") if first and at % 3 == 0 else Delivered() for at in range(len(batch))]

    exporter.answer = answer

    # When 90 records are sent
    exporter.send(numbers(90))
    until(exporter, lambda stats: stats.pending == 0)

    # Then the third that was left is tried again in one attempt
    assert [len(batch) for batch in exporter.batches] == [90, 30]
    assert exporter.batches[1] == numbers(90)[::3]
    assert sorted(record["n"] for record in exporter.taken) == list(range(90))
    balanced(exporter)
