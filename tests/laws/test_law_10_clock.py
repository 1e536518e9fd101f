"""Law 10, clock: ages and waits go by the monotonic clock and the boot id; the wall clock decides nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.ring import ring_path
from tests.targets import FakeClock, Target, balanced, numbers


def aged(clock: FakeClock, mood: object = None) -> Target:
    return Target(mood, clock=clock, retry=10**6, max_age=60, name="aged")


def age_of(exporter: Target) -> float:
    return exporter.stats().oldest_age


@pytest.mark.parametrize("step", [-50 * 365 * 86400.0, -3600.0, 3600.0, 50 * 365 * 86400.0])
def test_a_step_of_the_wall_clock_expires_nothing(step: float) -> None:
    # Given
    clock = FakeClock()
    exporter = aged(clock, ConnectionError("down"))
    tuple(exporter.send({"n": 0}))

    # When: while it runs, and between two starts
    clock.step(step)
    clock.advance(10)
    exporter.close(0)
    clock.step(step)
    later = aged(clock, ConnectionError("down"))
    later.flush(None)

    # Then
    assert balanced(later).pending == 1
    assert 10 <= age_of(later) < 11
    later.answer = None
    assert later.flush(None).complete
    assert later.taken == numbers(1)


def test_age_goes_on_across_restarts_of_the_program() -> None:
    # Given
    clock = FakeClock()
    exporter = aged(clock, ConnectionError("down"))
    tuple(exporter.send({"n": 0}))
    clock.advance(40)
    exporter.close(0)

    # When
    clock.advance(30)
    later = aged(clock)
    later.flush(None)

    # Then
    assert balanced(later).targets["aged"].dropped == {"age": 1} or later.taken == numbers(1)
    assert later.stats().pending == 0


@pytest.mark.parametrize("uptime", [3.0, 10**7])
def test_a_reboot_never_makes_a_record_older_than_it_is(uptime: float) -> None:
    # Given: 40 s old when the power goes; the monotonic clock then begins anew
    clock = FakeClock(now=10**6)
    exporter = aged(clock, ConnectionError("down"))
    tuple(exporter.send({"n": 0}))
    clock.advance(40)
    exporter.close(0)
    assert exporter.directory is not None
    forget(exporter.directory)

    # When: the wall clock is wrong, too
    rebooted = FakeClock(now=uptime, time=0.0, boot="second")
    later = aged(rebooted, ConnectionError("down"))
    later.flush(None)

    # Then: at most what the machine has been up is added, whatever that clock says
    if uptime < 20:
        assert balanced(later).pending == 1
        assert age_of(later) <= 40 + uptime + 1
        rebooted.advance(70)
        later.flush(None)
    later.answer = None
    while not later.flush(None).complete:
        pass
    assert balanced(later).pending == 0


def test_a_reboot_after_which_the_clock_is_behind_keeps_what_is_young() -> None:
    # Given: up for 1000 s, a record of 1 s
    clock = FakeClock(now=1000)
    exporter = aged(clock, ConnectionError("down"))
    tuple(exporter.send({"n": 0}))
    clock.advance(1)
    exporter.close(0)
    assert exporter.directory is not None
    forget(exporter.directory)

    # When
    later = aged(FakeClock(now=2, boot="second"))
    assert later.flush(None).complete

    # Then
    assert later.taken == numbers(1)


def test_waits_are_monotonic() -> None:
    # Given
    clock = FakeClock()
    exporter = Target(ConnectionError("down"), clock=clock, retry=100)
    receipt = exporter.send({"n": 0})
    tuple(receipt)
    exporter.entered()

    # When: a year passes on the wall
    clock.step(365 * 86400)
    clock.advance(50)

    # Then
    assert not exporter.inside.acquire(timeout=0.1)
    exporter.answer = None
    clock.step(-730 * 86400)
    clock.advance(51)
    assert receipt.result(None).successful


def test_order_is_not_the_clocks_business() -> None:
    # Given
    clock = FakeClock()
    exporter = Target(ConnectionError("down"), clock=clock, retry=10**6, name="order")

    # When
    for record in numbers(20):
        exporter.send(record)
        clock.step(-1000.0)
    exporter.close(0)
    later = Target(clock=FakeClock(now=1, time=5, boot="other"), name="order")
    assert later.flush(None).complete

    # Then
    assert later.taken == numbers(20)


def forget(directory: Path) -> None:
    """What a reboot does to shared memory."""
    ring = ring_path(directory)
    assert ring is not None
    ring.unlink()


def test_the_real_clock_does_not_look_at_the_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    clock = Clock()
    before = clock.now()

    # When
    monkeypatch.setattr(time, "time", lambda: 4e9)

    # Then
    assert 0 <= clock.now() - before < 60
    assert clock.time() == 4e9
    assert clock.boot() == Clock().boot() != ""
