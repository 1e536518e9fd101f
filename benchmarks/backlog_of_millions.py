"""What does a backlog of ten million cost, beside one of a hundred thousand?"""

from __future__ import annotations

from benchmarks import backlog
from benchmarks.harness import Bench

COUNTS = (100_000, 10_000_000)


def run(bench: Bench) -> None:
    backlog.measure(bench, (2_000, 20_000) if bench.smoke else COUNTS)
