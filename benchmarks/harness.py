"""What all benchmarks share: fresh processes, interleaved repeats, medians with their spread, one table, one file.

The spread is the quartiles of the rounds. A ratio is taken within each round, so that what slows the machine slows both
sides of it; its median and quartiles are over the rounds.
"""

from __future__ import annotations

import inspect
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from resilient_exporters.delivery.ring import ring_path

Figures = dict[str, float]

_ROOT = Path(__file__).parent.parent
_OUT = _ROOT / "build" / "bench"
_PATIENCE = 1800
_WIDTHS = (52, 30, 34, 20, 12)
_BUSY = 0.3
"""Cores that others may use meanwhile before it is said."""


class Bench:
    """One benchmark: measures in fresh processes and prints a line per figure.

    Args:
        name: of the file.
        smoke: few records and one repeat.
    """

    def __init__(self, name: str, *, smoke: bool) -> None:
        self.name = name
        self.smoke = smoke
        self._rows: list[dict[str, Any]] = []
        self._samples: dict[str, list[Figures]] = {}
        self._began = time.monotonic()
        self._date = datetime.now(timezone.utc)
        self._load = os.getloadavg()
        self._busy = _busy_seconds()
        self._question = (inspect.getdoc(sys.modules.get(f"benchmarks.{name}")) or "").split("\n")[0]
        print(f"\n== {name} {self._question}".rstrip(), flush=True)
        self._print(("figure", "ours: median (quartiles)", "beside: median (quartiles)", "ratio (quartiles)", "goal"))

    def size(self, full: int, smoke: int) -> int:
        """``full``, or ``smoke`` in a smoke run."""
        return smoke if self.smoke else full

    def measure(
        self,
        cases: Mapping[str, tuple[Callable[..., Figures], dict[str, Any]]],
        repeats: int = 5,
        *,
        together: bool = False,
    ) -> dict[str, list[Figures]]:
        """Run each case in a process of its own, in turns, so that a noisy minute hits all of them.

        Every other round goes backwards, so that none always follows the same one.

        Args:
            cases: by name: a function of a benchmark's module, and its arguments. A function with an argument
                ``directory`` gets a fresh one on the disk of the repository.
            repeats: rounds; one in a smoke run.
            together: the cases of a round at the same time: for those that wait most of the time, and count.
        """
        found: dict[str, list[Figures]] = {name: [] for name in cases}
        for turn in range(1 if self.smoke else repeats):
            order = list(cases)
            with ThreadPoolExecutor(len(order) if together else 1) as threads:
                done = {
                    name: threads.submit(run_in_process, cases[name][0], **cases[name][1])
                    for name in (reversed(order) if turn % 2 else order)
                }
                for name, future in done.items():
                    found[name].append(future.result())
        for name, samples in found.items():
            self._samples.setdefault(name, []).extend(samples)
        return found

    def row(
        self,
        figure: str,
        ours: Sequence[float],
        unit: str = "",
        *,
        beside: tuple[str, Sequence[float]] | None = None,
        most: float | None = None,
        least: float | None = None,
        of: str = "ours",
    ) -> None:
        """Print one figure.

        Args:
            figure: what it is.
            ours: the samples.
            beside: name and samples of the peer or limit, one for a limit that is known; the ratio is the median over
                the rounds of ours by it.
            most, least: the goal.
            of: what the goal is for, "ours" or "ratio".
        """
        limit = [] if beside is None else list(beside[1])
        limit *= len(ours) if len(limit) == 1 else 1
        ratios = [a / b for a, b in zip(ours, limit, strict=True)] if limit and all(limit) else []
        ratio = statistics.median(ratios) if ratios else None
        value = ratio if of == "ratio" else statistics.median(ours)
        goal, met = "", None
        if most is not None:
            goal, met = f"<= {number(most)}", value is not None and value <= most
        elif least is not None:
            goal, met = f">= {number(least)}", value is not None and value >= least
        self._rows.append(
            {
                "figure": figure, "unit": unit, "ours": list(ours), "beside": None if beside is None else beside[0],
                "limit": limit, "ratio": ratio, "ratios": ratios,
                "goal": goal, "goal_of": of, "met": met,
            }
        )  # fmt: skip
        self._print(
            (
                f"{figure}{f' [{unit}]' if unit else ''}",
                spread(ours),
                "" if beside is None else f"{beside[0]} {spread(beside[1])}",
                spread(ratios, "x") if ratios else "",
                f"{goal}{'x' if of == 'ratio' and goal else ''} {'' if met is None else 'ok' if met else 'MISSED'}",
            )
        )

    def note(self, text: str) -> None:
        """Print a remark, and keep it in the file."""
        self._rows.append({"note": text})
        print(f"   {text}", flush=True)

    def finish(self, *, failed: bool = False) -> None:
        """Write the file.

        Args:
            failed: it did not get to its end; a report does not use it then.
        """
        seconds = time.monotonic() - self._began
        others = max(0.0, _busy_seconds() - self._busy) / seconds
        if others > _BUSY and not self.smoke:
            print(
                f"   NOISE: others used {others:.1f} cores meanwhile; times are upper bounds, ratios less so",
                flush=True,
            )
        _OUT.mkdir(parents=True, exist_ok=True)
        path = _OUT / f"{self.name}{'-smoke' if self.smoke else ''}.json"
        about = {
            "benchmark": self.name, "question": self._question, "smoke": self.smoke, "failed": failed,
            "date": self._date.isoformat(timespec="seconds"), "seconds": seconds,
            "python": platform.python_version(), "machine": platform.machine(), "cpus": os.cpu_count(),
            "cpu": _model(), "kernel": platform.release(), "load": self._load, "others": others,
            "rows": self._rows, "samples": self._samples,
        }  # fmt: skip
        path.write_text(json.dumps(about, indent=1) + "\n")

    @staticmethod
    def _print(cells: Sequence[str]) -> None:
        print(
            "   " + "  ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip(),
            flush=True,
        )


