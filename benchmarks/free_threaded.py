"""What does the interpreter's lock cost? A free-threaded Python with the lock on and off, in turns.

``python3.14t -m benchmarks free_threaded``. The same interpreter both times: only ``PYTHON_GIL`` differs.
"""

from __future__ import annotations

import sys
import sysconfig
from typing import Any

from benchmarks import accept, drain_http, fan_out, through_disk
from benchmarks import send as sending
from benchmarks.harness import Bench, Figures, column


def run(bench: Bench) -> None:
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        bench.note(f"NOT MEASURED: Python {sys.version.split()[0]} always has the lock: run it by a free-threaded one")
        return
    count = bench.size(500_000, 10_000)
    burst = {"taken": True, "count": bench.size(50_000, 1_000)}
    cases: dict[str, tuple[Any, dict[str, Any]]] = {
        "accept": (accepted, {"count": count}),
        "disk": (through, {"count": count}),
        "http": (drained, {"count": count}),
        "fan": (fanned, {"count": bench.size(100_000, 1_000), "targets": 4}),
        "burst": (burst_of, burst),
        "burst of 4": (burst_of, {**burst, "threads": 4}),
    }
    found = bench.measure(
        {
            f"{name}, {lock}": (function, {**given, "lock": lock, "environment": {"PYTHON_GIL": lock}})
            for name, (function, given) in cases.items()
            for lock in "01"
        }
    )
    for name, text, key, unit in (
        ("accept", "accepted and saved, target down", "rate", "/s"),
        ("accept", "  CPU", "cpu", "s/M"),
        ("disk", "send to deleted", "rate", "/s"),
        ("disk", "  in: send and save", "in", "/s"),
        ("disk", "  out: read, deliver, delete", "out", "/s"),
        ("disk", "  CPU", "cpu", "s/M"),
        ("http", "drained into HTTP bulks", "rate", "/s"),
        ("http", "  CPU", "cpu", "s/M"),
        ("fan", "sent to 4 healthy targets: CPU", "cpu", "s/M"),
        ("burst", "send, a healthy burst: p50", "p50", "us"),
        ("burst", "  p99.9", "p99.9", "us"),
        ("burst of 4", "send, a healthy burst of 4 threads: p50", "p50", "us"),
        ("burst of 4", "  p99.9", "p99.9", "us"),
    ):
        free, locked = (column(found[f"{name}, {lock}"], key) for lock in "01")
        bench.row(text, free, unit, beside=("with the lock", locked))


# In a process of their own:


def accepted(directory: str, count: int, lock: str) -> Figures:
    _is(lock)
    return accept.exporter(directory, count)


def through(directory: str, count: int, lock: str) -> Figures:
    _is(lock)
    return through_disk.exporter(directory, count)


def drained(directory: str, count: int, lock: str) -> Figures:
    _is(lock)
    return drain_http.exporter(directory, count)


def fanned(directory: str, targets: int, count: int, lock: str) -> Figures:
    _is(lock)
    return fan_out.healthy(directory, targets, count)


def burst_of(directory: str, count: int, taken: bool, lock: str, threads: int = 1) -> Figures:
    _is(lock)
    return sending.exporter(directory, count, taken, threads=threads)


def _is(lock: str) -> None:
    """A module that is not made for it turns the lock on by being imported."""
    on = getattr(sys, "_is_gil_enabled", lambda: True)()
    if on != bool(int(lock)):
        raise RuntimeError(f"the lock is {'on' if on else 'off'}")
