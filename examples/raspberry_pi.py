"""A Raspberry Pi with a temperature sensor, on a bad link: to a file on the card and to a MongoDB elsewhere.

    python raspberry_pi.py DIRECTORY --mongodb mongodb://user:password@host/site [--every 10] [--simulate] [--count N]

Where the database is away the readings wait, also over a power cut, and reach it when it is back: each once. The file
has them at once, one a day, a month of them.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import signal
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from resilient_exporters import ExporterPool, FileExporter, MongoDBExporter

W1 = Path("/sys/bus/w1/devices")


def ds18b20() -> float | None:
    """Degrees Celsius of the first DS18B20 on the one-wire bus; None if it does not answer."""
    for device in sorted(W1.glob("28-*")):
        text = (device / "w1_slave").read_text()
        if "YES" in text:  # the checksum of the sensor is right
            return int(text.rpartition("t=")[2]) / 1000
    return None


def simulated() -> Callable[[], float | None]:
    """A sensor for machines without one: a day in a living room, and a bad contact now and then."""
    numbers = itertools.count()

    def read() -> float | None:
        n = next(numbers)
        return None if n % 10 == 9 else round(20 + 3 * math.sin(n / 50), 3)

    return read


def main() -> None:
    """Send readings until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--mongodb", required=True, metavar="URI", help="with the name of the database in it")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two readings")
    parser.add_argument("--count", type=int, help="end after so many readings")
    parser.add_argument("--simulate", action="store_true", help="without a sensor")
    given = parser.parse_args()
    read = simulated() if given.simulate else ds18b20

    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())

    file = FileExporter(given.directory / "readings.jsonl", rotate_every="daily", keep=31, compress="gzip", name="card")
    database = MongoDBExporter(uri=given.mongodb, default_collection="readings", name="site-database")
    # 30 s: a power cut takes half a minute at most, and the card is written twice a minute at most. 7 days wait.
    with ExporterPool(
        [file, database], name="raspberry-pi", directory=given.directory / "queue", loss_window=30, max_age=7 * 86_400
    ) as pool:
        for number in itertools.count():
            if stop.is_set() or number == given.count:
                break
            value = read()
            pool.send({"time": datetime.now(timezone.utc), "sensor": "living-room", "temperature": value})
            stop.wait(given.every)
    for name, target in pool.stats().targets.items():
        print(f"{name}: {target.delivered} delivered, {target.pending} wait")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main()
