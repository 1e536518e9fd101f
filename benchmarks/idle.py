"""What does it cost to have nothing to do: threads, wake-ups, CPU?"""

from __future__ import annotations

import logging.handlers
import os
import queue
import threading
import time
from pathlib import Path

from benchmarks.harness import Bench, Figures, column
from benchmarks.material import Target, cpu_seconds, readings

BACKLOG = 10_000


def run(bench: Bench) -> None:
    seconds = bench.size(15, 2)
    found = bench.measure(
        {
            "made": (made, {"seconds": 1}),
            "healthy": (healthy, {"seconds": seconds}),
            "away": (away, {"seconds": seconds, "after": bench.size(30, 2)}),
            "listener": (listener, {"seconds": seconds}),
        },
        repeats=2,
        together=True,
    )
    peer = found["listener"]
    bench.row("constructed, nothing sent: threads", column(found["made"], "threads"), most=0)
    for case, text in (("healthy", "healthy, nothing to send"), ("away", f"target away, {BACKLOG} wait")):
        ours = found[case]
        bench.row(f"{text}: threads", column(ours, "threads"), beside=("QueueListener", column(peer, "threads")))
        wakes = column(ours, "wakes")
        beside = ("QueueListener", column(peer, "wakes"))
        bench.row(f"{text}: wake-ups", wakes, "/s", beside=beside, most=0 if case == "healthy" else None)
        bench.row(f"{text}: CPU", column(ours, "cpu"), "%", beside=("QueueListener", column(peer, "cpu")), most=0.1)
    bench.note("wake-ups: voluntary context switches of all threads but the main one; away: after half a minute,")
    bench.note("probes are as the default RetryPolicy has them, and every 2 s the state of the links is looked at")


# In a process of their own:


def made(directory: str, seconds: float) -> Figures:
    target = Target(directory)
    return {**_rest(seconds), "name": len(target.name)}


def healthy(directory: str, seconds: float) -> Figures:
    target = Target(directory)
    for data in readings(1_000):
        target.send(data)
    target.flush(10)
    time.sleep(2)  # what follows a delivery is over
    figures = _rest(seconds)
    target.close()
    return figures


def away(directory: str, seconds: float, after: float) -> Figures:
    target = Target(directory, up=False)
    for data in readings(BACKLOG):
        target.send(data)
    time.sleep(after)
    figures = _rest(seconds)
    target.close(0.0)
    return figures


def listener(seconds: float) -> Figures:
    waiting: queue.Queue[logging.LogRecord] = queue.Queue()
    running = logging.handlers.QueueListener(waiting, logging.NullHandler())
    running.start()
    return _rest(seconds)


def _rest(seconds: float) -> Figures:
    used, woken, began = cpu_seconds(), _wakes(), time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    after = _wakes()
    wakes = sum(after[thread] - woken.get(thread, 0) for thread in after) / passed
    return {"threads": threading.active_count() - 1, "wakes": wakes, "cpu": (cpu_seconds() - used) / passed * 100}


def _wakes() -> dict[str, int]:
    found = {}
    for task in Path("/proc/self/task").iterdir():
        if task.name != str(os.getpid()):
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    found[task.name] = int(line.split()[1])
    return found
