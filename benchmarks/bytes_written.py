"""How many bytes does the disk take for a record, by the kernel's count?"""

from __future__ import annotations

from typing import Any

from benchmarks.harness import Bench, Figures, column
from benchmarks.material import Target, readings, send_at, written_bytes


def run(bench: Bench) -> None:
    count = bench.size(200_000, 20_000)
    seconds = bench.size(20, 2)
    found = bench.measure(
        {
            "outage": (outage, {"count": count}),
            "outage, no zstandard": (outage, {"count": count, "without": ["zstandard"]}),
            "healthy, burst": (healthy, {"count": count, "rate": 0}),
        }
    )
    cases: dict[str, tuple[Any, dict[str, Any]]] = {
        "healthy, 10000/s": (healthy, {"count": 10_000 * seconds, "rate": 10_000}),
        "healthy, 100/s": (healthy, {"count": 100 * seconds, "rate": 100}),
    }
    rates = (1, 100, 2_000)
    cases |= {f"outage, {rate}/s": (outage, {"count": rate * seconds, "rate": rate}) for rate in rates}
    found |= bench.measure(cases, repeats=3, together=True)
    start = column(found["outage"], "start")
    payload = ("the payload", [200.0])
    for case, text in (("outage", "outage and drain, burst"), ("outage, no zstandard", "the same without zstandard")):
        bench.row(text, column(found[case], "bytes"), "B/record", beside=payload, most=100)
        bench.row("  of that for the drain", column(found[case], "drain"), "B/record")
        bench.row("  rows by the wear meter", column(found[case], "rows"), "B/record")
    for rate in rates:
        ours = found[f"outage, {rate}/s"]
        bench.row(f"outage and drain, {rate}/s", column(ours, "bytes"), "B/record", beside=payload)
        bench.row("  per second of outage", [rate * value for value in column(ours, "bytes")], "B/s")
    for case, goal in (("healthy, 100/s", 0), ("healthy, 10000/s", 0), ("healthy, burst", None)):
        bench.row(case, column(found[case], "bytes"), "B/record", beside=payload, most=goal)
    bench.row("opening a queue for the first time", start, "B")
    bench.note("write_bytes of /proc/self/io; outage: from making the queue to after close; healthy: once it is open")
    bench.note(
        "a healthy burst is faster than its target: what is more than half of the ring is saved, as it should be"
    )


# In a process of their own:


def outage(directory: str, count: int, rate: int = 0) -> Figures:
    material = readings()
    before = written_bytes()
    target = Target(directory, up=False, on_full="block", max_disk="1 GB")
    target.send(material[0])
    target.save()
    start = written_bytes() - before
    send_at(target, material, count - 1, rate)
    target.save()
    middle = written_bytes()
    target.up = True
    report = target.flush(600)
    rows = target.stats().written_bytes
    target.close()
    end = written_bytes()
    if not report.complete or target.taken != count:
        raise RuntimeError(f"{target.taken} of {count} were delivered")
    return {"bytes": (end - before) / count, "drain": (end - middle) / count, "rows": rows / count, "start": start}


def healthy(directory: str, count: int, rate: int) -> Figures:
    material = readings()
    target = Target(directory)
    target.send("the first one opens the queue")
    target.flush(60)
    before = written_bytes()
    send_at(target, material, count, rate)
    report = target.flush(60)
    target.close()
    if not report.complete or target.taken != count + 1:
        raise RuntimeError(f"{target.taken} of {count + 1} were delivered")
    return {"bytes": (written_bytes() - before) / count}
