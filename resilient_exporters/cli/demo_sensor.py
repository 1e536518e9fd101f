"""The sensor program of ``rexport demo``: what a user would write, and a switch to cut its link with.

Runs as a process of its own: ``python -m resilient_exporters.cli.demo_sensor DIRECTORY READINGS_PER_SECOND``.
"""

from __future__ import annotations

import json
import math
import mmap
import random
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tenacity import wait_random_exponential

from resilient_exporters import Batch, ExporterPool, FileExporter, SQLExporter, Stats

__all__ = ["Journal", "Places", "main"]


def main(directory: Path, rate: float) -> None:
    """Read a sensor and send what it says, until SIGTERM."""
    places = Places(directory)
    link = Link(places.link)
    pool = ExporterPool(
        [
            FileOverLink(link, places.file, name="file"),
            SQLOverLink(link, f"sqlite:///{places.database}", "readings", name="SQLite", sqlite_busy_timeout=0.5),
        ],
        name="demo",
        directory=places.queue,
        retry=wait_random_exponential(multiplier=0.25, max=1.0),
    )
    journal = Journal(places.journal)
    if pool.has_unsent_data():
        print("an earlier run left something: it is delivered now", file=sys.stderr)

    for _ in every(1 / rate):
        number = journal.attempts()
        started = time.perf_counter_ns()
        pool.send(read_sensor(number))
        journal.returned(number, time.perf_counter_ns() - started)
        if number % (rate // 5) == 0:
            show(pool, journal)

    pool.flush(timeout=20)
    pool.close()
    show(pool, journal)


def read_sensor(number: int) -> dict[str, Any]:
    """A boiler that swings a little."""
    return {
        "seq": number,
        "time": time.time(),
        "sensor": "boiler-3",
        "temperature": round(71 + 4 * math.sin(number / 700) + random.gauss(0, 0.2), 2),
        "pressure": round(2.4 + 0.1 * math.cos(number / 900), 3),
    }


# -- what belongs to the demo, not to a sensor program ---------------------------------------------------------------


class Link:
    """A link that can be cut: while the switch file is there, every delivery fails as on a dead one."""

    def __init__(self, switch: Path) -> None:
        self._switch = switch

    def cross(self) -> None:
        """Get to the other end, or fail."""
        if self._switch.exists():
            raise ConnectionError("no route to host (simulated)")


class FileOverLink(FileExporter):
    """A file at the other end of the link."""

    def __init__(self, link: Link, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._link = link

    def export(self, batch: Batch) -> Any:
        """Deliver, if the link is up."""
        self._link.cross()
        return super().export(batch)


class SQLOverLink(SQLExporter):
    """A database at the other end of the link."""

    def __init__(self, link: Link, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._link = link

    def export(self, batch: Batch) -> Any:
        """Deliver, if the link is up."""
        self._link.cross()
        return super().export(batch)


class Places:
    """What lies where in the demo's directory."""

    def __init__(self, directory: Path) -> None:
        self.link = directory / "link-is-down"
        self.file = directory / "readings.jsonl"
        self.database = directory / "readings.db"
        self.queue = directory / "queue"
        self.journal = directory / "journal"
        self.log = directory / "sensor.log"


class Journal:
    """What the sensor program knows for certain: a small mapped file, which survives ``kill -9``.

    A number is noted before ``send`` is called and again when it has returned. The process may be killed between the
    two: such a reading may have been accepted, and nobody was told.
    """

    _FIELDS = struct.Struct("<QQQQQ")

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(self._FIELDS.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), self._FIELDS.size)
        self.written_before = self.read()[3]

    def attempts(self) -> int:
        """Note that the next reading is being sent, and return its number."""
        number: int = struct.unpack_from("<Q", self._map, 0)[0]
        struct.pack_into("<Q", self._map, 0, number + 1)
        return number

    def returned(self, number: int, nanoseconds: int) -> None:
        """Note that ``send`` has returned, and after which time."""
        struct.pack_into("<Q", self._map, 8, number + 1)
        if nanoseconds > struct.unpack_from("<Q", self._map, 16)[0]:
            struct.pack_into("<Q", self._map, 16, nanoseconds)

    def written(self, queue_bytes: int) -> None:
        """Note what this process's queue wrote to disk."""
        struct.pack_into("<Q", self._map, 24, self.written_before + queue_bytes)

    def read(self) -> tuple[int, int, int, int]:
        """Readings attempted and returned, the longest ``send`` in nanoseconds, bytes that queues wrote."""
        attempted, returned, longest, written, _ = self._FIELDS.unpack(self._map[:])
        return attempted, returned, longest, written


def every(seconds: float) -> Iterator[None]:
    """Once in so many seconds on the average, until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    due = time.monotonic()
    while not stop.is_set():
        yield
        due += seconds
        ahead = due - time.monotonic()
        if ahead > 0.005:
            time.sleep(ahead)


def show(pool: ExporterPool, journal: Journal) -> None:
    """Tell the demo where the queue stands."""
    stats: Stats = pool.stats()
    journal.written(stats.written_bytes)
    targets = {name: (one.delivered, one.pending, one.state) for name, one in stats.targets.items()}
    print(json.dumps({"targets": targets, "disk": stats.disk_bytes}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
