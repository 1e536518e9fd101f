"""Law 6, no stall: send waits for no disk, no link and no full queue, unless asked to."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from resilient_exporters.delivery.spool import Spool
from tests.targets import PATIENCE, SOON, Target, balanced

QUICK = 0.1
"""Seconds; what it takes is some microseconds, but the machine may be busy."""


def usual(call: Callable[[], Any], times: int) -> float:
    """What most of the calls take at most. None waits for what stands still: then it would never return.

    Not the slowest: a machine that stands still for a second makes one call slow, waiting makes them all slow.
    """
    seconds = []
    for _ in range(times):
        began = time.monotonic()
        call()
        seconds.append(time.monotonic() - began)
    return statistics.median(seconds)


def test_a_dead_link() -> None:
    exporter = Target(timeout=0)
    exporter.gate.clear()
    assert usual(lambda: exporter.send({"n": 1}), 5000) < QUICK
    exporter.gate.set()


def test_a_target_that_hangs_in_connect() -> None:
    stuck = threading.Event()

    class Stuck(Target):
        def connect(self) -> None:
            stuck.wait()

    exporter = Stuck(timeout=0)
    assert usual(lambda: exporter.send({"n": 1}), 1000) < QUICK
    stuck.set()


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_a_full_queue(policy: str) -> None:
    exporter = Target(ConnectionError("down"), retry=3600, max_records=10, on_full=policy)
    assert usual(lambda: exporter.send({"n": 1}), 5000) < QUICK
    assert balanced(exporter).accepted == 5000


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_a_disk_that_stands_still(monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    # Given: memory for a hundred records, and a disk that never answers
    gate, writing = threading.Event(), threading.Event()
    write = Spool.write

    def stuck(self: Spool, *arguments: Any) -> None:
        writing.set()
        gate.wait()
        write(self, *arguments)

    monkeypatch.setattr(Spool, "write", stuck)
    exporter = Target(ConnectionError("down"), retry=3600, max_memory="128 kB", on_full=policy, loss_window=0.01)
    tuple(exporter.send("first"))
    assert writing.wait(PATIENCE)

    # When / Then
    assert usual(lambda: exporter.send({"pad": "x" * 1000}), 2000) < QUICK
    assert usual(exporter.stats, 100) < QUICK
    stats = balanced(exporter)
    assert stats.accepted == 2001
    assert stats.memory_bytes <= 128_000
    began = time.monotonic()
    gate_opened_later = threading.Timer(0.2, gate.set)
    gate_opened_later.start()
    exporter.close(0.1)
    assert time.monotonic() - began < SOON
    gate_opened_later.join()


def test_stats_wait_for_nothing_while_the_target_hangs() -> None:
    exporter = Target(timeout=0)
    exporter.gate.clear()
    exporter.send({"n": 1})
    exporter.entered()
    assert usual(exporter.stats, 200) < QUICK
    exporter.gate.set()
