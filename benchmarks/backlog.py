"""What does a large backlog cost: memory, and time until the program that finds it goes on?"""

from __future__ import annotations

import time

from benchmarks.harness import Bench, Figures, column, fresh_directory, number, remove, run_in_process
from benchmarks.material import Target, readings, status


def run(bench: Bench) -> None:
    for count in (20_000,) if bench.smoke else (200_000, 1_000_000, 10_000_000):
        directory = fresh_directory()
        try:
            filled = run_in_process(fill, directory=str(directory), count=count)
            given = {"directory": str(directory), "count": count}
            found = bench.measure(
                {f"look {count}": (look, given), f"deliver {count}": (deliver, {"directory": str(directory)})},
                repeats=5,
            )
        finally:
            remove(directory)
        looked, delivered = found[f"look {count}"], found[f"deliver {count}"]
        name, goal = f"{number(count)} waiting", 40 if count <= 200_000 else 80
        bare = ("imports only", column(looked, "rss_before"))
        bench.row(f"{name}: RSS after opening", column(looked, "rss"), "MB", beside=bare, most=goal)
        bench.row(f"{name}: RSS at most", column(looked, "peak"), "MB", beside=bare, most=goal)
        bench.row(
            f"{name}: RSS of the program that sent them",
            [filled["rss"]],
            "MB",
            beside=("imports only", [filled["rss_before"]]),
        )
        read = ("reading the keys by sqlite3", column(looked, "keys"))
        bench.row(f"{name}: until stats()", column(looked, "seconds"), "s", beside=read, most=1)
        bench.row(f"{name}: until the first is delivered", column(delivered, "seconds"), "s", beside=read, most=1)
        bench.row(f"{name}: disk", [filled["disk"]], "MB")


# In a process of their own:


def fill(directory: str, count: int) -> Figures:
    material = readings()
    before = status("VmRSS") / 1024
    target = Target(directory, up=False, on_full="block", max_disk="4 GB")
    send = target.send
    for at in range(count):
        send(material[at % len(material)])
    target.save()
    figures = {"rss": status("VmRSS") / 1024, "rss_before": before, "disk": target.stats().disk_bytes / 1e6}
    target.close(0.0)
    return figures


def look(directory: str, count: int) -> Figures:
    """Open it while the target is away, and look."""
    import sqlite3
    from pathlib import Path

    before = status("VmRSS") / 1024
    began = time.perf_counter()
    target = Target(directory, up=False, max_disk="4 GB")
    waiting = target.has_unsent_data()
    pending = target.stats().pending
    seconds = time.perf_counter() - began
    target.flush(5.0)
    figures = {"seconds": seconds, "rss": status("VmRSS") / 1024, "peak": status("VmHWM") / 1024, "rss_before": before}
    target.close(0.0)
    if not waiting or not 0.99 * count <= pending <= count:
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
