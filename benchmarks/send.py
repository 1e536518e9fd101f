"""How long does ``send`` keep the caller, in quiet times and in bad ones?"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import Bench, Figures, column
from benchmarks.material import Target, readings

# Each mode: whether someone takes the records at the other end, and the pause between two of them.
MODES = {"healthy, 1 per ms": (True, 0.001), "healthy, burst": (True, 0.0), "target away": (False, 0.0)}
SATURATED = "saturated: ring full, disk busy"


def run(bench: Bench) -> None:
    for mode, (taken, pause) in MODES.items():
        count = bench.size(3_000 if pause else 50_000, 500)
        given = {"count": count, "taken": taken, "pause": pause}
        found = bench.measure(
            {
                f"send, {mode}": (exporter, given),
                f"Queue.put, {mode}": (queue_put, given),
                f"SimpleQueue.put, {mode}": (simple_put, given),
                f"QueueHandler, {mode}": (handler, given),
            },
            repeats=7,
        )
        _rows(bench, mode, found)
    count = bench.size(400_000, 5_000)
    found = bench.measure(
        {
            f"send, {SATURATED}": (exporter, {"count": count, "taken": False, "pause": 0.0, "max_memory": "4 MB"}),
            f"Queue.put, {SATURATED}": (queue_put, {"count": count, "taken": False, "pause": 0.0}),
        }
    )
    _rows(bench, SATURATED, found)


def _rows(bench: Bench, mode: str, found: dict[str, list[Figures]]) -> None:
    ours, put = found[f"send, {mode}"], found[f"Queue.put, {mode}"]
    bench.row(f"{mode}: p50", column(ours, "p50"), "us", beside=("Queue.put", column(put, "p50")), most=2.5, of="ratio")
    for name in ("p99", "p99.9", "max"):
        bench.row(f"{mode}: {name}", column(ours, name), "us", beside=("Queue.put", column(put, name)))
    for peer in ("SimpleQueue.put", "QueueHandler"):
        if samples := found.get(f"{peer}, {mode}"):
            bench.row(f"{mode}: p50", column(ours, "p50"), "us", beside=(peer, column(samples, "p50")))
            bench.row(f"{mode}: p99.9", column(ours, "p99.9"), "us", beside=(peer, column(samples, "p99.9")))


# In a process of their own:


def exporter(directory: str, count: int, taken: bool, pause: float, **options: Any) -> Figures:
    target = Target(directory, up=taken, **options)
    target.send(readings(1)[0])
    target.flush(5.0)
    figures = _time(target.send, count, pause)
    target.close(0.0)
    return figures


def queue_put(count: int, taken: bool, pause: float) -> Figures:
    waiting: queue.Queue[Any] = queue.Queue()
    if taken:
        _consume(waiting.get)
    return _time(waiting.put, count, pause)


def simple_put(count: int, taken: bool, pause: float) -> Figures:
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    if taken:
        _consume(waiting.get)
    return _time(waiting.put, count, pause)


def handler(count: int, taken: bool, pause: float) -> Figures:
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    logging.disable(logging.NOTSET)
    log = logging.getLogger("bench")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(logging.handlers.QueueHandler(waiting))
    if taken:
        _consume(waiting.get)
    return _time(lambda data: log.info("%s", data), count, pause)


def _consume(get: Callable[[], Any]) -> None:
    def work() -> None:
        while True:
            get()

    threading.Thread(target=work, daemon=True).start()


def _time(call: Callable[[Any], Any], count: int, pause: float) -> Figures:
    material = readings()
    clock = time.perf_counter_ns
    took = []
    empty = []
    for _ in range(1000):
        began = clock()
        empty.append(clock() - began)
    for at in range(count):
        data = material[at % len(material)]
        began = clock()
        call(data)
        took.append(clock() - began)
        if pause:
            time.sleep(pause)
    own = sorted(empty)[len(empty) // 2]
    took.sort()
    found = {
        "p50": took[count // 2],
        "p99": took[count * 99 // 100],
        "p99.9": took[count * 999 // 1000],
        "max": took[-1],
    }
    return {name: max(1, value - own) / 1000 for name, value in found.items()}
