from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from resilient_exporters.delivery import clock as module
from resilient_exporters.delivery.clock import Bell, Clock, QueueClock
from tests.queues import StillClock
from tests.targets import PATIENCE


def test_a_ring_before_the_wait_is_not_lost_and_counts_once() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    assert bell.wait(0)
    assert not bell.wait(0)
    assert not bell.wait(-5)


def test_a_ring_wakes_who_waits() -> None:
    bell, woken = Bell(), []
    waiter = threading.Thread(target=lambda: woken.append(bell.wait()))
    waiter.start()
    bell.ring()
    waiter.join(PATIENCE)
    assert woken == [True]
    bell.ring()
    # longer than a lock can wait
    assert bell.wait(1e30)


def test_the_machine_s_clocks() -> None:
    clock = Clock()
    assert abs(clock.now() - time.monotonic()) < 5
    assert abs(clock.time() - time.time()) < 5
    assert clock.boot() == Clock().boot() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    bell = Bell()
    assert not clock.wait(bell, 0)
    bell.ring()
    assert clock.wait(bell, None)


def test_without_a_boot_id_each_process_is_a_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert Clock().boot() == module._PROCESS == Clock().boot()


def test_a_new_queue_begins_at_zero() -> None:
    machine = StillClock(5000)
    clock = QueueClock(machine)
    assert clock.now() == 0
    machine.seconds += 7
    assert (clock.now(), clock.state) == (7, ("boot-1", -5000, 7))


def test_a_restart_of_the_program_goes_on() -> None:
    machine = StillClock(5000)
    first = QueueClock(machine)
    machine.seconds += 7
    kept = first.state
    machine.seconds += 100
    assert QueueClock(machine, kept).now() == 107


def test_a_reboot_counts_the_time_since_boot_only() -> None:
    machine = StillClock(5000)
    first = QueueClock(machine)
    machine.seconds += 50
    # Given a reboot after an unknown time, 3 s ago
    second = QueueClock(StillClock(3, "boot-2"), first.state)
    assert second.now() == 53
    # and another
    assert QueueClock(StillClock(1, "boot-3"), second.state).now() == 54
