"""Bounds: of records, memory, disk and age; what happens at each, and that every drop is counted."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters import ExporterPool, QueueFullError
from tests.targets import PATIENCE, SOON, FakeClock, Target, balanced, numbers, until

PAD = "x" * 1000


def du(directory: Path) -> int:
    return sum(entry.stat().st_blocks * 512 for entry in directory.rglob("*") if entry.is_file())


def padded(count: int) -> list[dict[str, Any]]:
    return [{"n": n, "pad": PAD} for n in range(count)]


def test_drop_oldest_keeps_the_newest() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600, max_records=100)
    tuple(exporter.send({"n": 0}))

    # When
    for record in numbers(999, 1):
        exporter.send(record)

    # Then
    target = balanced(exporter).targets["target"]
    assert 80 <= target.pending <= 100
    assert target.dropped == {"overflow": 1000 - target.pending}
    exporter.answer = None
    assert exporter.flush(PATIENCE).complete
    assert exporter.taken == numbers(target.pending, 1000 - target.pending)


def test_drop_newest_keeps_the_oldest() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600, max_records=10, on_full="drop_newest")

    # When
    receipts = [exporter.send(record) for record in numbers(25)]

    # Then
    target = balanced(exporter).targets["target"]
    assert (target.accepted, target.pending, target.dropped) == (25, 10, {"overflow": 15})
    assert [receipt.done() for receipt in receipts] == [False] * 10 + [True] * 15
    exporter.answer = None
    assert exporter.flush(PATIENCE).complete
    assert exporter.taken == numbers(10)


def test_raise_says_what_to_do() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600, max_records=3, on_full="raise")
    exporter.send(numbers(3))

    # When / Then
    with pytest.raises(QueueFullError, match=r"3 records wait.*max_records"):
        exporter.send({"n": 3})
    assert balanced(exporter).accepted == 3
    exporter.answer = None
    assert exporter.flush(PATIENCE).complete
    exporter.send({"n": 3}).result(PATIENCE)
    assert exporter.taken == numbers(4)


def test_block_waits_for_room() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600, max_records=2, on_full="block")
    exporter.send(numbers(2))
    accepted = threading.Event()

    def send() -> None:
        exporter.send({"n": 2})
        accepted.set()

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    assert not accepted.wait(0.05)

    # When
    exporter.answer = None
    exporter.flush(PATIENCE)

    # Then
    assert accepted.wait(PATIENCE)
    assert exporter.flush(PATIENCE).complete
    assert exporter.taken == numbers(3)
    assert balanced(exporter).targets["target"].dropped == {}


def test_block_gives_up_after_full_timeout() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600, max_records=1, on_full="block", full_timeout=0.05)
    exporter.send({"n": 0})

    # When
    began = time.monotonic()
    with pytest.raises(QueueFullError, match=r"waited 0\.05 s"):
        exporter.send({"n": 1})

    # Then
    assert 0.05 <= time.monotonic() - began < SOON


def test_block_at_full_speed_loses_nothing_in_little_memory() -> None:
    # Given
    failing = iter(range(10**9))
    exporter = Target(
        lambda _: ConnectionError("cut") if next(failing) % 2 else None,
        max_memory="128 kB", max_disk="1 MB", on_full="block", batch_records=50,
    )  # fmt: skip

    # When
    for record in padded(5000):
        exporter.send(record)

    # Then
    while not exporter.flush(PATIENCE).complete:
        pass
    assert [record["n"] for record in exporter.taken] == list(range(5000))
    assert balanced(exporter).targets["target"].dropped == {}


def test_memory_keeps_its_bound_and_the_rest_goes_to_disk() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600, max_memory="128 kB", max_disk="32 MB", on_full="block")

    # When: eight times as much as memory takes
    for record in padded(1000):
        exporter.send(record)
        assert exporter.stats().memory_bytes <= 128_000

    # Then
    stats = balanced(exporter)
    assert stats.pending == 1000
    assert stats.disk_bytes > 0
    exporter.answer = None
    assert exporter.flush(PATIENCE).complete
    assert [record["n"] for record in exporter.taken] == list(range(1000))


def test_without_disk_memory_keeps_its_bound_and_the_oldest_go() -> None:
    # Given: the file system must keep free more than it has
    exporter = Target(ConnectionError("down"), retry=3600, max_memory="128 kB", min_free_disk="100000 TB")
    tuple(exporter.send({"n": -1}))

    # When
    for record in padded(1000):
        exporter.send(record)
        assert exporter.stats().memory_bytes <= 128_000

    # Then
    target = balanced(exporter).targets["target"]
    assert target.accepted == 1001
    assert 50 <= target.pending <= 128
    assert target.dropped == {"overflow": 1001 - target.pending}
    exporter.answer = None
    assert exporter.flush(PATIENCE).complete
    assert [record["n"] for record in exporter.taken] == list(range(1000 - target.pending, 1000))


def test_disk_keeps_its_bound_as_du_shows_it() -> None:
    # Given: records that do not compress
    noise = random.Random(7)
    exporter = Target(ConnectionError("down"), retry=3600, max_memory="128 kB", max_disk="1 MB")
    exporter.send({"n": -1})
    assert exporter.directory is not None
    most = 0

    # When
    for n in range(4000):
        exporter.send({"n": n, "pad": noise.randbytes(1000)})
        if n % 100 == 0:
            exporter.save(PATIENCE)
            most = max(most, du(exporter.directory))

    # Then
    assert most <= 1_000_000
    exporter.save(PATIENCE)  # else saving what is only in memory drops more while the rest is delivered
    target = balanced(exporter).targets["target"]
    assert target.dropped["overflow"] + target.pending == 4001
    assert target.pending > 100
    exporter.answer = None
    assert exporter.flush(PATIENCE).complete
    got = [record["n"] for record in exporter.taken]
    assert got == list(range(4000 - len(got), 4000))


@pytest.mark.parametrize("policy", ["block", "drop_newest", "raise"])
def test_a_full_disk_does_not_hold_up_the_drain(policy: str) -> None:
    # Given: memory and disk at their bounds, as told by five tries of the disk (1, 2, 4, … s apart)
    noise = random.Random(6)
    clock = FakeClock()
    exporter = Target(
        ConnectionError("down"), retry=10**6, max_memory="200 kB", max_disk="1 MB", on_full=policy,
        full_timeout=0, clock=clock,
    )  # fmt: skip
    tuple(exporter.send("first"))
    for _ in range(100):
        for _ in range(100_000):
            try:
                if exporter.send(noise.randbytes(1000)).id is None:
                    break
            except QueueFullError:
                break
        if not exporter.save(PATIENCE):
            break
    for _ in range(5):
        clock.advance(20)
    waiting = exporter.stats().pending
    assert exporter.stats().disk_trouble

    # When: the link is back, and no time passes
    exporter.answer = None
    thread = threading.Thread(target=exporter.flush, daemon=True)
    thread.start()

    # Then
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert balanced(exporter).targets["target"].delivered == waiting


def test_a_record_larger_than_a_quarter_of_memory_goes_to_disk() -> None:
    # Given
    exporter = Target(max_memory="128 kB")
    exporter.gate.clear()

    # When
    receipts = [exporter.send(data) for data in ("before", "y" * 100_000, "after")]
    exporter.gate.set()

    # Then: in its place
    assert all(receipt.result(PATIENCE).successful for receipt in receipts)
    assert exporter.taken == ["before", "y" * 100_000, "after"]


def test_a_list_with_a_record_larger_than_a_quarter_of_memory() -> None:
    # Given
    exporter = Target(max_memory="128 kB")

    # When
    receipt = exporter.send(["before", "y" * 100_000, "after", "z" * 50_000])

    # Then
    assert receipt.result(PATIENCE).successful
    assert exporter.taken == ["before", "y" * 100_000, "after", "z" * 50_000]


def test_a_record_too_large_for_everything_is_refused_at_once() -> None:
    # Given
    exporter = Target(max_memory="128 kB", max_disk="300 kB")

    # When / Then
    with pytest.raises(QueueFullError, match="bytes"):
        exporter.send(random.Random(1).randbytes(2_000_000))
    exporter.send("small").result(PATIENCE)
    assert exporter.taken == ["small"]
    balanced(exporter)


def test_what_is_too_old_is_dropped() -> None:
    # Given: records that are too large to share a row
    clock = FakeClock()
    exporter = Target(ConnectionError("down"), retry=10**6, max_age=60, clock=clock, batch_records=3)
    receipt = exporter.send([f"{n}{PAD * 5}" for n in range(3)])
    tuple(receipt)
    clock.advance(50)
    young = exporter.send("3")

    # When
    clock.advance(14)

    # Then
    assert receipt.result(None).successful is False
    assert receipt.reason == "age"
    assert not young.done()
    assert balanced(exporter).targets["target"].dropped == {"age": 3}
    exporter.answer = None
    assert exporter.flush(PATIENCE).complete
    assert exporter.taken == ["3"]


@pytest.mark.parametrize("loss_window", [None, 1.0])
def test_what_is_too_old_is_dropped_though_younger_ones_follow(loss_window: float | None) -> None:
    # Given: one reading every ten seconds
    clock = FakeClock()
    exporter = Target(ConnectionError("down"), retry=10**6, max_age=60, clock=clock, loss_window=loss_window)

    # When
    for record in numbers(20):
        tuple(exporter.send(record))
        exporter.save(None)
        clock.advance(10)
    clock.advance(10)

    # Then: 200 s are three times max_age
    until(exporter, lambda stats: stats.targets["target"].dropped.get("age", 0) >= 5)


def test_a_short_max_age_is_kept_in_time() -> None:
    # Given: a queue that has been open for a moment
    clock = FakeClock()
    exporter = Target(ConnectionError("down"), retry=10**6, max_age=10, clock=clock)
    assert not exporter.has_unsent_data()
    clock.advance(1)

    # When
    tuple(exporter.send({"n": 0}))
    clock.advance(11)

    # Then
    until(exporter, lambda stats: stats.targets["target"].dropped == {"age": 1})


def test_what_is_too_old_on_disk_is_dropped_after_a_restart() -> None:
    # Given
    clock = FakeClock()
    exporter = Target(ConnectionError("down"), retry=10**6, max_age=60, clock=clock, name="old")
    exporter.send(numbers(3))
    exporter.close(0)

    # When
    clock.advance(61)
    later = Target(max_age=60, clock=clock, name="old", retry=10**6, manual_reexport=False)
    later.gate.clear()
    later.send({"n": 3}).done()
    later.gate.set()
    later.flush(None)

    # Then
    target = balanced(later).targets["old"]
    assert target.accepted == 4
    assert target.delivered + target.dropped.get("age", 0) == 4
    assert later.taken[-1] == {"n": 3}


def test_a_dead_member_holds_no_more_than_the_bounds_and_the_healthy_one_misses_nothing() -> None:
    # Given
    a, b = Target(name="a"), Target(ConnectionError("down"), name="b", retry=3600)
    pool = ExporterPool([a, b], max_records=50)

    # When
    for record in numbers(500):
        pool.send(record).targets["a"]
        if record["n"] % 10 == 0:
            pool.flush(PATIENCE)
    pool.flush(PATIENCE)

    # Then
    stats = balanced(pool)
    assert a.taken == numbers(500)
    assert stats.targets["a"].dropped == {}
    assert stats.targets["b"].pending <= 50
    assert stats.targets["b"].dropped["overflow"] >= 450


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "raise", "block"])
def test_a_bound_of_one_record(policy: str) -> None:
    # Given
    exporter = Target(max_records=1, on_full=policy, full_timeout=PATIENCE)

    # When / Then
    for n in range(20):
        assert exporter.send({"n": n}).result(PATIENCE).successful
    assert exporter.taken == numbers(20)


def test_a_list_larger_than_the_bound() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600, max_records=10)

    # When
    receipt = exporter.send(numbers(100))

    # Then
    target = balanced(exporter).targets["target"]
    assert target.pending <= 10
    assert target.accepted == 100
    assert not receipt.done()
    assert receipt.reason == "overflow"


# -- bounds while a target works -------------------------------------------------------------------------------------


def noisy(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"n": n, "pad": random.Random(n).randbytes(2000)} for n in range(start, start + count)]


def in_background(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_at_the_bound_of_the_disk_what_a_target_has_in_hand_stays_its_own() -> None:
    # Given a backlog on disk, of which a target that came back has the oldest batch in hand
    exporter = Target(
        ConnectionError("down"), retry=3600, max_memory="128 kB", max_disk="1 MB", batch_records=20,
    )  # fmt: skip
    for start in range(0, 200, 20):
        exporter.send(noisy(20, start))
        assert exporter.save(PATIENCE)
    until(exporter, lambda stats: stats.targets["target"].attempts > 0)
    while exporter.inside.acquire(blocking=False):
        pass
    exporter.answer = None
    exporter.gate.clear()
    flush = in_background(lambda: exporter.flush(PATIENCE))
    exporter.entered()
    held = [record["n"] for record in exporter.batches[-1]]
    assert held[0] == 0

    # When more comes than the disk takes
    for start in range(200, 1000, 20):
        exporter.send(noisy(20, start))
        assert exporter.save(PATIENCE)

    # Then others made room, and each record is counted as what became of it
    figures = balanced(exporter).targets["target"]
    assert figures.dropped["overflow"] > 0
    exporter.gate.set()
    flush.join(PATIENCE)
    while not exporter.flush(PATIENCE).complete:
        pass
    figures = balanced(exporter).targets["target"]
    taken = [record["n"] for record in exporter.taken]
    assert taken[: len(held)] == held
    assert taken == sorted(set(taken))
    assert (figures.delivered, figures.dropped) == (len(taken), {"overflow": 1000 - len(taken)})


def test_what_is_dropped_while_a_target_has_it_in_hand_counts_once() -> None:
    # Given no disk, and a target that has all that is in memory in hand
    exporter = Target(max_memory="66 kB", min_free_disk="100000 TB", on_full="drop_oldest")
    exporter.gate.clear()
    exporter.send(noisy(1))
    exporter.entered()

    # When the memory is needed for others, and the target takes it after all
    exporter.send(noisy(60, 1))
    dropped = balanced(exporter).targets["target"].dropped["overflow"]
    exporter.gate.set()
    assert exporter.flush(PATIENCE).complete

    # Then it counts as what it was counted as
    figures = balanced(exporter).targets["target"]
    assert (figures.accepted, figures.delivered) == (61, 61 - figures.dropped["overflow"])
    assert figures.dropped["overflow"] >= dropped >= 1
    assert len(exporter.taken) == figures.delivered + 1
