"""Law 9, bounded exit: close saves first, delivers until the deadline, and says what remains."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from resilient_exporters import ExporterPool
from resilient_exporters.testing import eventually
from tests.programs import run
from tests.targets import PATIENCE, SOON, Target, numbers


def waits(event: threading.Event, seconds: float | None = None) -> None:
    """Hang until someone lets go, or for ``seconds``."""
    event.wait(seconds)


@pytest.mark.parametrize("mood", ["down", "hangs", "slow"])
@pytest.mark.parametrize("timeout", [0.0, 0.3])
def test_close_ends_in_time_and_everything_is_there_at_the_next_start(mood: str, timeout: float) -> None:
    # Given
    gate = threading.Event()
    moods: dict[str, Any] = {
        "down": ConnectionError("down"),
        "hangs": lambda _: waits(gate),
        "slow": lambda _: waits(gate, 0.5),
    }
    exporter = Target(moods[mood], name="exit", timeout=0, batch_records=10)
    receipts = [exporter.send(record) for record in numbers(1000)]
    exporter.entered()

    # When
    report = exporter.close(timeout)

    # Then: to deliver all would take a slow one 50 s, and the others for ever
    assert report.pending > 0
    assert report.lost == 0
    assert report.saved == report.pending
    gate.set()
    later = Target(name="exit")
    assert later.flush(PATIENCE).complete
    assert set(exporter.ids) | set(later.ids) == {receipt.id for receipt in receipts}
    assert exporter.close().seconds == 0.0


def test_close_saves_before_it_delivers() -> None:
    # Given: a target that looks whether its record is on disk when it is called during close
    exporter: Target
    sizes: list[int] = []

    def answer(batch: Any) -> None:
        if batch[0].data == "first":  # not before the rest is saved
            eventually(lambda: exporter.stats().written_bytes)
        sizes.append(exporter.stats().written_bytes)

    exporter = Target(answer, loss_window=3600, batch_records=1)
    exporter.send("first")
    exporter.entered()
    for record in numbers(30):
        exporter.send(record)

    # When
    report = exporter.close(PATIENCE)

    # Then
    assert report.pending == 0
    assert len(sizes) == 31
    assert min(sizes) > 0


def test_a_pool_closes_as_one() -> None:
    # Given
    a, b = Target(name="a"), Target(ConnectionError("down"), name="b", retry=3600)
    pool = ExporterPool([a, b], name="pool")
    pool.send(numbers(100))

    # When
    report = pool.close(3600)

    # Then
    assert report.seconds < SOON
    assert a.taken == numbers(100)
    assert (report.pending, report.lost) == (100, 0)
    assert a.disconnects == 1


def test_the_interpreter_ends_soon_with_a_large_backlog() -> None:
    # Given / When / Then
    out = run("""
        import atexit, time
        from resilient_exporters import Exporter

        class Down(Exporter):
            def export(self, batch):
                raise ConnectionError("down")

        def last():
            print(time.monotonic() - began < 60)
        atexit.register(last)  # called before ours
        e = Down(name="exit", loss_window=3600)
        atexit.unregister(last)
        e.send("x")
        for n in range(50_000):
            e.send({"n": n})
        began = time.monotonic()
        import resilient_exporters.delivery.engine as engine
        for one in list(engine._LIVE):
            one.save_at_exit()
        last()
    """)
    assert out == "True\n"
    later = Target(name="exit")
    assert later.flush(PATIENCE).complete
    assert len(later.taken) == 50_001


def test_close_with_a_disk_that_stands_still_ends_and_memory_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    from resilient_exporters.delivery.spool import Spool

    gate = threading.Event()
    write = Spool.write

    def stuck(self: Spool, *arguments: Any) -> None:
        gate.wait()
        write(self, *arguments)

    monkeypatch.setattr(Spool, "write", stuck)
    exporter = Target(ConnectionError("down"), retry=3600, name="exit")
    exporter.send(numbers(10))

    # When
    began = time.monotonic()
    report = exporter.close(0.2)

    # Then
    assert time.monotonic() - began < SOON
    assert (report.pending, report.lost) == (10, 0)
    gate.set()
