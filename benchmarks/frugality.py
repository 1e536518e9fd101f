"""What does it take of a small machine: bytes, syncs, CPU, memory, threads, switches, and wear in a year?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Figures, column, number
from benchmarks.material import Target, cpu_seconds, readings, send_at, status, switches, written_bytes

WINDOWS = (1, 10, 60)
YEAR = 365.25 * 24 * 3600


def run(bench: Bench) -> None:
    burst, seconds = bench.size(200_000, 5_000), bench.size(10, 2)
    cases: dict[str, tuple[Any, dict[str, Any]]] = {
        "healthy": (stretch, {"count": 1000 * seconds, "rate": 1000, "up": True}),
        "patient": (stretch, {"count": 1000 * seconds, "rate": 1000, "up": True, "linger": 0.05}),
        "outage": (stretch, {"count": 1000 * seconds, "rate": 1000, "up": False}),
        "burst": (stretch, {"count": burst, "rate": 0, "up": False}),
        "loop": (loop, {"count": 1000 * seconds, "rate": 1000}),
        "burst of nothing": (loop, {"count": burst, "rate": 0}),
    }
    paced = {name: case for name, case in cases.items() if case[1]["rate"]}
    found = bench.measure(paced, repeats=3, together=True)
    found |= bench.measure({name: case for name, case in cases.items() if name not in paced}, repeats=3)
    for case, text, peer in (
        ("healthy", "healthy link, 1,000/s", "loop"),
        ("patient", "healthy link, 1,000/s, linger=0.05", "loop"),
        ("outage", "outage and drain, 1,000/s", "loop"),
        ("burst", "outage and drain, burst", "burst of nothing"),
    ):
        _rows(bench, text, found[case], found[peer], healthy=case in ("healthy", "patient"))
    _syncs(bench, {case: cases[case][1] for case in ("healthy", "outage", "burst")})
    _wear(bench, bench.size(45, 4))
    bench.note("the loop alone: the same sleeps and a function that does nothing. bytes: write_bytes of /proc/self/io;")
    bench.note("switches: ru_nvcsw and ru_nivcsw of all threads; threads: our own, after the last record was sent")


def _rows(bench: Bench, text: str, ours: list[Figures], peer: list[Figures], *, healthy: bool) -> None:
    for key, what, unit, goal in (
        ("bytes", "to disk", "B/record", 0 if healthy else 100),
        ("cpu", "CPU", "s/M", None),
        ("given", "switches that wait", "/record", None),
        ("taken", "switches that were forced", "/record", None),
        ("rss", "RSS at most", "MB", None),
        ("threads", "threads", "", None),
    ):
        beside = ("the loop alone", column(peer, key)) if key in peer[0] else None
        bench.row(f"{text}: {what}", column(ours, key), unit, beside=beside, most=goal)


def _syncs(bench: Bench, cases: dict[str, dict[str, Any]]) -> None:
    """Count fsync and fdatasync by strace, which changes no other figure here."""
    if shutil.which("strace") is None:
        bench.note("STRACE IS MISSING: fsyncs were not counted (apt-get install strace)")
        return
    found = bench.measure({f"{case}, syncs": (traced, given) for case, given in cases.items()}, repeats=1)
    for case, samples in found.items():
        healthy = case.startswith("healthy")
        name, goal = case.partition(",")[0], 0 if healthy else None
        bench.row(f"{name}: fsyncs of it all", column(samples, "syncs"), most=goal)
        if not healthy:
            bench.row("  records for each", column(samples, "records"))


def _wear(bench: Bench, seconds: int) -> None:
    """One record a second, away for the whole stretch: all windows at once, each in a process of its own."""
    cases: dict[str, tuple[Any, dict[str, Any]]] = {
        str(window): (lone, {"seconds": seconds, "window": window}) for window in WINDOWS
    }
    found = {window: samples[0] for window, samples in bench.measure(cases, repeats=1, together=True).items()}
    for window, sample in found.items():
        name = f"1 record/s, target away, loss_window={window}"
        bench.row(f"{name}: to disk", [sample["bytes"]], "B/record")
        bench.row("  of that in rows, by the wear meter", [sample["rows"]], "B/record")
        for share, text in ((1.0, "away all year"), (0.01, "away 1 % of it")):
            year = sample["bytes"] * YEAR * share / 1e9
            bench.row(f"  wear in a year, {text}", [year], "GB")
    first = found[str(WINDOWS[0])]["bytes"]
    bench.note(
        f"wear: {number(first)} B/record x 1 record/s x {YEAR:,.0f} s = {number(first * YEAR / 1e9)} GB; "
        "a card of 32 GB that bears 1,000 rounds takes 32,000 GB"
    )


# In a process of their own:


def stretch(directory: str, count: int, rate: int, up: bool, linger: float = 0.005) -> Figures:
    """Send, and where the target was away let it take all of it then."""
    material = readings()
    target = Target(directory, up=up, on_full="block", max_disk="1 GB", retry=3600.0, linger=linger)
    target.send("the first one opens the queue")
    target.flush(10)
    disk, used, before = written_bytes(), cpu_seconds(), switches()
    send_at(target, material, count, rate)
    threads = threading.active_count() - 1
    if not up:
        target.save()
        target.up = True
    report = target.flush(600)
    target.close()
    after, cpu, disk = switches(), cpu_seconds() - used, written_bytes() - disk
    if not report.complete or target.taken != count + 1:
        raise RuntimeError(f"{target.taken} of {count + 1} were delivered")
    return {
        "bytes": disk / count, "cpu": cpu / count * 1e6, "threads": threads, "rss": status("VmHWM") / 1024,
        "given": (after[0] - before[0]) / count, "taken": (after[1] - before[1]) / count,
    }  # fmt: skip


class Nothing:
    """Takes a record and does nothing."""

    def send(self, data: object) -> None: ...


def loop(count: int, rate: int) -> Figures:
    """The loop that sends, without us."""
    material = readings()
    used, before = cpu_seconds(), switches()
    send_at(Nothing(), material, count, rate)
    after, cpu = switches(), cpu_seconds() - used
    return {
        "cpu": cpu / count * 1e6, "rss": status("VmHWM") / 1024,
        "given": (after[0] - before[0]) / count, "taken": (after[1] - before[1]) / count,
    }  # fmt: skip


def traced(directory: str, count: int, rate: int, up: bool) -> Figures:
    """The same under strace. What opening and closing the queue syncs is taken off by a run with a single record."""
    ours = _count(directory, count, rate, up=up)
    alone = _count(tempfile.mkdtemp(dir=directory), 1, 0, up=up)
    syncs = ours - alone if up else ours
    return {"syncs": syncs, "records": count / max(1, syncs)}


def _count(directory: str, count: int, rate: int, *, up: bool) -> int:
    given = json.dumps({"directory": directory, "count": count, "rate": rate, "up": up})
    with tempfile.NamedTemporaryFile("r", prefix="strace") as log:
        command = ["strace", "-f", "--seccomp-bpf", "-e", "trace=fsync,fdatasync", "-o", log.name]
        child = [sys.executable, "-m", "benchmarks.child", "benchmarks.frugality:stretch", given]
        subprocess.run([*command, *child], check=True, stdout=subprocess.DEVNULL, env=os.environ)
        return sum("sync(" in line for line in Path(log.name).read_text().splitlines())


def lone(directory: str, seconds: int, window: int) -> Figures:
    """One record a second while the target is away."""
    material = readings()
    target = Target(directory, up=False, loss_window=window)
    target.send(material[0])
    target.save()
    disk, rows = written_bytes(), target.stats().written_bytes
    send_at(target, material, seconds, 1)
    target.save()
    disk, rows = written_bytes() - disk, target.stats().written_bytes - rows
    target.close(0.0)
    return {"bytes": disk / seconds, "rows": rows / seconds}
