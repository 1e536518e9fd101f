"""What a program did to the files under one directory: recorded by a library that is loaded before libc."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.programs import environment

__all__ = ["Event", "NoInterposer", "interposed", "read", "traced"]

_HEAD = struct.Struct("=BIQQQqqIII")
_SOURCE = Path(__file__).with_name("interposer.c")

CREATE, MAKE, RENAME, UNLINK, LINK = "C", "M", "R", "U", "L"
WRITE, RESIZE, ALLOCATE, RESERVE = "W", "T", "A", " "
BEGIN, END, MAP, UNMODELLED = "s", "e", "m", "?"


class NoInterposer(Exception):
    """It cannot be built, or not be loaded, here."""


class Event(NamedTuple):
    """One call of the program.

    Attributes:
        kind: CREATE, MAKE (a directory), RENAME, UNLINK, LINK: names; WRITE (``data`` at ``a``), RESIZE (to ``a``),
            ALLOCATE (``b`` bytes from ``a``), RESERVE (the same, the size stays): contents; BEGIN and END of a sync;
            MAP: stores through memory may follow, which nobody sees; UNMODELLED: something else.
        thread: that called.
        time: monotonic seconds.
        inode: device and inode of the file.
        a, b: as ``kind`` says.
        path, second: absolute paths.
        data: what was written.
    """

    kind: str
    thread: int
    time: float
    inode: tuple[int, int]
    a: int
    b: int
    path: str
    second: str
    data: bytes


@cache
def interposed(folder: Path) -> Path:
    """Build the library into a folder and see that it records.

    Raises:
        NoInterposer: why it does not.
    """
    if not sys.platform.startswith("linux"):
        raise NoInterposer(f"it is written for Linux, not for {sys.platform}")
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise NoInterposer("there is no C compiler (cc, gcc or clang)")
    library = folder / "interposer.so"
    command: list[str | Path] = [compiler, "-shared", "-fPIC", "-O2", "-o", library, _SOURCE, "-ldl", "-lpthread"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        raise NoInterposer(f"{compiler} does not compile it: {built.stderr[:500]}")
    _try(library, folder)
    return library


_TRIAL = """
import os, sqlite3, sys
os.mkdir(sys.argv[1] + "/folder")
database = sqlite3.connect(sys.argv[1] + "/folder/database")
database.execute("PRAGMA journal_mode=wal")
database.execute("CREATE TABLE trial (value)")
os.rename(sys.argv[1] + "/folder/database", sys.argv[1] + "/folder/renamed")
"""


def _try(library: Path, folder: Path) -> None:
    root, log = folder / "trial", folder / "trial.log"
    root.mkdir()
    result = subprocess.run(
        [sys.executable, "-c", _TRIAL, root],
        env=traced(library, root, log),
        capture_output=True,
        text=True,
        check=False,
    )
    seen = {event.kind for event in read(log)} if log.exists() else set[str]()
    wanted = {MAKE, CREATE, WRITE, BEGIN, END, RENAME, MAP}
    if result.returncode or not wanted <= seen:
        raise NoInterposer(f"it does not see {sorted(wanted - seen)} here: {result.stderr[:500]}")


def traced(
    library: Path, root: Path, log: Path | None, *, sync: bool = True, boot: Path | None = None
) -> Mapping[str, str]:
    """The environment of a program that is recorded.

    Args:
        library: the interposer.
        root: what is under it is recorded.
        log: where to; None: nowhere.
        sync: False makes every sync a call that does nothing.
        boot: a file with another boot id.
    """
    extra = {"LD_PRELOAD": str(library), "CRASH_ROOT": str(root)}
    if log is not None:
        extra["CRASH_LOG"] = str(log)
    if not sync:
        extra["CRASH_NOSYNC"] = "1"
    if boot is not None:
        extra["CRASH_BOOT"] = str(boot)
    return environment(extra)


def read(log: Path) -> list[Event]:
    """All events of a log."""
    raw, at, events = memoryview(log.read_bytes()), 0, []
    while at < len(raw):
        kind, thread, time, device, inode, a, b, *lengths = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        texts = []
        for length in lengths:
            texts.append(bytes(raw[at : at + length]))
            at += length
        path, second = map(os.fsdecode, texts[:2])
        events.append(Event(chr(kind), thread, time / 1e9, (device, inode), a, b, path, second, texts[2]))
    return events
