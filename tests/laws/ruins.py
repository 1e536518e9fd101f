"""A queue directory with everything in it that one can hold, as a killed program left it, and ways to damage it."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import sqlite3
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from resilient_exporters import Reject, Retry
from resilient_exporters.delivery.ring import _IDENTITY, _digest, ring_path
from tests.programs import start
from tests.targets import PATIENCE, Target, until

OPTIONS: dict[str, Any] = {
    "name": "target", "batch_records": 10, "max_memory": "256 kB", "max_disk": "4 MB", "min_free_disk": 0,
    "loss_window": 3600, "linger": 0,
}  # fmt: skip
LETTERS = (3, 7)
"""Records that the target refuses for good."""
ON_DISK, IN_BOTH, IN_MEMORY = range(40), range(40, 60), range(60, 75)
"""Where the records of the ruin lie: in the database alone, in the ring as well, in the ring alone."""


FRESH = 1_000_000
"""Records from here on are sent after the damage."""


def content(n: int) -> dict[str, Any]:
    """What the record ``n`` holds: nobody could alter it without being noticed."""
    dice = random.Random(n)
    return {"n": n, "value": dice.random(), "text": f"reading {dice.getrandbits(256):x}"}


class Ruin(NamedTuple):
    """What a program left behind: the files of its directory by name, and its ring."""

    files: dict[str, bytes]
    ring: bytes
    gone: int
    """Records that an earlier damage took: they were counted then."""

    def rebuilt(self, place: Path) -> Path:
        """The same in another directory. Returns its ring."""
        place.mkdir(mode=0o700, parents=True)
        for name, raw in self.files.items():
            (place / name).parent.mkdir(mode=0o700, exist_ok=True)
            write(place / name, raw)
        ring = ring_path(place)
        assert ring is not None
        write(ring, renamed(self.ring, place))
        return ring


def write(path: Path, raw: bytes) -> None:
    """Put a file in the place of whatever is there."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(raw)


def renamed(ring: bytes, place: Path) -> bytes:
    """The bytes of a ring, as if it belonged to another directory."""
    magic, version, capacity, run, _, _ = _IDENTITY.unpack_from(ring)
    identity = _IDENTITY.pack(magic, version, capacity, run, _digest(place), 0)[:-4]
    return identity + struct.pack("<I", zlib.crc32(identity)) + ring[_IDENTITY.size :]


