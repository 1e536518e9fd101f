"""What does it cost to empty a backlog into a receiver of HTTP bulks, 500 records as JSON lines a request?"""

from __future__ import annotations

import http.client
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import msgspec

from benchmarks.harness import Bench, Figures, column
from benchmarks.material import cpu_seconds, readings
from resilient_exporters import Exporter
from resilient_exporters.delivery.outcome import Batch

BULK = 500
_json = msgspec.json.Encoder().encode


def run(bench: Bench) -> None:
    count = bench.size(500_000, 10_000)
    found = bench.measure(
        {
            "dicts": (exporter, {"count": count}),
            "bytes": (exporter, {"count": count, "encoded": True}),
            "raw dicts": (client, {"count": count}),
            "raw bytes": (client, {"count": count, "encoded": True}),
        }
    )
    for name, what in (("dicts", "dicts, encoded as JSON by the exporter"), ("bytes", "bytes, encoded by the program")):
        ours, raw = found[name], found[f"raw {name}"]
        beside = ("http.client", column(raw, "cpu"))
        bench.row(f"CPU per million drained, {what}", column(ours, "cpu"), "s/M", beside=beside, most=3.0)
        bench.row(f"drain rate, {what}", column(ours, "rate"), "/s", beside=("http.client", column(raw, "rate")))
    bench.note("http.client: the same bulks from a list in memory over the same connection, encoded if dicts")
    bench.note("CPU of the sending process; the receiver is another one, and looks at nothing but the length")


# In a process of their own:


class BulkExporter(Exporter):
    """What a user would write."""

    kind = "bulk"

    def __init__(self, port: int, render: Callable[[Any], bytes], **options: Any) -> None:
        super().__init__(**options)
        self.port = port
        self.taken = 0
        self._render = render

    def connect(self) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout)

    def disconnect(self) -> None:
        self._connection.close()

    def export(self, batch: Batch) -> None:
        render = self._render
        post(self._connection, b"\n".join([render(record.data) for record in batch]))
        self.taken += len(batch)


def post(connection: http.client.HTTPConnection, body: bytes) -> None:
    """One bulk."""
    connection.request("POST", "/bulk", body, {"Content-Type": "application/x-ndjson"})
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise http.client.HTTPException(f"status {answer.status}")


def exporter(directory: str, count: int, encoded: bool = False) -> Figures:
    material, render = _material(encoded)
    with receiver() as port:
        target = BulkExporter(
            port, render, directory=directory, name="bulk", manual_reexport=True, on_full="block", max_disk="2 GB",
            batch_records=BULK,
        )  # fmt: skip
        target.port = 9  # nobody is there
        for at in range(count):
            target.send(material[at % len(material)])
        if not target.save():
            raise RuntimeError("not saved")
        target.flush(5.0)
        target.port = port
        used, began = cpu_seconds(), time.perf_counter()
        report = target.flush(600)
        seconds, used = time.perf_counter() - began, cpu_seconds() - used
        target.close()
    if not report.complete or target.taken != count:
        raise RuntimeError(f"{target.taken} of {count} were delivered")
    return {"rate": count / seconds, "cpu": used / count * 1e6}


def client(count: int, encoded: bool = False) -> Figures:
    material, render = _material(encoded)
    with receiver() as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        used, began = cpu_seconds(), time.perf_counter()
        for first in range(0, count, BULK):
            bulk = [render(material[at % len(material)]) for at in range(first, first + BULK)]
            post(connection, b"\n".join(bulk))
        seconds, used = time.perf_counter() - began, cpu_seconds() - used
        connection.close()
    return {"rate": count / seconds, "cpu": used / count * 1e6}


def _material(encoded: bool) -> tuple[list[Any], Callable[[Any], bytes]]:
    if encoded:
        return [_json(one) for one in readings()], bytes
    return readings(), _json


@contextmanager
def receiver() -> Iterator[int]:
    """A process that takes bulks; its port."""
    process = Popen([sys.executable, "-m", "benchmarks.drain_http"], stdout=PIPE, cwd=Path(__file__).parent.parent)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


# The receiver's process:


def _serve() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)
    while True:
        threading.Thread(target=_answer, args=(server.accept()[0],), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection, connection.makefile("rb") as stream:
        while line := stream.readline():
            length = 0
            while line.strip():
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
                line = stream.readline()
            stream.read(length)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


if __name__ == "__main__":
    _serve()
