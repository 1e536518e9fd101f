"""What does ``import resilient_exporters`` cost, and what does it bring along?"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

from benchmarks.harness import Bench, Figures, column

OURS = ("resilient_exporters",)
# msgspec imports typing_extensions where that is installed.
ALLOWED = {
    "diskcache", "tenacity", "psutil", "msgspec", "platformdirs", "resilient_exporters", "typing_extensions",
}  # fmt: skip
CODE = """
import os, sys, threading, time
began = time.perf_counter(); used = time.process_time()
import {names}
seconds = time.perf_counter() - began; cpu = time.process_time() - used
rss = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
files = [os.path.realpath("/proc/self/fd/" + one) for one in os.listdir("/proc/self/fd")]
strange = {{name.partition(".")[0] for name in sys.modules}} - sys.stdlib_module_names - {{"__main__"}}
strange = sorted(name for name in strange if not name.startswith(("_distutils_hack", "_editable", "__editable")))
print(seconds, cpu, rss / 1024, threading.active_count(), len([one for one in files if "/proc/" not in one]), *strange)
"""


def run(bench: Bench) -> None:
    # As installed: with compiled modules, whatever the environment of this run says about writing them.
    with tempfile.TemporaryDirectory() as compiled:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = compiled
        try:
            _ask(("diskcache", "tenacity", "platformdirs", *OURS))
            _run(bench)
        finally:
            del os.environ["PYTHONPYCACHEPREFIX"]


def _run(bench: Bench) -> None:
    found = bench.measure(
        {
            "ours": (importing, {"names": ["resilient_exporters"]}),
            "parts": (importing, {"names": ["diskcache", "tenacity", "psutil"]}),
            "dependencies": (importing, {"names": ["diskcache", "tenacity", "psutil", "msgspec", "platformdirs"]}),
            "nothing": (importing, {"names": ["sys"]}),
        },
        repeats=9,
    )
    for key, unit in (("ms", "ms"), ("cpu", "ms CPU"), ("rss", "MB RSS")):
        for peer, title in (
            ("parts", "diskcache, tenacity, psutil"),
            ("dependencies", "all dependencies"),
            ("nothing", "nothing"),
        ):
            bench.row(
                "import resilient_exporters", column(found["ours"], key), unit, beside=(title, column(found[peer], key))
            )
    bench.row("threads started", column(found["ours"], "threads"), most=0)
    bench.row("files and sockets opened", column(found["ours"], "files"), most=0)
    strange = _ask(OURS)[5:]
    bench.row("modules that are not allowed", [float(len(set(strange) - ALLOWED))], most=0)
    bench.note(f"not of the standard library: {', '.join(strange)}")
    bench.note("the five that take longest by -X importtime (ms, itself only): " + ", ".join(_slowest()))


def importing(names: list[str]) -> Figures:
    """Import in yet another process: this one has imported too much."""
    seconds, cpu, rss, threads, files, *_ = _ask(names)
    _, _, _, _, before, *_ = _ask(["sys"])
    return {
        "ms": float(seconds) * 1e3, "cpu": float(cpu) * 1e3, "rss": float(rss), "threads": int(threads) - 1,
        "files": int(files) - int(before),
    }  # fmt: skip


def _ask(names: list[str] | tuple[str, ...]) -> list[str]:
    command = [sys.executable, "-c", CODE.format(names=", ".join(names))]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.split()


def _slowest() -> list[str]:
    began = time.perf_counter()
    command = [sys.executable, "-X", "importtime", "-c", "import resilient_exporters"]
    lines = subprocess.run(command, stderr=subprocess.PIPE, check=True, text=True).stderr.splitlines()
    times = []
    for line in lines:
        itself, _, name = line.removeprefix("import time:").split("|")
        if itself.strip().isdigit():
            times.append((int(itself), name.strip()))
    whole = (time.perf_counter() - began) * 1e3
    return [f"{name} {itself / 1e3:.1f}" for itself, name in sorted(times, reverse=True)[:5]] + [
        f"of {whole:.0f} in all"
    ]
