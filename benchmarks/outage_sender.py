"""One sender of the outage table, in a process of its own: ``python -m benchmarks.outage_sender NAME PORT DIRECTORY``.

Each is built as its documentation's first page shows, with its defaults. Commands come by stdin, a line each: a number
is a reading to send, ``close`` ends it. Answers go to stdout: ``taken NUMBER SECONDS`` once the call has returned,
``refused NUMBER`` if it raised, ``closed SECONDS``.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import urllib.request
from abc import ABC, abstractmethod
from pathlib import Path

from resilient_exporters import Batch, Exporter

__all__ = ["SENDERS", "Sender"]


class Sender(ABC):
    """What a program uses to send its readings.

    Args:
        port: of the target, on this machine.
        directory: of its own, the same after a restart.

    Attributes:
        title: of its row.
        packages: that have to be installed for it.
        lines: it speaks lines over TCP, not HTTP.
    """

    title: str
    packages: tuple[str, ...] = ()
    lines = False

    @abstractmethod
    def __init__(self, port: int, directory: Path) -> None: ...

    @abstractmethod
    def send(self, reading: str) -> None:
        """Send one."""

    @abstractmethod
    def close(self) -> None:
        """End as its documentation says."""


def post(port: int, body: str) -> None:
    """One request, as a loop of one's own would make it."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", data=body.encode(), method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()


class _Target(Exporter):
    def __init__(self, port: int, directory: Path) -> None:
        self._port = port
        super().__init__(name="outage", directory=directory)

    def export(self, batch: Batch) -> None:
        post(self._port, "\n".join(record.data for record in batch))


class Ours(Sender):
    title = "resilient_exporters"

    def __init__(self, port: int, directory: Path) -> None:
        self._target = _Target(port, directory)
        self._target.flush(timeout=0)  # so that what an earlier run left is delivered before anything is sent

    def send(self, reading: str) -> None:
        self._target.send(reading)

    def close(self) -> None:
        self._target.close()


class Sentry(Sender):
    title = "sentry-sdk"
    packages = ("sentry_sdk",)

    def __init__(self, port: int, directory: Path) -> None:  # noqa: ARG002 - it keeps nothing
        import sentry_sdk

        self._sdk = sentry_sdk
        sentry_sdk.init(dsn=f"http://public@127.0.0.1:{port}/1")

    def send(self, reading: str) -> None:
        self._sdk.capture_message(reading)

    def close(self) -> None:
        self._sdk.get_client().close()


class Otlp(Sender):
    title = "OpenTelemetry OTLP/HTTP"
    packages = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")

    def __init__(self, port: int, directory: Path) -> None:  # noqa: ARG002 - it keeps nothing
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._provider = TracerProvider()
        exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{port}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("outage")

    def send(self, reading: str) -> None:
        self._tracer.start_span(reading).end()

    def close(self) -> None:
        self._provider.shutdown()


class Posthog(Sender):
    title = "posthog"
    packages = ("posthog",)

    def __init__(self, port: int, directory: Path) -> None:  # noqa: ARG002 - it keeps nothing
        from posthog import Posthog as Client

        self._client = Client("phc_outage", host=f"http://127.0.0.1:{port}")

    def send(self, reading: str) -> None:
        self._client.capture(reading, distinct_id="sensor")

    def close(self) -> None:
        self._client.shutdown()


class Segment(Sender):
    title = "segment-analytics"
    packages = ("segment.analytics",)

    def __init__(self, port: int, directory: Path) -> None:  # noqa: ARG002 - it keeps nothing
        from segment.analytics.client import Client

        self._client = Client("outage", host=f"http://127.0.0.1:{port}")

    def send(self, reading: str) -> None:
        self._client.track("sensor", reading)

    def close(self) -> None:
        self._client.shutdown()


class Influx(Sender):
    title = "influxdb-client"
    packages = ("influxdb_client",)

    def __init__(self, port: int, directory: Path) -> None:  # noqa: ARG002 - it keeps nothing
        from influxdb_client import InfluxDBClient

        self._client = InfluxDBClient(url=f"http://127.0.0.1:{port}", token="t", org="o")
        self._writer = self._client.write_api()

    def send(self, reading: str) -> None:
        self._writer.write(bucket="b", record=f'outage reading="{reading}"')

    def close(self) -> None:
        self._writer.close()
        self._client.close()


class Logstash(Sender):
    title = "python-logstash-async"
    packages = ("logstash_async.handler",)
    lines = True

    def __init__(self, port: int, directory: Path) -> None:
        from logstash_async.handler import AsynchronousLogstashHandler

        self._log = logging.getLogger("outage")
        self._log.propagate = False
        self._log.addHandler(AsynchronousLogstashHandler("127.0.0.1", port, self._database(directory)))

    def _database(self, directory: Path) -> str | None:  # noqa: ARG002 - in memory
        return None

    def send(self, reading: str) -> None:
        self._log.error(reading)

    def close(self) -> None:
        logging.shutdown()


class LogstashOnDisk(Logstash):
    title = "python-logstash-async, database_path"

    def _database(self, directory: Path) -> str | None:
        return str(directory / "events.db")


class PersistQueue(Sender):
    title = "persist-queue + a loop"
    packages = ("persistqueue",)

    def __init__(self, port: int, directory: Path) -> None:
        from persistqueue import SQLiteAckQueue

        self._queue = SQLiteAckQueue(str(directory), multithreading=True)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._loop, args=(port,), daemon=True)
        self._thread.start()

    def _loop(self, port: int) -> None:
        from persistqueue.exceptions import Empty

        while not self._ending.is_set():
            try:
                reading = self._queue.get(timeout=0.5)
            except Empty:
                continue
            try:
                post(port, reading)
                self._queue.ack(reading)
            except OSError:
                self._queue.nack(reading)
                self._ending.wait(1)

    def send(self, reading: str) -> None:
        self._queue.put(reading)

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        self._queue.close()


SENDERS: dict[str, type[Sender]] = {
    "ours": Ours,
    "persist-queue": PersistQueue,
    "logstash-disk": LogstashOnDisk,
    "logstash": Logstash,
    "otlp": Otlp,
    "sentry": Sentry,
    "posthog": Posthog,
    "segment": Segment,
    "influx": Influx,
}


def main() -> None:
    name, port, directory = sys.argv[1:]
    sender = SENDERS[name](int(port), Path(directory))
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        if line == "close\n":
            sender.close()
            print(f"closed {time.perf_counter() - began:.6f}", flush=True)
            return
        number = int(line)
        try:
            sender.send(f"n={number:06d};")
        except Exception as error:  # noqa: BLE001 - whatever it raises, it did not take the reading, and said so
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            print(f"refused {number}", flush=True)
        else:
            print(f"taken {number} {time.perf_counter() - began:.6f}", flush=True)


if __name__ == "__main__":
    main()
