"""What is sent, and to whom: sensor readings of 200 bytes, and targets that do nothing or are away."""

from __future__ import annotations

import random
import resource
import time
from pathlib import Path
from typing import Any, Protocol

from resilient_exporters import ConnectionError as Unreachable
from resilient_exporters import Exporter
from resilient_exporters.delivery.outcome import Batch

DISTINCT = 10_000


def readings(count: int = DISTINCT) -> list[dict[str, Any]]:
    """Readings of twelve fields, 200 bytes each as JSON: values that wander and jitter, as those of real sensors do."""
    chance = random.Random(3)
    found = []
    level = [21.5, 48.0, 1013.2, 3.71, 0.02]
    for at in range(count):
        level = [value + chance.gauss(0, 0.03) * value**0.5 if value > 0 else 0.02 for value in level]
        found.append(
            {
                "sensor": f"greenhouse-{at % 4}", "ts": round(1_760_000_000 + at * 0.25 + chance.random() / 50, 3),
                "seq": at, "temperature": round(level[0], 2), "humidity": round(level[1], 1),
                "pressure": round(level[2], 1), "battery": round(level[3], 3), "current": round(level[4], 4),
                "rssi": -70 + chance.randrange(12), "ok": chance.random() > 0.01, "unit": "metric",
                "site": "north-east",
            }
        )  # fmt: skip
    return found


class Sender(Protocol):
    """What records can be sent to."""

    def send(self, data: Any) -> object:
        """Take a record."""


class Target(Exporter):
    """Takes everything and keeps nothing, or is away.

    Attributes:
        up: whether it answers.
        taken: records that it took.
        first: monotonic time of the first of them.
    """

    kind = "bench"

    def __init__(self, directory: str | Path, *, up: bool = True, **options: Any) -> None:
        super().__init__(directory=directory, name="target", **options)
        self.up = up
        self.taken = 0
        self.first = 0.0

    def export(self, batch: Batch) -> None:
        if not self.up:
            raise Unreachable(self, "away")
        if not self.taken:
            self.first = time.monotonic()
        self.taken += len(batch)


def cpu_seconds() -> float:
    """CPU time of all threads of this process, system calls included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def written_bytes() -> int:
    """What the disk took of this process, by the kernel's count."""
    figures = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(figures["write_bytes"])


def switches() -> tuple[int, int]:
    """Context switches of all threads of this process: given up to wait, and taken away."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_nvcsw, used.ru_nivcsw


def send_at(target: Sender, material: list[dict[str, Any]], count: int, rate: float = 0) -> None:
    """Send so many readings, at so many a second or as fast as they are taken."""
    began = time.perf_counter()
    for at in range(count):
        target.send(material[at % len(material)])
        if rate and (ahead := began + (at + 1) / rate - time.perf_counter()) > 0:
            time.sleep(ahead)


def status(field: str) -> int:
    """A number of /proc/self/status, such as VmRSS (kB)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise LookupError(field)
