"""A disk whose every sync takes long, without being root: a library that is loaded before libc and waits first."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import fresh_directory, remove

SYNC_SECONDS = 0.25
"""What a worn SD card takes for one sync now and then; here for each."""

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

static atomic_long syncs;

long slow_disk_syncs(void) { return syncs; }

static int wait_and(const char *name, int handle)
{
    long nanoseconds = atol(getenv("SLOW_DISK_NANOSECONDS"));
    struct timespec pause = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    atomic_fetch_add(&syncs, 1);
    nanosleep(&pause, NULL);
    return real(handle);
}

int fsync(int handle) { return wait_and("fsync", handle); }
int fdatasync(int handle) { return wait_and("fdatasync", handle); }
"""


@contextmanager
def slow_disk() -> Iterator[tuple[Path | None, str]]:
    """Build the library, and take it away again: where it is, or None and why it cannot be had."""
    directory = fresh_directory()
    built = directory / "slow_disk.so"
    try:
        wanted = os.environ.get("CC", "cc")
        compiler = shutil.which(wanted)
        if compiler is None:
            yield None, f"no C compiler ({wanted})"
            return
        done = subprocess.run(
            [compiler, "-shared", "-fPIC", "-O2", "-x", "c", "-", "-o", built, "-ldl"],
            input=_SOURCE, text=True, capture_output=True, check=False,
        )  # fmt: skip
        yield (None, f"{compiler} failed: {done.stderr.strip()[:200]}") if done.returncode else (built, "")
    finally:
        remove(directory)


def slow_down(library: str) -> None:
    """Start this process again with the library, unless that was done: to be called before anything else is."""
    if os.environ.get("LD_PRELOAD") != library:
        nanoseconds = str(int(SYNC_SECONDS * 1e9))
        environment = {**os.environ, "LD_PRELOAD": library, "SLOW_DISK_NANOSECONDS": nanoseconds}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def syncs() -> int:
    """Syncs of this process so far."""
    return int(ctypes.CDLL(None).slow_disk_syncs())
