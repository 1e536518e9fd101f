"""Is it the same on other processors, under qemu: does a kill lose nothing, and are the counts those of this machine?

``BENCH_ROOTS`` names root file systems, ``/srv/arm64:/srv/armhf``, in which ``chroot`` runs Python (qemu's binfmt does
the rest) and in which this repository is mounted at ``/repo``, its dependencies at ``/deps``:
docs/performance/small-machines.md says how to make them. No times: an emulator's say nothing.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from pathlib import Path

from benchmarks.harness import Bench, Figures, column, number
from benchmarks.small_machine import tell
from resilient_exporters.delivery.ring import ring_path

_COUNTS = {
    "disk": ("the queue on disk", "B/record"),
    "rows": ("written, by the wear meter", "B/record"),
    "handed": ("handed to write()", "B/record"),
    "calls": ("write() calls", "/1,000 records"),
}


def run(bench: Bench) -> None:
    roots = [Path(root) for root in os.environ.get("BENCH_ROOTS", "").split(":") if root]
    if not roots:
        bench.note("BENCH_ROOTS names no root file systems: no other processor was emulated")
    for root in roots:
        _beside(bench, root)


def _beside(bench: Bench, root: Path) -> None:
    count = bench.size(50_000, 500)
    theirs, ours = [], []
    for _ in range(1 if bench.smoke else 3):
        theirs.append(_outage(root, count))
        ours.append(_outage(None, count))
    title = f"{root.name}, {theirs[0]['bits']:.0f} bits: lost of {number(count)} by kill -9"
    bench.row(title, column(theirs, "lost"), most=0)
    for key, (text, unit) in _COUNTS.items():
        bench.row(f"  {text}", column(theirs, key), unit, beside=(platform.machine(), column(ours, key)))


def _outage(root: Path | None, count: int) -> Figures:
    """Sent, killed, delivered by the next start; without zstandard, which 32-bit ARM has no wheel of."""
    directory = f"/tmp/resilient-exporters-bench-{os.getpid()}-{time.monotonic_ns()}"  # it is made 0700 by the queue
    within = [] if root is None else ["chroot", str(root), "env", "-i", "PATH=/usr/bin:/bin", *_ENVIRONMENT, *_INSIDE]
    try:
        first = tell("sender", directory, count, within=within, without=["zstandard"])
        second = tell("deliverer", directory, count, within=within, without=["zstandard"])
    finally:
        shutil.rmtree(f"{root or ''}{directory}", ignore_errors=True)
        ring = ring_path(Path(directory))
        if ring is not None:
            ring.unlink(missing_ok=True)
    return {**first, **second}


_ENVIRONMENT = ("PYTHONPATH=/repo:/deps", "PYTHONDONTWRITEBYTECODE=1")
_INSIDE = ("sh", "-c", 'cd /repo && exec "$@"', "sh")
