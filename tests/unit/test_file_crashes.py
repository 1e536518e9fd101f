"""Kills at every call to the system, and at random moments: every record is in the files once, whole and in order."""

from __future__ import annotations

import gzip
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

# A program with a queue of its own, as small as can be: the records are 0, 1, 2, …, and the cursor file says how many
# are settled. It is moved after an answer, so that a kill between the two leaves the batch to be delivered again.
PROGRAM = r"""
import os, pathlib, random, signal, sys
from resilient_exporters.delivery.outcome import Batch, Record
from resilient_exporters.exporters.file import FileExporter

OPTIONS = {
    "plain": {},
    "batch": {"fsync": "batch"},
    "lines": {},
    "csv": {"format": "csv", "rotate_bytes": 150},
    "rotate": {"rotate_bytes": 150},
    "gzip": {"rotate_bytes": 150, "compress": "gzip"},
    "room": {"max_lines": 7, "keep_new_data": True},
}
real = {name: getattr(os, name) for name in ("write", "pwrite", "rename", "replace", "unlink", "ftruncate", "open")}


def data(kind, n):
    if kind == "csv":
        return {"n": n, "text": "row %d\nof two" % n}
    return "record %d\nof two lines" % n if kind == "lines" else "record %d with some text" % n


def work(kind, folder, total, size):
    handle = real["open"](folder + "/cursor", os.O_RDWR | os.O_CREAT)
    settled = int(os.pread(handle, 20, 0) or 0)
    exporter = FileExporter(folder + "/data/log", **OPTIONS[kind])
    exporter.connect()
    doubtful = settled + size  # what the program before may have given to the exporter already
    while settled < total:
        count = min(random.randint(1, size), total - settled)
        records = [Record("0123456789abcdef", n, data(kind, n), {}) for n in range(settled, settled + count)]
        exporter.export(Batch(records, redelivered=settled < doubtful))
        settled += count
        point()
        real["pwrite"](handle, b"%20d" % settled, 0)
    exporter.disconnect()


left = 0
half = False


def point():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def deadly(name):
    def call(*args, **options):
        if left == 1 and half and name in ("write", "pwrite"):
            real[name](args[0], bytes(args[1])[: len(args[1]) * random.randint(0, 10) // 10], *args[2:])
        point()
        return real[name](*args, **options)

    return call


def killed_at(call, kind, folder, total, size):
    global left, half
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    left, half = call, random.random() < 0.5
    for name in real:
        setattr(os, name, deadly(name))
    try:
        work(kind, folder, total, size)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    how, kind, folder, total, size, seed = sys.argv[1:]
    random.seed(int(seed))
    if how == "once":
        work(kind, folder, int(total), int(size))
        sys.exit()
    call = 0
    alive = True
    while alive:
        call += 1
        place = "%s/%d" % (folder, call)
        os.mkdir(place)
        alive = killed_at(call, kind, place, int(total), int(size))
        killed_at(random.randint(1, 12), kind, place, int(total), int(size))  # and again, while it recovers
        killed_at(0, kind, place, int(total), int(size))
    print(call)
"""
KINDS = ["plain", "batch", "lines", "csv", "rotate", "gzip", "room"]


def run(folder: Path, *arguments: Any) -> subprocess.Popen[str]:
    program = folder / "program.py"
    if not program.exists():
        program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, str(program), *map(str, arguments)], env=environment, stdout=subprocess.PIPE, text=True
    )


def content(folder: Path) -> str:
    """All files in the order in which they were written."""
    text = ""
    for path in [*sorted(folder.glob("log.??????*")), folder / "log"]:
        text += gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    return text


def check(kind: str, folder: Path, total: int) -> None:
    found = content(folder)
    if kind == "room":
        expected = [f"record {n} with some text\n" for n in range(total - 7, total)]
    elif kind == "csv":
        found = found.replace("n,text\n", "")
        expected = [f'{n},"row {n}\nof two"\n' for n in range(total)]
    elif kind == "lines":
        expected = [f"record {n}\nof two lines\n" for n in range(total)]
    else:
        expected = [f"record {n} with some text\n" for n in range(total)]
    assert found == "".join(expected), folder
    left = {path.name for path in folder.iterdir() if not re.fullmatch(r"log(\.\d{6}(\.gz)?)?", path.name)}
    assert left <= {".log.resume"}, folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_at_any_call_to_the_system_loses_and_doubles_nothing(tmp_path: Path, kind: str) -> None:
    # When a program is killed at its first, second, third, … call, half of the writes cut short, then again at a
    # random one, and then runs to the end
    child = run(tmp_path, "every", kind, tmp_path, 20, 5, 1)
    output, _ = child.communicate()

    # Then
    assert child.returncode == 0
    kills = int(output)
    assert kills > 15
    for call in range(1, kills + 1):
        check(kind, tmp_path / str(call) / "data", 20)


def position(cursor: Path) -> int:
    """How far the program says it is."""
    return int(cursor.read_text() or 0) if cursor.exists() else 0


@pytest.mark.parametrize("kind", ["plain", "gzip"])
def test_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path, kind: str) -> None:
    # Given a program without an end
    chance = random.Random(7)
    cursor = tmp_path / "cursor"
    seen = []

    # When it is killed thirty times
    for _ in range(30):
        child = run(tmp_path, "once", kind, tmp_path, 10**9, 5, chance.randrange(10**6))
        before, deadline = position(cursor), time.monotonic() + 30
        while position(cursor) == before and time.monotonic() < deadline:
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(chance.uniform(0, 0.05))
        child.kill()
        child.communicate()
        seen.append(position(cursor))

    # Then it got further between most of the kills
    assert len(set(seen)) > 15
    total = seen[-1] + 10
    last = run(tmp_path, "once", kind, tmp_path, total, 5, 0)
    last.communicate()
    assert last.returncode == 0
    check(kind, tmp_path / "data", total)
