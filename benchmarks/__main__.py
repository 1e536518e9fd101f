"""Run the benchmarks, all or those that are named."""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback

from benchmarks.harness import Bench

NAMES = (
    "send", "accept", "through_disk", "bytes_written", "backlog", "idle", "closing", "importing", "outage", "pipeline",
)  # fmt: skip
GROUPS = {"servers": ("drain_servers",)}
"""Benchmarks that need more than Python, run only when they or their group are named."""

_ALL = (*NAMES, *(name for group, names in GROUPS.items() for name in (group, *names)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast, how small, how quiet.")
    which = f"of: {', '.join(_ALL)}; default: the first {len(NAMES)}, the others need servers"
    parser.add_argument("names", nargs="*", metavar="name", help=which)
    parser.add_argument("--smoke", action="store_true", help="few records, one repeat: only whether they run")
    given = parser.parse_args()
    if strange := sorted(set(given.names) - set(_ALL)):
        parser.error(f"no benchmark {', '.join(strange)}; there are: {', '.join(_ALL)}")
    names = [each for name in given.names or NAMES for each in GROUPS.get(name, (name,))]
    failed = False
    for name in names:
        module = importlib.import_module(f"benchmarks.{name}")
        bench = Bench(name, smoke=given.smoke)
        try:
            module.run(bench)
        except Exception:  # noqa: BLE001 - one that fails must not hide the others
            traceback.print_exc()
            failed = True
        bench.finish()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
