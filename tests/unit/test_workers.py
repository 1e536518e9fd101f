from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from resilient_exporters.delivery.workers import Workers
from resilient_exporters.testing import FakeClock, RecordingExporter, eventually
from tests.targets import PATIENCE


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers("test-worker")
    yield made
    made.close()


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("test-worker")]


def test_no_thread_before_the_first_job(workers: Workers) -> None:
    assert names() == []


def test_one_thread_does_one_job_after_the_other(workers: Workers) -> None:
    done: SimpleQueue[str] = SimpleQueue()
    for _ in range(20):
        workers.submit(lambda: done.put(threading.current_thread().name))
        done.get(timeout=PATIENCE)
    assert len(names()) <= 2


def test_threads_that_are_asked_for_start_with_the_first_job() -> None:
    many = Workers("test-worker", 4)
    done = threading.Event()
    many.submit(done.set)
    assert done.wait(PATIENCE)
    assert many._started == 4
    many.close()


def test_a_hanging_job_does_not_hold_up_the_others(workers: Workers) -> None:
    # Given jobs that hang
    release, hanging = threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        hanging.release()
        release.wait(PATIENCE)

    for _ in range(5):
        workers.submit(hang)
    for _ in range(5):
        assert hanging.acquire(timeout=PATIENCE)
    # When another comes, then it is done, by a thread more
    done = threading.Event()
    workers.submit(done.set)
    assert done.wait(PATIENCE)
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("test-worker"))
    release.set()


def test_a_job_that_raises_is_logged_and_its_thread_goes_on(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()

    def fails() -> None:
        raise SystemExit("a target called exit")

    workers.submit(fails)
    workers.submit(done.set)
    assert done.wait(PATIENCE)
    workers.close()
    for thread in threading.enumerate():
        if thread.name.startswith("test-worker"):
            thread.join(PATIENCE)
    assert "a delivery thread failed" in caplog.text


def test_closing_ends_idle_threads_and_busy_ones_after_their_job() -> None:
    one = Workers("test-worker", 2)
    begun, release = threading.Event(), threading.Event()
    before = set(threading.enumerate())

    def busy() -> None:
        begun.set()
        release.wait(PATIENCE)

    one.submit(busy)
    assert begun.wait(PATIENCE)
    mine = set(threading.enumerate()) - before
    one.close()
    ran: list[int] = []
    one.submit(lambda: ran.append(1))
    release.set()
    for thread in mine:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert ran == []


def test_a_system_without_more_threads(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given one busy thread, and a system that gives no more
    begun, release, done = threading.Event(), threading.Event(), SimpleQueue[int]()

    def busy() -> None:
        begun.set()
        release.wait(PATIENCE)

    workers.submit(busy)
    assert begun.wait(PATIENCE)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        with caplog.at_level(logging.WARNING):
            workers.submit(lambda: done.put(1))
        assert "no further delivery thread" in caplog.text
    # When there is room again, then the next job gets a thread of its own, and the one before is not forgotten
    workers.submit(lambda: done.put(2))
    assert {done.get(timeout=PATIENCE), done.get(timeout=PATIENCE)} == {1, 2}
    release.set()
    for number in range(10):
        workers.submit(lambda number=number: done.put(number))  # type: ignore[misc]
        assert done.get(timeout=PATIENCE) == number


def test_a_system_that_has_no_thread_at_first_gets_its_deliveries_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a system that gives no thread for the first delivery
    real = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if "-worker" in self.name:
            raise RuntimeError("can't start new thread")
        real(self)

    clock = FakeClock()
    exporter = RecordingExporter(clock=clock)
    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        exporter.send({"n": 1})
        eventually(lambda: "no further delivery thread" in caplog.text, PATIENCE)

    # When it has one again, though nobody sends
    clock.advance(1)

    # Then
    assert exporter.wait_for(1) == [{"n": 1}]
    exporter.close()
