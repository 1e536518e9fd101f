"""Run the benchmarks, all or those that are named."""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback

from benchmarks.harness import Bench

NAMES = ("send", "accept", "through_disk", "bytes_written", "backlog", "idle", "closing", "importing", "outage")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast, how small, how quiet.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of: {', '.join(NAMES)}; default: all")
    parser.add_argument("--smoke", action="store_true", help="few records, one repeat: only whether they run")
    given = parser.parse_args()
    if strange := sorted(set(given.names) - set(NAMES)):
        parser.error(f"no benchmark {', '.join(strange)}; there are: {', '.join(NAMES)}")
    failed = False
    for name in given.names or NAMES:
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
