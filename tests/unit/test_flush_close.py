"""flush, save and close: bounded in time, and honest about what is left."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from resilient_exporters import ClosedError, ExporterPool, HoldError, RetryPolicy
from tests.targets import PATIENCE, SOON, Target, balanced, numbers


def test_flush_delivers_what_waits_and_says_so() -> None:
    # Given
    exporter = Target()
    exporter.gate.clear()
    exporter.send(numbers(10))

    # When
    exporter.gate.set()
    report = exporter.flush(PATIENCE)

    # Then
    assert report.complete
    assert (report.pending, report.dropped, report.dead) == (0, 0, 0)
    assert exporter.taken == numbers(10)
    assert exporter.flush(PATIENCE).complete
    assert exporter.flush(PATIENCE).delivered == 0


def test_flush_on_a_dead_target_probes_once_and_returns() -> None:
    # Given: the next probe would be in an hour
    exporter = Target(ConnectionError("down"), retry=3600)
    tuple(exporter.send({"n": 0}))

    # When
    began = time.monotonic()
    report = exporter.flush()

    # Then
    assert time.monotonic() - began < SOON
    assert not report.complete
    assert (report.delivered, report.pending) == (0, 1)
    assert len(exporter.batches) == 2
    assert exporter.stats().targets["target"].state == "open"


def test_flush_probes_a_target_that_waits_or_is_held_at_once() -> None:
    for failure in (ConnectionError("down"), HoldError("wrong password"), RuntimeError("?")):
        # Given
        exporter = Target(failure, retry=3600)
        tuple(exporter.send({"n": 0}))

        # When
        exporter.answer = None

        # Then
        assert exporter.flush().complete
        assert exporter.taken == numbers(1)


def test_flush_ends_if_the_attempt_in_flight_fails() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600)
    exporter.gate.clear()
    exporter.send({"n": 0})
    exporter.entered()
    watched = threading.Event()
    engine = exporter._open()
    watch = engine.watch
    engine.watch = lambda waiter: (watch(waiter), watched.set())  # type: ignore[method-assign,assignment,func-returns-value] # told when it is watched
    thread = threading.Thread(target=exporter.flush, daemon=True)
    thread.start()

    # When: it fails after the flush has begun to wait
    assert watched.wait(PATIENCE)
    exporter.gate.set()

    # Then
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_flush_is_bounded_in_time() -> None:
    # Given: a target that hangs
    exporter = Target(timeout=0)
    exporter.gate.clear()
    exporter.send({"n": 0})
    exporter.entered()

    # When
    began = time.monotonic()
    report = exporter.flush(0.05)

    # Then
    assert time.monotonic() - began < SOON
    assert not report.complete
    assert report.pending == 1
    exporter.gate.set()


def test_flush_is_bounded_in_work() -> None:
    # Given
    exporter = Target(ConnectionError("down"), manual_reexport=True)
    exporter.send(numbers(10))
    tuple(exporter.send({"n": 10}))

    # When
    exporter.answer = None
    report = exporter.flush(PATIENCE, max_records=3)

    # Then
    assert (report.delivered, report.complete) == (3, False)
    assert exporter.taken == numbers(3)
    assert exporter.stats().pending == 8
    assert exporter.flush(PATIENCE, max_records=0).delivered == 0
    assert exporter.flush(PATIENCE).complete
    assert exporter.taken == numbers(11)


def test_flush_bounded_in_work_does_not_hold_up_an_automatic_exporter_for_ever() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600)
    exporter.send(numbers(10))
    tuple(exporter.send({"n": 10}))

    # When
    exporter.answer = None
    exporter.flush(PATIENCE, max_records=3)
    last = exporter.send({"n": 11})

    # Then: what is left follows by itself
    assert last.result(PATIENCE).successful
    assert exporter.taken == numbers(12)


def test_flush_returns_if_one_target_of_a_pool_is_dead() -> None:
    # Given
    a, b = Target(name="a"), Target(ConnectionError("down"), name="b", retry=3600)
    pool = ExporterPool([a, b])
    pool.send(numbers(3))

    # When
    report = pool.flush()

    # Then
    assert not report.complete
    assert report.pending == 3
    assert a.taken == numbers(3)


def test_flush_ends_when_the_policy_gives_up() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=RetryPolicy(wait=0, stop=3))
    exporter.send(numbers(2))

    # When
    report = exporter.flush(PATIENCE)
    exporter.flush(PATIENCE)
    exporter.flush(PATIENCE)

    # Then
    assert exporter.stats().targets["target"].dead == 2
    assert [letter.attempts for letter in exporter.dead_letters()] == [3, 3]
    assert report.dropped == 0


def test_several_threads_may_flush() -> None:
    # Given
    exporter = Target()
    exporter.gate.clear()
    exporter.send(numbers(5))
    reports = []
    threads = [threading.Thread(target=lambda: reports.append(exporter.flush(PATIENCE))) for _ in range(4)]
    for thread in threads:
        thread.start()

    # When
    exporter.gate.set()
    for thread in threads:
        thread.join(PATIENCE)

    # Then
    assert [report.complete for report in reports] == [True] * 4


def test_flush_of_nothing() -> None:
    report = Target().flush()
    assert report.complete
    assert (report.delivered, report.pending) == (0, 0)


def test_save_puts_everything_on_disk() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600, loss_window=3600)
    exporter.send(numbers(100))
    assert exporter.stats().written_bytes == 0

    # When
    saved = exporter.save(PATIENCE)

    # Then
    assert saved
    assert exporter.directory is not None
    assert (exporter.directory / "cache.db").exists()
    assert exporter.stats().written_bytes > 0
    assert exporter.save(PATIENCE)


def test_save_on_a_disk_that_takes_nothing_says_no() -> None:
    # Given
    noise = random.Random(3)
    exporter = Target(ConnectionError("down"), retry=3600, min_free_disk="100000 TB")
    exporter.send([{"n": n, "noise": noise.randbytes(1000)} for n in range(200)])

    # When / Then
    assert not exporter.save(PATIENCE)
    assert "min_free_disk" in str(exporter.stats().disk_trouble)


def test_no_database_is_made_on_a_disk_below_its_reserve() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600, min_free_disk="100000 TB")
    exporter.send({"n": 0})

    # When / Then
    assert not exporter.save(PATIENCE)
    assert exporter.directory is not None
    assert not (exporter.directory / "cache.db").exists()


def test_close_delivers_what_a_healthy_target_takes() -> None:
    # Given
    exporter = Target()
    exporter.gate.clear()
    exporter.send("first")
    exporter.entered()
    exporter.send(numbers(20))
    exporter.gate.set()

    # When
    report = exporter.close(PATIENCE)

    # Then
    assert exporter.taken == ["first", *numbers(20)]
    assert (report.pending, report.lost) == (0, 0)


def test_close_with_the_target_down_is_quick_and_keeps_everything() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600, name="slow")
    tuple(exporter.send("first"))
    for record in numbers(20_000):
        exporter.send(record)

    # When
    report = exporter.close(3600)

    # Then: it waits for no probe of a target that is known to be away
    assert report.seconds < SOON
    assert (report.delivered, report.pending, report.saved, report.lost) == (0, 20_001, 20_001, 0)
    later = Target(name="slow")
    assert later.flush(PATIENCE).complete
    assert later.taken == ["first", *numbers(20_000)]
    assert balanced(later).accepted == 20_001


@pytest.mark.parametrize("loss_window", [None, 0.0, 1.0])
def test_close_keeps_what_waits_at_any_loss_window(loss_window: float | None) -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600, name="slow", loss_window=loss_window)
    exporter.send(numbers(10))

    # When
    report = exporter.close(0)

    # Then
    assert (report.pending, report.saved, report.lost) == (10, 10, 0)
    later = Target(name="slow", loss_window=loss_window)
    assert later.flush(PATIENCE).complete
    assert later.taken == numbers(10)


def test_a_second_close_does_nothing() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600)
    exporter.send(numbers(3))
    assert exporter.close(0).pending == 3

    # When
    report = exporter.close()

    # Then
    assert (report.delivered, report.saved, report.pending, report.lost, report.seconds) == (0, 0, 0, 0, 0.0)


def test_two_threads_may_close() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600)
    exporter.send(numbers(3))
    reports = []
    threads = [threading.Thread(target=lambda: reports.append(exporter.close(0))) for _ in range(4)]

    # When
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    # Then
    assert sorted(report.pending for report in reports) == [0, 0, 0, 3]


def test_after_close_nothing_is_taken_any_more() -> None:
    # Given
    exporter = Target()
    exporter.send({"n": 0})
    exporter.close()

    # When / Then
    for call in (
        lambda: exporter.send({"n": 1}),
        lambda: exporter.send([{"n": 1}]),
        exporter.flush,
        exporter.save,
        exporter.replay,
    ):
        with pytest.raises(ClosedError, match="closed"):
            call()
    assert exporter.stats().accepted == 1


def test_close_before_the_first_use_does_nothing_and_holds() -> None:
    exporter = Target()
    assert exporter.close().seconds == 0.0
    with pytest.raises(ClosedError):
        exporter.send({"n": 0})


def test_close_is_bounded_when_the_target_hangs() -> None:
    # Given
    exporter = Target(timeout=0, name="hangs")
    exporter.gate.clear()
    exporter.send({"n": 0})
    exporter.entered()
    exporter.send({"n": 1})

    # When
    report = exporter.close(0.1)

    # Then
    assert report.seconds < SOON
    assert (report.pending, report.lost) == (2, 0)
    exporter.gate.set()
    later = Target(name="hangs")
    assert later.flush(PATIENCE).complete
    assert [record["n"] for record in later.taken] in ([0, 1], [1])


def test_close_wakes_a_sender_that_waits_for_room() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600, max_records=1, on_full="block")
    tuple(exporter.send({"n": 0}))
    ended: list[str] = []

    def send() -> None:
        with pytest.raises(ClosedError):
            exporter.send({"n": 1})
        ended.append("ended")

    thread = threading.Thread(target=send, daemon=True)
    thread.start()

    # When
    exporter.close(0)

    # Then
    thread.join(PATIENCE)
    assert ended == ["ended"]


def test_unsent_data_is_dropped_and_counted_if_asked() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600, save_unsent_data=False, name="drop")
    receipt = exporter.send(numbers(4))

    # When
    report = exporter.close(0)

    # Then
    assert (report.saved, report.pending, report.lost) == (0, 0, 0)
    assert balanced(exporter).targets["drop"].dropped == {"unsaved": 4}
    assert receipt.result(0).successful is False
    assert receipt.reason == "unsaved"
    later = Target(name="drop")
    assert not later.has_unsent_data()


def test_the_next_start_after_a_clean_end_holds_no_memory(own_queues: Path) -> None:
    # Given
    from resilient_exporters.delivery.ring import ring_path

    exporter = Target(name="clean", loss_window=3600)
    exporter.send(numbers(1000))
    assert exporter.flush(PATIENCE).complete

    # When
    exporter.close()

    # Then: only the cursors are left in shared memory, and nothing was written to disk
    assert exporter.directory is not None
    ring = ring_path(exporter.directory)
    assert ring is not None
    assert ring.stat().st_size < 100_000
    assert not (exporter.directory / "cache.db").exists()


def test_counters_go_on_after_a_restart() -> None:
    # Given
    exporter = Target(name="count")
    exporter.send(numbers(3))
    exporter.flush(PATIENCE)
    exporter.answer = ConnectionError("down")
    tuple(exporter.send({"n": 3}))
    exporter.close(0)

    # When
    later = Target(name="count")
    later.send({"n": 4})
    assert later.flush(PATIENCE).complete

    # Then
    stats = balanced(later)
    assert stats.accepted == 5
    assert stats.targets["count"].delivered == 5
