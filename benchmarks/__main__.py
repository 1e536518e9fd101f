"""Run the benchmarks, all or those that are named, or make the report of what they found."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor

from benchmarks.harness import Bench

NAMES = (
    "send", "send_peers", "accept", "through_disk", "drain_http", "bytes_written", "frugality", "backlog", "fan_out",
    "idle", "closing", "importing", "pipeline", "small_machine",
)  # fmt: skip
GROUPS = {
    "servers": ("drain_servers", "slow_link"),
    "scale": ("backlog_of_millions",),
    "agents": ("agents",),
    "outage": ("outage",),
    "processors": ("processors",),
    "free_threaded": ("free_threaded",),
}
"""Benchmarks that need more than Python, or much time, run only when they or their group are named."""

QUICK = (*NAMES, "outage")
"""What a smoke run runs."""

_GROUPED = tuple(dict.fromkeys(name for group, names in GROUPS.items() for name in (group, *names)))
_ALL = (*NAMES, *_GROUPED)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast, how small, how quiet.")
    which = (
        f"of: {', '.join(_ALL)}; default: the first {len(NAMES)}, the others need servers, agents or nine minutes; "
        "or report: makes docs/performance of build/bench"
    )
    parser.add_argument("names", nargs="*", metavar="name", help=which)
    parser.add_argument("--smoke", action="store_true", help="few records, one repeat: only whether they run")
    given = parser.parse_args()
    if given.names == ["report"]:
        from benchmarks import report

        return report.main()
    if strange := sorted(set(given.names) - set(_ALL)):
        parser.error(f"no benchmark {', '.join(strange)}; there are: report, {', '.join(_ALL)}")
    if not given.smoke and os.getloadavg()[0] > 1:
        print(f"NOISE: the load is {os.getloadavg()[0]:.1f}; times will be upper bounds, ratios swing", flush=True)
    wanted = given.names or (QUICK if given.smoke else NAMES)
    names = dict.fromkeys(each for name in wanted for each in GROUPS.get(name, (name,)))
    if given.smoke and len(names) > 1:
        return _at_once(list(names))
    done = [_run(name, smoke=given.smoke) for name in names]
    return int(not all(done))


def _run(name: str, *, smoke: bool) -> bool:
    """One of them. False if it fails, which must not hide the others."""
    module = importlib.import_module(f"benchmarks.{name}")
    bench = Bench(name, smoke=smoke)
    try:
        module.run(bench)
    except Exception:  # noqa: BLE001 - whatever it is, it is shown
        traceback.print_exc()
        bench.finish(failed=True)
        return False
    bench.finish()
    return True


def _at_once(names: list[str]) -> int:
    """A smoke run measures nothing: then as many at once as there are cores."""

    def smoke(name: str) -> int:
        command = [sys.executable, "-m", "benchmarks", "--smoke", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        print(done.stdout, end="", flush=True)
        return done.returncode

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        failed = [name for name, code in zip(names, threads.map(smoke, names), strict=True) if code]
    print(f"\n{len(names) - len(failed)} of {len(names)} run" + (f", not {', '.join(failed)}" if failed else ""))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
