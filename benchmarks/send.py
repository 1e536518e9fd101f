"""How long does ``send`` keep the caller, in quiet times and in bad ones?"""

from __future__ import annotations

import importlib.util
import queue
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

from benchmarks.call_time import time_calls
from benchmarks.harness import Bench, Figures, column
from benchmarks.material import Target, readings
from benchmarks.slow_disk import SYNC_SECONDS, slow_disk, slow_down, syncs

#: Whether someone takes the records at the other end, seconds from one to the next, threads that send.
_CALM = {
    "idle, 1 per 10 ms": {"taken": True, "pause": 0.01, "count": 150},
    "healthy, 1 per ms": {"taken": True, "pause": 0.001, "count": 2_500},
    "healthy, 1 per ms, 4 threads": {"taken": True, "pause": 0.001, "count": 4_000, "threads": 4},
}
_BUSY = {
    "healthy, burst": {"taken": True, "count": 50_000},
    "healthy, burst, 4 threads": {"taken": True, "count": 50_000, "threads": 4},
    "target away": {"taken": False, "count": 50_000},
}
_PLAIN = {**_CALM, **_BUSY}
"""States that a queue without a disk knows too."""
_SATURATED = {"taken": False, "count": 200_000, "max_memory": "4 MB"}
_FULL = {"taken": False, "count": 100_000, "max_memory": "4 MB", "max_disk": "4 MB", "fill": True}
_KINDS = ("12 fields", "str", "bytes", "nested", "5 numpy scalars of 12")


def run(bench: Bench) -> None:
    with slow_disk() as (library, why_not):
        if library is None:
            bench.note(f"NOT MEASURED: slow disk: {why_not}")
        busy: dict[str, dict[str, Any]] = {
            **_BUSY,
            "saturated: ring full, disk busy": _SATURATED,
            "queue full, oldest dropped": _FULL,
        }
        calm: dict[str, dict[str, Any]] = {**_CALM}
        if library is not None:
            given = {"library": str(library), "taken": False}
            busy["slow disk, ring full"] = {**given, "count": 100_000, "max_memory": "4 MB", "fill": True}
            calm["slow disk, 1 per ms"] = {**given, "count": 2_500, "pause": 0.001}
        for states, repeats in ((calm, 3), (busy, 5)):
            _states(bench, states, repeats)
    _kinds(bench)
    bench.note("the same loop and clock for all; what an empty measurement shows is taken off (row `clock`);")
    bench.note("garbage collection on for all, with what was there before hidden from it")
    bench.note("Queue.put copies nothing and encodes nothing; healthy: a thread takes the records from it")
    bench.note(
        "with pauses caches are cold and the other end is asleep: even Queue.put takes long, the goal is the ratio"
    )
    bench.note(f"slow disk: the target is away and each sync of the queue takes {SYNC_SECONDS} s")


