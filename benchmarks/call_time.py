"""How long a call keeps its caller: one loop and one clock for everything that is compared."""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.harness import Figures

#: Calls before the first that counts: connections are open then, caches warm, threads started.
WARM = 200


def time_calls(
    call: Callable[[Any], Any], records: Sequence[Any], count: int, *, pause: float = 0.0, threads: int = 1
) -> Figures:
    """Call with one record after the other and measure each call by itself.

    What is there before the first call is hidden from the garbage collector, which then runs as it always does: each
    contender pays for the garbage that its own calls make.

    Args:
        call: takes one record.
        records: taken in turns, the same for all that are compared.
        count: calls in all.
        pause: seconds from one call to the next, kept on the average; 0 calls without one.
        threads: share the calls, and begin together.

    Returns:
        "p50", "p99", "p99.9" and "max" in microseconds, less "clock": what an empty measurement shows.
    """
    for at in range(WARM):
        call(records[at % len(records)])
    own = clock_cost()
    took = [[0] * (count // threads) for _ in range(threads)]
    gc.collect()
    gc.freeze()
    if threads == 1:
        _loop(call, records, took[0], pause)
    else:
        together = threading.Barrier(threads)

        def work(mine: list[int]) -> None:
            together.wait()
            _loop(call, records, mine, pause)

        running = [threading.Thread(target=work, args=(mine,)) for mine in took]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    return _percentiles([one for mine in took for one in mine], own)


def clock_cost() -> int:
    """Nanoseconds that the clock shows if nothing is between its two readings."""
    clock = time.perf_counter_ns
    empty = []
    for _ in range(1000):
        began = clock()
        empty.append(clock() - began)
    return int(statistics.median(empty))


def _loop(call: Callable[[Any], Any], records: Sequence[Any], took: list[int], pause: float) -> None:
    clock, many, step = time.perf_counter_ns, len(records), int(pause * 1e9)
    due = clock()
    for at in range(len(took)):
        data = records[at % many]
        began = clock()
        call(data)
        took[at] = clock() - began
        if step:
            due += step
            time.sleep(max(0, due - clock()) / 1e9)


def _percentiles(took: list[int], own: int) -> Figures:
    took.sort()
    count = len(took)
    found = {
        "p50": took[count // 2],
        "p99": took[count * 99 // 100],
        "p99.9": took[count * 999 // 1000],
        "max": took[-1],
    }
    return {**{name: max(1, value - own) / 1000 for name, value in found.items()}, "clock": own / 1000}
