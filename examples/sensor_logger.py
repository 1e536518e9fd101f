"""A sensor program as it would run on a Raspberry Pi: one reading a second to a file and a database, for ever.

    python sensor_logger.py DIRECTORY [READINGS]

Stop it with Ctrl-C or SIGTERM, cut its power, kill it: the next start goes on where it was.
"""

from __future__ import annotations

import itertools
import logging
import signal
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path

from resilient_exporters import ExporterPool, FileExporter, SQLExporter


def cpu_temperature() -> float | None:
    """In degrees Celsius, where the machine has a sensor."""
    try:
        return int(Path("/sys/class/thermal/thermal_zone0/temp").read_text()) / 1000
    except (OSError, ValueError):
        return None


def main(directory: Path, count: int | None = None, every: float = 1.0) -> None:
    """Send readings until told to stop."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())  # systemd, and a shutdown: close in order
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    file = FileExporter(directory / "readings.jsonl", rotate_every="daily", keep=14, compress="gzip")
    database = SQLExporter(f"sqlite:///{directory / 'readings.db'}", "readings")
    # The name is what the queue is found by at the next start.
    with ExporterPool([file, database], name="sensor-logger", loss_window=10) as pool:
        for number in itertools.count():
            if number == count or stop.is_set():
                break
            pool.send({"time": datetime.now(timezone.utc), "cpu": cpu_temperature()})
            stop.wait(every)
    for name, target in pool.stats().targets.items():
        print(f"{name}: {target.delivered} delivered, {target.pending} wait, {sum(target.dropped.values())} dropped")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
