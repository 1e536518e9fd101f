"""A program that sends at full speed, or slowly, and journals what was accepted. It is killed by test_kill.py.

Usage: sender.py FOLDER TARGET RING LOSS_WINDOW [drain | slowly]
"""

from __future__ import annotations

import mmap
import os
import random
import sqlite3
import struct
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

from resilient_exporters import Batch, Exporter

SEQUENCES = 1 << 24
_TIME = struct.Struct("<d")


class Journal:
    """What this program did, in a mapped file, so that a kill takes nothing of it.

    Per sequence number: 0 (never begun), -1 (``send`` had begun), or the monotonic time at which ``send`` had returned.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            with path.open("wb") as file:
                file.truncate((SEQUENCES + 1) * 8)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    @property
    def following(self) -> int:
        """The first number that was never begun."""
        return int(_TIME.unpack_from(self._map, SEQUENCES * 8)[0])

    def begin(self, sequence: int) -> None:
        # Not pack_into: it zeroes the place first, and a kill in between would begin the journal anew.
        self._map[SEQUENCES * 8 : SEQUENCES * 8 + 8] = _TIME.pack(sequence + 1)
        self._map[sequence * 8 : sequence * 8 + 8] = _TIME.pack(-1.0)

    def returned(self, sequence: int) -> None:
        self._map[sequence * 8 : sequence * 8 + 8] = _TIME.pack(time.monotonic())

    def time(self, sequence: int) -> float:
        return float(_TIME.unpack_from(self._map, sequence * 8)[0])


class Unreliable(Exporter):
    """Fails half of the time: before it has taken the batch, or after, when only its answer is lost."""

    healthy: ClassVar[bool] = False
    _alone: ClassVar[threading.Lock] = threading.Lock()

    def export(self, batch: Batch) -> None:
        if not self._alone.acquire(blocking=False):
            os._exit(70)  # strict order is one attempt at a time
        try:
            dice = 1.0 if self.healthy else random.random()
            if dice < 0.3:
                raise ConnectionError("cut before")
            self.put(batch)
            if dice < 0.5:
                raise ConnectionError("cut after")
        finally:
            self._alone.release()

    def put(self, batch: Batch) -> None:
        raise NotImplementedError


class ToDatabase(Unreliable):
    """A row per record, with the record's id as the key: what comes twice is there once."""

    def __init__(self, folder: Path, **options: object) -> None:
        self._path = folder / "target.db"
        self._database: sqlite3.Connection | None = None
        super().__init__(**options)  # type: ignore[arg-type] # options as texts of the command line

    def connect(self) -> None:
        self._database = sqlite3.connect(self._path, check_same_thread=False)
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS got (place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, seq INTEGER NOT NULL)"
        )

    def disconnect(self) -> None:
        assert self._database is not None
        self._database.close()

    def put(self, batch: Batch) -> None:
        assert self._database is not None
        with self._database:
            self._database.executemany(
                "INSERT OR IGNORE INTO got (id, seq) VALUES (?, ?)",
                [(record.id, record.data["seq"]) for record in batch],
            )


class ToList(Unreliable):
    """A line per record at the end of a file, which says where it ends: nothing is put twice."""

    def __init__(self, folder: Path, **options: object) -> None:
        self._path = folder / "target.txt"
        self._last = -1
        super().__init__(**options)  # type: ignore[arg-type] # options as texts of the command line

    def connect(self) -> None:
        text = self._path.read_bytes() if self._path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            os.truncate(self._path, len(whole))
        self._last = int(whole.split()[-1]) if whole else -1

    def put(self, batch: Batch) -> None:
        new = [record.data["seq"] for record in batch if record.data["seq"] > self._last]
        with self._path.open("ab", buffering=0) as file:
            file.write(b"".join(b"%d\n" % seq for seq in new))
        self._last = max([self._last, *new])


def make(folder: Path, target: str, loss_window: str) -> Unreliable:
    """The exporter that the program and the last look at its queue use."""
    return {"database": ToDatabase, "list": ToList}[target](
        folder,
        directory=folder / "queue",
        loss_window=None if loss_window == "None" else float(loss_window),
        max_memory="512 kB",
        max_disk="8 MB",
        on_full="block",
        retry=0,
        batch_records=200,
    )


def without_shared_memory() -> None:
    """As on a machine without tmpfs: what is in memory ends with the process."""
    from resilient_exporters.delivery import place, ring

    for module in (place, ring):
        if hasattr(module, "ring_path"):
            module.ring_path = lambda _: None  # type: ignore[attr-defined] # whichever of the two has it


def main() -> None:
    folder, target, ring, loss_window, rest = Path(sys.argv[1]), *sys.argv[2:5], sys.argv[5:]
    if ring == "anonymous":
        without_shared_memory()
    if rest == ["drain"]:
        Unreliable.healthy = True
    exporter = make(folder, target, loss_window)
    if rest == ["drain"]:
        complete = exporter.flush(60).complete
        stats = exporter.stats()
        [one] = stats.targets.values()
        print(complete, sum(one.dropped.values()), one.pending, one.accepted - one.delivered)
        exporter.close()
        return
    journal = Journal(folder / "journal")
    print("sending", flush=True)
    pad = "x" * 100
    for sequence in range(journal.following, SEQUENCES):
        journal.begin(sequence)
        exporter.send({"seq": sequence, "pad": pad})
        journal.returned(sequence)
        if rest == ["slowly"] and sequence % 5 == 4:
            time.sleep(0.002)  # a rate is kept: nothing is waited for


if __name__ == "__main__":
    main()