def run_in_process(function: Callable[..., Figures], **arguments: Any) -> Figures:
    """Call a function of a benchmark's module in a new process and return what it returns.

    Args:
        function: of a module that can be imported.
        arguments: JSON knows their kinds. ``environment`` is for the process: variables that are set there.

    Raises:
        RuntimeError: the process failed; its errors are on stderr.
    """
    directory, environment = None, {**os.environ, **arguments.pop("environment", {})}
    if "directory" in inspect.signature(function).parameters and "directory" not in arguments:
        directory = fresh_directory()
        arguments["directory"] = str(directory)
    target = f"{inspect.getmodule(function).__name__}:{function.__name__}"  # type: ignore[union-attr] # one of ours
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.child", target, json.dumps(arguments)],
            cwd=_ROOT, stdout=subprocess.PIPE, check=False, timeout=_PATIENCE, env=environment,
        )  # fmt: skip
    finally:
        if directory is not None:
            remove(directory)
    if done.returncode:
        raise RuntimeError(f"{target} ended with {done.returncode}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def fresh_directory() -> Path:
    """A new queue directory on a real disk: that of the repository, not a tmpfs."""
    place = _OUT / "queues"
    place.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="q", dir=place))


def remove(directory: Path) -> None:
    """Delete a queue directory and its ring."""
    shutil.rmtree(directory, ignore_errors=True)
    ring = ring_path(directory)
    if ring is not None:
        ring.unlink(missing_ok=True)


def column(samples: Sequence[Figures], key: str) -> list[float]:
    """One figure of all samples."""
    return [sample[key] for sample in samples]


def spread(samples: Sequence[float], unit: str = "") -> str:
    """Median, and quartiles."""
    middle = f"{number(statistics.median(samples))}{unit}"
    if len(samples) == 1 or min(samples) == max(samples):
        return middle
    low, high = quartiles(samples)
    return f"{middle} ({number(low)}–{number(high)})"


def quartiles(samples: Sequence[float]) -> tuple[float, float]:
    """The lower and the upper one."""
    if len(samples) == 1:
        return samples[0], samples[0]
    low, _, high = statistics.quantiles(samples, method="inclusive")
    return low, high


def number(value: float) -> str:
    """A figure with three digits that count."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _busy_seconds() -> float:
    """CPU seconds of all but this program and its ended children since the machine began, stolen ones too."""
    try:
        ticks = [int(one) for one in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return 0.0  # no Linux, or no /proc: the load has to do
    busy = sum(ticks) - ticks[3] - ticks[4]
    return busy / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def _model() -> str:
    """Of the processor, where the kernel names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