def _states(bench: Bench, states: dict[str, dict[str, Any]], repeats: int) -> None:
    cases: dict[str, tuple[Callable[..., Figures], dict[str, Any]]] = {}
    for state, options in states.items():
        given = {**options, "count": bench.size(options["count"], max(50, options["count"] // 40))}
        cases[f"send, {state}"] = (exporter, given)
        if state in _PLAIN:
            cases[f"Queue.put, {state}"] = (queue_put, given)
    found = bench.measure(cases, repeats)
    for state, options in states.items():
        ours = found[f"send, {state}"]
        # What only a queue on disk can suffer stands beside a plain queue that nobody empties, at the same speed.
        put = found[
            f"Queue.put, {state if state in _PLAIN else 'healthy, 1 per ms' if 'pause' in options else 'target away'}"
        ]
        if "pause" not in options:
            bench.row(f"{state}: p50", column(ours, "p50"), "us", most=2.0)
        bench.row(
            f"{state}: p50", column(ours, "p50"), "us", beside=("Queue.put", column(put, "p50")), most=2.5, of="ratio"
        )
        for name in ("p99", "p99.9", "max"):
            if name == "p99.9" and options["count"] < 1_000:
                continue  # too few to tell it from the maximum
            goal = 100.0 if name == "p99.9" else None
            bench.row(f"{state}: {name}", column(ours, name), "us", beside=("Queue.put", column(put, name)), most=goal)
        if "library" in options:
            bench.row(f"{state}: slow syncs meanwhile", column(ours, "syncs"))
    bench.row("clock: an empty measurement", column(found[next(iter(cases))], "clock"), "us")


def _kinds(bench: Bench) -> None:
    kinds = [kind for kind in _KINDS if "numpy" not in kind or importlib.util.find_spec("numpy")]
    if len(kinds) < len(_KINDS):
        bench.note("NOT MEASURED: numpy scalars: numpy is not installed")
    given = {"count": bench.size(10_000, 500), "kinds": kinds}
    found = bench.measure({"send, kinds": (exporter_kinds, given), "Queue.put, kinds": (queue_kinds, given)})
    for kind in kinds:
        ours, put = (column(found[f"{name}, kinds"], kind) for name in ("send", "Queue.put"))
        bench.row(f"{kind}: p50", ours, "us", beside=("Queue.put", put), most=2.0)


# In a process of their own:


def exporter(
    directory: str, count: int, taken: bool, pause: float = 0.0, threads: int = 1, fill: bool = False,
    library: str | None = None, **options: Any,
) -> Figures:  # fmt: skip
    if library is not None:
        slow_down(library)
    material = readings()
    target = Target(directory, up=taken, **options)
    target.send(material[0])
    if taken:
        target.flush(5.0)
    while fill and not target.stats().targets["target"].dropped:
        for data in material:
            target.send(data)
    before = syncs() if library is not None else 0
    figures = time_calls(target.send, material, count, pause=pause, threads=threads)
    if library is not None:
        figures["syncs"] = syncs() - before
        if not target.save() or not syncs():
            raise RuntimeError("the slow disk was not asked for anything")
    target.close(0.0)
    return figures


def queue_put(count: int, taken: bool, pause: float = 0.0, threads: int = 1) -> Figures:
    waiting: queue.Queue[Any] = queue.Queue()
    if taken:
        consume(waiting.get)
    return time_calls(waiting.put, readings(), count, pause=pause, threads=threads)


def exporter_kinds(directory: str, count: int, kinds: list[str]) -> Figures:
    with closing(Target(directory, up=False)) as target:
        return {kind: time_calls(target.send, records_of(kind), count)["p50"] for kind in kinds}


def queue_kinds(count: int, kinds: list[str]) -> Figures:
    waiting: queue.Queue[Any] = queue.Queue()
    return {kind: time_calls(waiting.put, records_of(kind), count)["p50"] for kind in kinds}


def consume(get: Callable[[], Any]) -> None:
    """Take, in a thread, whatever ``get`` gives."""

    def work() -> None:
        while True:
            get()

    threading.Thread(target=work, daemon=True).start()


def records_of(kind: str) -> list[Any]:
    """The readings, as one of the kinds of data that programs send."""
    import msgspec

    made = readings(1_000)
    if kind == "str":
        return [msgspec.json.encode(one).decode() for one in made]
    if kind == "bytes":
        return [msgspec.json.encode(one) for one in made]
    if kind == "nested":
        return [_nested(one) for one in made]
    if "numpy" in kind:
        import numpy as np

        return [
            {name: np.float64(value) if name in _MEASURED else value for name, value in one.items()} for one in made
        ]
    return list(made)


_MEASURED = ("temperature", "humidity", "pressure", "battery", "current")


def _nested(one: dict[str, Any]) -> dict[str, Any]:
    """The same fields, three levels deep."""
    about = {name: value for name, value in one.items() if name not in {*_MEASURED, "ts", "seq"}}
    values = [{"name": name, "value": one[name]} for name in _MEASURED]
    return {"ts": one["ts"], "seq": one["seq"], "about": about, "values": values}
