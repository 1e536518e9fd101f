"""Our side of the comparison with the agents: a program with an exporter that posts bulks over HTTP.

``python -m benchmarks.agents_ours DIRECTORY PORT WATCHED OPTIONS`` sends what it is told on stdin, one JSON a line,
and answers with one. How many records ``send`` has taken stands in a small file that others map, so that it is known
at the instant of a kill. SIGTERM closes it.
"""

from __future__ import annotations

import http.client
import json
import logging
import mmap
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.agents_records import record
from benchmarks.material import DISTINCT, readings
from resilient_exporters import ConnectionError as Unreachable
from resilient_exporters import Exporter, RetryableError
from resilient_exporters.delivery.outcome import Batch

_HEADERS = {"Content-Type": "application/x-ndjson"}


class Bulks(Exporter):
    """Posts each batch as lines of JSON over one connection that is kept."""

    kind = "bulks"

    def __init__(self, port: int, **options: Any) -> None:
        super().__init__(name="bulks", **options)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._lines = msgspec.json.Encoder().encode_lines

    def export(self, batch: Batch) -> None:
        found = [each.data for each in batch]
        body = b"\n".join(found) if isinstance(found[0], bytes) else self._lines(found)
        try:
            self._connection.request("POST", "/", body, _HEADERS)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Unreachable(self, str(error)) from error
        if answer.status != 200:
            raise RetryableError(self, f"HTTP {answer.status}")


class Program:
    """What is asked of it, by name of the command."""

    def __init__(self, directory: str, port: int, watched: str, options: dict[str, Any]) -> None:
        self._encoded = options.pop("encoded", False)
        self._distinct = options.pop("distinct", DISTINCT)
        self._made: list[Any] = []
        with Path(watched).open("r+b") as file:
            self._taken = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
        self.exporter = Bulks(port, directory=directory, **options)
        self.exporter.flush(0.0)  # opens the queue, as the first ``send`` would: what was left is delivered from now on

    def prepare(self, first: int, count: int) -> dict[str, float]:
        """Make what is to be sent; that is not ours."""
        numbers = range(first, first + count)
        self._made = [record(number) for number in numbers] if self._encoded else readings(self._distinct)
        return {}

    def send(self, first: int, count: int, rate: float, save: bool) -> dict[str, float]:
        """Send consecutive records, at a rate or as fast as it goes, and wait until they are saved if asked to."""
        began = time.perf_counter()
        if rate:
            for start in range(first, first + count, 20):
                time.sleep(max(0.0, began + (start - first) / rate - time.perf_counter()))
                self._send(range(start, start + 20))
        else:
            self._send(range(first, first + count))
        if save and not self.exporter.save(60):
            raise RuntimeError("not saved")
        return {"seconds": time.perf_counter() - began}

    def stats(self) -> dict[str, Any]:
        """What it says of itself."""
        figures = self.exporter.stats()
        return {"pending": figures.pending, "dropped": sum(figures.targets["bulks"].dropped.values())}

    def _send(self, numbers: Iterable[int]) -> None:
        send, made, taken = self.exporter.send, self._made, self._taken
        if self._encoded:
            for number in numbers:
                send(made[number % len(made)])
                taken[0] = number + 1
            return
        for number in numbers:
            data = made[number % len(made)]
            data["seq"] = number
            send(data)
            taken[0] = number + 1


def _terminated(*_: object) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    signal.signal(signal.SIGTERM, _terminated)
    program = Program(sys.argv[1], int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4]))
    try:
        print("{}", flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            print(json.dumps(getattr(program, asked.pop("do"))(**asked)), flush=True)
    finally:
        began = time.perf_counter()
        program.exporter.close()
        logging.getLogger("agents").warning("closed in %.1f ms", 1000 * (time.perf_counter() - began))
