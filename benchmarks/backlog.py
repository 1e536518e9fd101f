"""What does a large backlog cost: memory, and time until the program that finds it goes on?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.harness import Bench, Figures, column, fresh_directory, number, remove
from benchmarks.material import Target, cpu_seconds, readings, send_at, status

COUNTS = (10_000, 100_000, 200_000, 1_000_000)


def run(bench: Bench) -> None:
    measure(bench, (2_000, 20_000) if bench.smoke else COUNTS)


def measure(bench: Bench, counts: Sequence[int]) -> None:
    """A row for each figure and size; what should be flat stands beside the smallest size."""
    found = {count: _at(bench, count) for count in counts}
    least = f"{number(counts[0])} waiting"
    for count in counts:
        looked, filled = found[count]["look"], found[count]["fill"]
        name, goal = f"{number(count)} waiting", 40 if count <= 200_000 else 80
        bare = ("imports only", column(looked, "rss_before"))
        bench.row(f"{name}: RSS after opening", column(looked, "rss"), "MB", beside=bare, most=goal)
        bench.row(f"{name}: RSS at most", column(looked, "peak"), "MB", beside=bare, most=goal)
        bare = ("imports only", column(filled, "rss_before"))
        bench.row(f"{name}: RSS of the program that sent them", column(filled, "rss"), "MB", beside=bare)
        read = ("reading the keys by sqlite3", column(looked, "keys"))
        bench.row(f"{name}: until stats()", column(looked, "seconds"), "s", beside=read, most=1)
        bench.row(f"{name}: CPU to open", column(looked, "open"), "s", most=0.5)
        first = column(found[count]["deliver"], "seconds")
        bench.row(f"{name}: until the first is delivered", first, "s", beside=read, most=1)
        bench.row(f"{name}: disk", column(filled, "disk"), "MB")
        for case, key, what, unit, bound in _FLAT:
            beside = (least, column(found[counts[0]][case], key))
            bench.row(f"{name}: {what}", column(found[count][case], key), unit, beside=beside, of="ratio", **bound)
    bench.note("filling and draining are done once for each size; beside the smallest size: whether it is flat")
    bench.note("a bound: so many are the most, or so many bytes, and each that comes drops the oldest")


_FLAT: tuple[tuple[str, str, str, str, dict[str, float]], ...] = (
    ("look", "stats", "CPU of a call of stats()", "us", {"most": 2}),
    ("records", "cpu", "CPU to accept while max_records drops the oldest", "s/M", {"most": 1.5}),
    ("bytes", "cpu", "CPU to accept while max_disk drops the oldest", "s/M", {"most": 1.5}),
    ("drain", "rate", "drained", "/s", {}),
    ("drain", "cpu", "CPU to drain", "s/M", {"most": 1.5}),
    ("drain", "peak", "RSS at most while drained", "MB", {"most": 1.5}),
)
"""Case, key, figure, unit, and the goal for the ratio to the smallest size."""


def _at(bench: Bench, count: int) -> dict[str, list[Figures]]:
    directory = fresh_directory()
    at, more = {"directory": str(directory)}, bench.size(30_000, 2_000)
    try:
        filled = bench.measure({f"fill {count}": (fill, {**at, "count": count})}, repeats=1)
        found = bench.measure(
            {f"look {count}": (look, {**at, "count": count}), f"deliver {count}": (deliver, at)}, repeats=3
        )
        bounded = {"more": more, "disk": int(filled[f"fill {count}"][0]["disk"] * 1e6)}
        found |= bench.measure(
            {
                f"records {count}": (bound, {**at, **bounded, "by": "records"}),
                f"bytes {count}": (bound, {**at, **bounded, "by": "bytes"}),
            },
            repeats=3,
        )
        found |= filled | bench.measure({f"drain {count}": (drain, {**at, "count": count})}, repeats=1)
    finally:
        remove(directory)
    return {name.partition(" ")[0]: samples for name, samples in found.items()}


# In a process of their own:


def fill(directory: str, count: int) -> Figures:
    material = readings()
    before = status("VmRSS") / 1024
    target = Target(directory, up=False, on_full="block", max_disk="4 GB")
    send_at(target, material, count)
    target.save()
    figures = {"rss": status("VmRSS") / 1024, "rss_before": before, "disk": target.stats().disk_bytes / 1e6}
    target.close(0.0)
    return figures


def look(directory: str, count: int) -> Figures:
    """Open it while the target is away, and look."""
    import sqlite3
    from pathlib import Path

    before = status("VmRSS") / 1024
    began, used = time.perf_counter(), cpu_seconds()
    target = Target(directory, up=False, max_disk="4 GB")
    waiting = target.has_unsent_data()
    pending = target.stats().pending
    seconds, used = time.perf_counter() - began, cpu_seconds() - used
    target.flush(5.0)
    calls = 1000
    called = time.thread_time()
    for _ in range(calls):
        target.stats()
    called = (time.thread_time() - called) / calls * 1e6
    figures = {"seconds": seconds, "rss": status("VmRSS") / 1024, "peak": status("VmHWM") / 1024, "rss_before": before}
    figures |= {"stats": called, "open": used}
    target.close(0.0)
    if not waiting or not count // 2 <= pending <= count:
        raise RuntimeError(f"{pending} of {count} wait")
    began = time.perf_counter()
    database = sqlite3.connect(Path(directory) / "cache.db")
    database.execute("SELECT key FROM Cache ORDER BY key").fetchall()
    database.close()
    return {**figures, "keys": time.perf_counter() - began}


def deliver(directory: str) -> Figures:
    """Open it while the target answers, and see when the first record arrives there."""
    target = Target(directory, up=True, max_disk="4 GB", drain_rate=100)
    began = time.monotonic()
    target.has_unsent_data()
    while not target.first:
        if time.monotonic() - began > 60:
            raise RuntimeError("nothing was delivered")
        target.flush(0.05, max_records=1)
    seconds = target.first - began
    target.close(0.0)
    return {"seconds": seconds}


def bound(directory: str, more: int, disk: int, by: str) -> Figures:
    """Send to a queue that is full: for each that comes, the oldest goes."""
    material = readings()
    target = Target(directory, up=False, retry=3600.0, max_disk="4 GB")
    target.has_unsent_data()
    target.send(material[0])
    waiting = target.stats().pending
    target.save()
    target.close(0.0)
    limit = {"max_records": waiting} if by == "records" else {"max_disk": max(disk, _SMALL)}
    target = Target(directory, up=False, retry=3600.0, **{"max_disk": "4 GB", **limit})
    target.has_unsent_data()
    _send_until_dropped(target, material, more)
    used = cpu_seconds()
    sent, gone = _send_until_dropped(target, material, more)
    used = cpu_seconds() - used
    target.close(0.0)
    return {"cpu": used / sent * 1e6, "dropped": gone / sent}


def _send_until_dropped(target: Target, material: list[dict[str, Any]], more: int) -> tuple[int, int]:
    """Send so many at a time until some are dropped; returns how many were sent, and dropped."""
    before = _dropped(target)
    for turn in range(1, 1000):
        send_at(target, material, more)
        target.save()
        if gone := _dropped(target) - before:
            return turn * more, gone
    raise RuntimeError(f"nothing was dropped: {target.stats()}")


_SMALL = 1 << 18
"""Bytes: there is no smaller max_disk."""


def _dropped(target: Target) -> int:
    (figures,) = target.stats().targets.values()
    return figures.dropped.get("overflow", 0)


def drain(directory: str, count: int) -> Figures:
    """Open it while the target answers, and let it take all."""
    used = cpu_seconds()
    target = Target(directory, up=True, max_disk="4 GB")
    began = time.monotonic()
    report = target.flush(1200)
    seconds, used = time.monotonic() - began, cpu_seconds() - used
    target.close()
    if not report.complete or not target.taken:
        raise RuntimeError(f"{report.pending} of {count} wait still")
    return {"rate": target.taken / seconds, "cpu": used / target.taken * 1e6, "peak": status("VmHWM") / 1024}
