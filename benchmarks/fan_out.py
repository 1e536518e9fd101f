"""What do more targets cost, on disk and in CPU time, relative to one? A pool keeps each record once."""

from __future__ import annotations

from typing import Any

from benchmarks.harness import Bench, Figures, column
from benchmarks.material import Target, cpu_seconds, readings, send_at, written_bytes
from resilient_exporters import ExporterPool

POOLS = (1, 2, 5, 10)
NO_BYTES = 4096
"""Less than a page in all is nothing."""


def run(bench: Bench) -> None:
    count = bench.size(100_000, 2_000)
    cases: dict[str, tuple[Any, dict[str, Any]]] = {}
    for targets in POOLS:
        cases[f"outage, {targets}"] = (outage, {"targets": targets, "away": targets, "count": count})
        cases[f"healthy, {targets}"] = (healthy, {"targets": targets, "count": count})
        if targets > 1:
            cases[f"one away, {targets}"] = (outage, {"targets": targets, "away": 1, "count": count})
    found = bench.measure(cases, repeats=3)
    for targets in POOLS:
        name = f"{targets} target{'s' if targets > 1 else ''}"
        for case, text in (("outage", "all away and back"), ("one away", "one of them away and back")):
            ours, one = found.get(f"{case}, {targets}"), found["outage, 1"]
            if ours is None:
                continue
            beside = ("one target", column(one, "bytes"))
            bench.row(f"{name}, {text}: disk", column(ours, "bytes"), "B/record", beside=beside, most=1.1, of="ratio")
            for key, what in (("accept", "CPU to accept"), ("drain", "CPU to deliver")):
                bench.row(f"{name}, {text}: {what}", column(ours, key), "s/M", beside=("one target", column(one, key)))
        each = [value / targets for value in column(found[f"outage, {targets}"], "drain")]
        beside = ("one target", column(found["outage, 1"], "drain"))
        bench.row(f"{name}, all away and back: CPU to deliver, for each of them", each, "s/M", beside=beside)
        ours, one = found[f"healthy, {targets}"], found["healthy, 1"]
        bench.row(f"{name}, healthy: disk", column(ours, "bytes"), "B/record", most=0)
        bench.row(f"{name}, healthy: CPU", column(ours, "cpu"), "s/M", beside=("one target", column(one, "cpu")))
    bench.note("to deliver: each target decodes for itself, so that none waits for another and none sees its changes")


# In a process of their own:


def outage(directory: str, targets: int, away: int, count: int) -> Figures:
    """Fill the queue while targets are away, then let all of them take it."""
    material = readings()
    members = [Target(directory, up=number >= away) for number in range(targets)]
    pool = ExporterPool(members, directory=directory, name="fan", on_full="block", max_disk="1 GB", retry=3600.0)
    pool.send("the first one opens the queue")
    pool.save()
    disk, used = written_bytes(), cpu_seconds()
    send_at(pool, material, count)
    pool.save()
    middle = cpu_seconds()
    for member in members:
        member.up = True
    report = pool.flush(600)
    pool.close()
    end, after = cpu_seconds(), written_bytes()
    _check(members, count, complete=report.complete)
    return {
        "bytes": (after - disk) / count, "accept": (middle - used) / count * 1e6, "drain": (end - middle) / count * 1e6,
    }  # fmt: skip


def healthy(directory: str, targets: int, count: int) -> Figures:
    """Send to targets that take all of it, no faster than they do."""
    material = readings()
    members = [Target(directory) for _ in range(targets)]
    pool = ExporterPool(members, directory=directory, name="fan", loss_window=10, max_memory="64 MB")
    pool.send("the first one opens the queue")
    pool.flush(60)
    disk, used = written_bytes(), cpu_seconds()
    send_at(pool, material, count)
    report = pool.flush(600)
    pool.close()
    after = written_bytes() - disk
    _check(members, count, complete=report.complete)
    return {"bytes": 0 if after < NO_BYTES else after / count, "cpu": (cpu_seconds() - used) / count * 1e6}


def _check(members: list[Target], count: int, *, complete: bool) -> None:
    taken = [member.taken for member in members]
    if not complete or any(each != count + 1 for each in taken):
        raise RuntimeError(f"{taken} of {count + 1} each were delivered")
