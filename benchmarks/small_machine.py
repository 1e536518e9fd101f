"""Does it fit a small machine: how much is installed, and what happens with 128 MB and one core?

A cgroup bounds memory where this user may make one (the ring and the page cache count, too), else ``RLIMIT_AS`` does.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from benchmarks.harness import Bench, Figures, column, fresh_directory, number, remove
from benchmarks.material import Target, cpu_seconds, readings, status
from resilient_exporters.delivery.outcome import Batch

LIMIT = 128 << 20
_LIMITS = {
    Path("/sys/fs/cgroup/memory"): {"memory.limit_in_bytes": LIMIT, "memory.memsw.limit_in_bytes": LIMIT},
    Path("/sys/fs/cgroup"): {"memory.swap.max": 0, "memory.max": LIMIT},
}
_ROOT = Path(__file__).parent.parent
_PATIENCE = 900


def run(bench: Bench) -> None:
    _installed(bench)
    count = bench.size(1_000_000, 5_000)
    small, large = [], []
    for _ in range(1 if bench.smoke else 3):
        small.append(_outage(count, confined=True))
        large.append(_outage(count, confined=False))
    free = "without limits"
    bench.row(f"128 MB, one core, {number(count)} through an outage and kill -9: lost", column(small, "lost"), most=0)
    bench.row("  there twice", column(small, "doubled"))
    peak = (free, column(large, "peak"))
    bench.row("  RSS at most", column(small, "peak"), "MB", beside=peak)
    bench.row("  RSS before the first send", column(small, "bare"), "MB")
    if all(column(small, "charged")):
        bench.row("  memory of the cgroup at most, page cache included", column(small, "charged"), "MB", most=128)
    else:
        bench.note("no cgroup can be made here: the limit was RLIMIT_AS, of addresses")
    bench.row("  CPU", column(small, "cpu"), "s/M", beside=(free, column(large, "cpu")))


def _installed(bench: Bench) -> None:
    """What pip puts on the disk."""
    try:
        sizes = {name: _size(name) for name in _required("resilient-exporters")}
    except importlib.metadata.PackageNotFoundError as error:
        bench.note(f"how much is installed is not known: {error}")
        return
    code = sum(path.stat().st_size for path in (_ROOT / "resilient_exporters").rglob("*.py"))
    bench.row("source of the package", [code / 1e6], "MB")
    bench.row("its dependencies, as installed", [sum(sizes.values()) / 1e6], "MB")
    bench.note(f"dependencies [MB]: {', '.join(f'{name} {number(size / 1e6)}' for name, size in sizes.items())}")


def _required(package: str) -> list[str]:
    wanted = importlib.metadata.requires(package) or []
    return sorted(re.split(r"[^\w-]", one)[0] for one in wanted if "extra ==" not in one)


def _size(package: str) -> int:
    files = importlib.metadata.files(package) or []
    paths = [Path(str(file.locate())) for file in files]
    return sum(path.stat().st_size for path in paths if path.is_file() and path.suffix != ".pyc")


def _outage(count: int, *, confined: bool) -> Figures:
    """Send while the target is away, die by kill -9, start again, deliver."""
    directory = fresh_directory()
    try:
        with _cgroup() if confined else nullcontext() as group:
            limit = partial(_confine, group) if confined else None
            first = tell("sender", str(directory), count, enter=limit)
            second = tell("deliverer", str(directory), count, enter=limit)
            charged = _charged(group)
    finally:
        remove(directory)
    return {
        **second, "bare": first["bare"], "charged": charged,
        "peak": max(first["peak"], second["peak"]), "cpu": first["cpu"] + second["cpu"],
    }  # fmt: skip


def tell(
    program: str,
    directory: str,
    count: int,
    *,
    enter: Callable[[], None] | None = None,
    within: Sequence[str] = (),
    without: Sequence[str] = (),
) -> Figures:
    """Run one of the programs below, and return what it says.

    Args:
        program: its name.
        directory: of the queue.
        count: of records.
        enter: called in the new process before it begins.
        within: a command that runs commands.
        without: modules that are to be seen as not installed.
    """
    arguments = json.dumps({"directory": directory, "count": count, "without": without})
    done = subprocess.run(
        [*within, "python3" if within else sys.executable, "-m", "benchmarks.child",
         f"benchmarks.small_machine:{program}", arguments],
        cwd=_ROOT, stdout=subprocess.PIPE, check=False, timeout=_PATIENCE,
        preexec_fn=enter,  # the limits have to be there before Python is
    )  # fmt: skip
    if done.returncode not in {0, -signal.SIGKILL, 128 + signal.SIGKILL} or not done.stdout.strip():
        raise RuntimeError(f"{program} ended with {done.returncode}, and said {done.stdout.decode()!r}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


@contextmanager
def _cgroup() -> Iterator[Path | None]:
    """A cgroup of 128 MB without swap, or None where none can be made."""
    for root, limits in _LIMITS.items():
        group = root / f"resilient-exporters-bench-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            try:
                for name, value in limits.items():
                    if (group / name).exists():
                        (group / name).write_text(str(value))
                if not any((group / name).exists() for name in limits):
                    continue
            except OSError:
                continue
            yield group
            return
        finally:
            group.rmdir()
    yield None


def _confine(group: Path | None) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if group is None:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    else:
        (group / "cgroup.procs").write_text(str(os.getpid()))


def _charged(group: Path | None) -> float:
    """The most that a cgroup held, MB; 0 where there is none."""
    for name in ("memory.max_usage_in_bytes", "memory.peak"):
        if group is not None and (group / name).exists():
            return int((group / name).read_text()) / (1 << 20)
    return 0.0


# In a process of their own:


class _Counting(Target):
    """Knows each record by its number."""

    def __init__(self, directory: str, count: int) -> None:
        super().__init__(directory, max_disk="2 GB")
        self.seen = bytearray(count)

    def export(self, batch: Batch) -> None:
        for record in batch:
            self.seen[record.data["n"]] += 1
        super().export(batch)


def sender(directory: str, count: int) -> Figures:
    """Sends with the target away, and is killed."""
    material = readings(2_000)
    target = Target(directory, up=False, on_full="block", max_disk="2 GB")
    bare = status("VmRSS") / 1024
    written = _written()
    for at in range(count):
        target.send({**material[at % len(material)], "n": at})
    cpu, peak = cpu_seconds() / count * 1e6, status("VmHWM") / 1024
    target.save()  # so that what is counted does not depend on when the kill comes
    handed, calls = (now - before for now, before in zip(_written(), written, strict=True))
    stats = target.stats()
    figures = {
        "bare": bare, "peak": peak, "cpu": cpu, "handed": handed / count, "calls": calls / count * 1e3,
        "disk": stats.disk_bytes / count, "rows": stats.written_bytes / count,
    }  # fmt: skip
    for at in range(count, count + 100):  # these are in the ring only
        target.send({**material[at % len(material)], "n": at})
    print(json.dumps(figures), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("alive after SIGKILL")


def deliverer(directory: str, count: int) -> Figures:
    """Finds what the killed one left, and delivers it."""
    target = _Counting(directory, count + 100)
    target.flush(_PATIENCE)
    target.close()
    return {
        "lost": target.seen.count(0), "doubled": count + 100 - target.seen.count(0) - target.seen.count(1),
        "peak": status("VmHWM") / 1024, "cpu": cpu_seconds() / count * 1e6, "bits": 8 * struct.calcsize("P"),
    }  # fmt: skip


def _written() -> tuple[int, int]:
    """Bytes that were handed to write calls, and how many calls there were."""
    figures = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(figures["wchar"]), int(figures["syscw"])