def ruin(place: Path, first: int = 0) -> Ruin:
    """Let a program live three lives in a directory, and be killed in the last.

    Args:
        place: the directory.
        first: number of its first record.
    """
    child = start("""
        import sys
        from pathlib import Path
        from tests.laws.ruins import live
        live(Path(sys.argv[1]), int(sys.argv[2]))
    """, place, first)  # fmt: skip
    out, err = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL, f"{out}\n{err}"
    ring = ring_path(place)
    assert ring is not None
    files = {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    return Ruin(files, ring.read_bytes(), int(out))


def live(place: Path, first: int) -> None:
    """A row is damaged after the first life, the database after the second; the fourth one is killed."""
    target = _down(place)
    for life, records in enumerate((ON_DISK, (), (), IN_BOTH)):
        if life:
            target.close(0)
            _spoil(place, life)
            target = _down(place)
        if records:
            target.send([content(first + n) for n in records])
        target.flush(PATIENCE)
        until(target, lambda stats: stats.targets["target"].dead == len(LETTERS))
        assert target.save(PATIENCE)
    target.send([content(first + n) for n in IN_MEMORY])
    target.flush(PATIENCE)
    print(sum(target.stats().targets["target"].dropped.values()))
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def _spoil(place: Path, life: int) -> None:
    with closing(sqlite3.connect(place / "cache.db")) as database, database:
        if life == 1:
            key, value = database.execute("SELECT key, value FROM Cache WHERE key >= 0 ORDER BY key").fetchone()
            damaged = bytes(value[:-20]) + bytes(20)
            database.execute("UPDATE Cache SET value = ? WHERE key = ?", (damaged, key))
        elif life == 2:
            database.execute("INSERT INTO Settings (key, value) VALUES ('sqlite_evil', 1)")


def serve(place: Path) -> None:
    """Do as stdin says, one word at a time, and answer each on stdout."""
    target = _down(place)
    at = FRESH
    for line in sys.stdin:
        answer: Any = None
        if line == "send\n":
            target.send([content(n) for n in range(at, at + 5)])
            at += 5
        elif line == "save\n":
            answer = target.save(PATIENCE)
        elif line == "rest\n":
            before = os.times()
            threading.Event().wait(1.0)
            answer = sum(os.times()[:2]) - sum(before[:2])
        elif line == "close\n":
            answer = target.close(0).saved
        else:
            target.answer = None
            complete = target.flush(PATIENCE).complete
            stats = target.stats().targets["target"]
            answer = [complete, target.taken, stats.dropped, len(list(target.dead_letters()))]
        print(json.dumps(answer), flush=True)


def _down(place: Path) -> Target:
    return Target(_refusing, retry=3600, directory=place, **OPTIONS)


def _refusing(batch: Any) -> list[Any]:
    return [Reject("no") if record.data["n"] % 1000 in LETTERS else Retry(reason="down") for record in batch]


def report(name: str, head: str, rows: Iterable[object]) -> None:
    """Put a table of rows that are Markdown already into ``build/``."""
    folder = Path(__file__).parents[2] / "build"
    folder.mkdir(exist_ok=True)
    line = "|".join("---" for _ in head.split("|")[1:-1])
    (folder / f"{name}.md").write_text("\n".join([head, f"|{line}|", *map(str, rows), ""]))


def spent(threads: Iterable[int]) -> float:
    """CPU seconds that threads of this process have taken."""
    total = 0
    for thread in threads:
        path = Path(f"/proc/self/task/{thread}/schedstat")
        if path.exists():
            total += int(path.read_text().split()[0])
    return total / 1e9


# -- damage --------------------------------------------------------------------------------------------------------


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.mark,))


class Means(NamedTuple):
    """What a damage may make use of."""

    mark: Path
    other: bytes
    dice: random.Random


def flip_a_bit(path: Path, means: Means) -> None:
    raw = bytearray(path.read_bytes())
    if raw:
        raw[means.dice.randrange(len(raw))] ^= 1 << means.dice.randrange(8)
    path.write_bytes(raw)


def flip_many_bits(path: Path, means: Means) -> None:
    raw = bytearray(path.read_bytes())
    for at in range(means.dice.randrange(700), len(raw), 700):
        raw[at] ^= 1 << means.dice.randrange(8)
    path.write_bytes(raw)


def zero_a_sector(path: Path, means: Means) -> None:
    raw = bytearray(path.read_bytes())
    at = means.dice.randrange(0, len(raw) or 1, 512)
    raw[at : at + 512] = bytes(len(raw[at : at + 512]))
    path.write_bytes(raw)


def cut_in_half(path: Path, means: Means) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path, means: Means) -> None:
    os.truncate(path, 0)


def replace_by_garbage(path: Path, means: Means) -> None:
    path.write_bytes(means.dice.randbytes(max(path.stat().st_size, 5000)))


def replace_by_another_queues(path: Path, means: Means) -> None:
    path.write_bytes(means.other)


def replace_by_a_pickle(path: Path, means: Means) -> None:
    path.write_bytes(pickle.dumps(Bomb(means.mark)))


def replace_by_a_link(path: Path, means: Means) -> None:
    precious = means.mark.with_name("precious")
    precious.write_bytes(b"precious")
    path.unlink()
    path.symlink_to(precious)


def replace_by_a_directory(path: Path, means: Means) -> None:
    path.unlink()
    path.mkdir()


def replace_by_a_pipe(path: Path, means: Means) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def delete(path: Path, means: Means) -> None:
    path.unlink()


DAMAGES: tuple[Callable[[Path, Means], None], ...] = (
    flip_a_bit, flip_many_bits, zero_a_sector, cut_in_half, empty, replace_by_garbage, replace_by_another_queues,
    replace_by_a_pickle, replace_by_a_link, replace_by_a_directory, replace_by_a_pipe, delete,
)  # fmt: skip
