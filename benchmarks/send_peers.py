"""How long does handing over a record keep the caller elsewhere: other queues, and the clients of other systems?"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec

from benchmarks.call_time import WARM, time_calls
from benchmarks.durable_peers import installed
from benchmarks.harness import Bench, Figures, column
from benchmarks.material import Target
from benchmarks.send import consume, exporter, records_of
from benchmarks.sinks import HOST, dead_port, mosquitto, mosquitto_program, yes_man

#: Whether the other end takes what it gets, and seconds from one record to the next.
STATES: dict[str, dict[str, Any]] = {
    "healthy, 1 per ms": {"taken": True, "pause": 0.001, "count": 1_200},
    "healthy, burst": {"taken": True, "pause": 0.0, "count": 20_000},
    "healthy, burst, 4 threads": {"taken": True, "pause": 0.0, "count": 20_000, "threads": 4},
    "target away": {"taken": False, "pause": 0.0, "count": 20_000},
}
_OTEL = "OpenTelemetry emit"
#: What stands beside ``send``, and the module that it needs.
PEERS = {
    "SimpleQueue.put": "queue",
    "QueueHandler": "logging.handlers",
    "ThreadPoolExecutor.submit": "concurrent.futures",
    _OTEL: "opentelemetry.exporter.otlp.proto.http._log_exporter",
    f"{_OTEL}, attributes": "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "paho-mqtt publish": "paho.mqtt.client",
    "confluent-kafka produce": "confluent_kafka",
}
_OFFERED_BYTES = ("paho-mqtt publish", "confluent-kafka produce")
_QUICK = ("SimpleQueue.put", "QueueHandler", "ThreadPoolExecutor.submit", f"{_OTEL}, attributes")
"""Measured in the burst only: at other speeds they are as dear, and the time is better spent on repeats."""


def run(bench: Bench) -> None:
    peers = [name for name, module in PEERS.items() if installed(module)]
    for name in sorted(set(PEERS) - set(peers)):
        bench.note(f"NOT MEASURED: {name}: not installed; `make bench` does it")
    broker = mosquitto_program() is not None
    if not broker:
        bench.note("NOT MEASURED: paho-mqtt with its broker there: mosquitto is not installed (make servers)")
    for state in ("healthy, burst", "target away") if bench.smoke else tuple(STATES):
        options = STATES[state]
        given = {**options, "count": bench.size(options["count"], 200)}
        there = [name for name in peers if name not in _QUICK or state == "healthy, burst"]
        if options["taken"] and not broker:
            there = [name for name in there if name != "paho-mqtt publish"]
        cases: dict[str, tuple[Callable[..., Figures], dict[str, Any]]] = {f"send, {state}": (exporter, given)}
        cases.update({f"{name}, {state}": (peer, {**given, "name": name}) for name in there})
        found = bench.measure(cases, repeats=3)
        _rows(bench, state, found, there)
    given = {**STATES["target away"], "count": bench.size(20_000, 200), "kind": "bytes"}
    there = [name for name in _OFFERED_BYTES if name in peers]
    cases = {"send, bytes": (our_bytes, {"count": given["count"]})}
    cases.update({f"{name}, bytes": (peer, {**given, "name": name}) for name in there})
    _rows(bench, "bytes", bench.measure(cases, repeats=3), there)
    for text in (
        "the same loop, clock and records for all, as in `send`; a queue that holds all of them; QoS 1",
        "OpenTelemetry: BatchLogRecordProcessor, OTLP/HTTP; the record is the body, or its fields are the attributes;",
        "it keeps a reference and encodes later, send encodes at once: the record may change afterwards",
        "paho-mqtt and confluent-kafka take bytes: msgspec's JSON encoder is part of their call; not so in `bytes`",
        "confluent-kafka is a C library; its broker is librdkafka's own mock, in the same process; nothing polls",
        "in the burst only: SimpleQueue.put, QueueHandler, ThreadPoolExecutor.submit, OpenTelemetry with attributes",
    ):
        bench.note(text)


def _rows(bench: Bench, state: str, found: dict[str, list[Figures]], peers: list[str]) -> None:
    ours = found[f"send, {state}"]
    for name in peers:
        theirs = found[f"{name}, {state}"]
        goal = 1 / 6 if name.startswith(_OTEL) else None
        bench.row(
            f"{state}: p50", column(ours, "p50"), "us", beside=(name, column(theirs, "p50")), most=goal, of="ratio"
        )
        # p99 and the maximum are in the file.
        bench.row(f"{state}: p99.9", column(ours, "p99.9"), "us", beside=(name, column(theirs, "p99.9")))


# In a process of their own:


def our_bytes(directory: str, count: int) -> Figures:
    target = Target(directory, up=False)
    figures = time_calls(target.send, records_of("bytes"), count)
    target.close(0.0)
    return figures


def peer(name: str, count: int, taken: bool, pause: float, threads: int = 1, kind: str = "12 fields") -> Figures:
    """One peer, with its other end there or away."""
    openers: dict[str, Callable[..., Any]] = {
        "SimpleQueue.put": _simple_queue,
        "QueueHandler": _queue_handler,
        "ThreadPoolExecutor.submit": _pool,
        _OTEL: _opentelemetry,
        f"{_OTEL}, attributes": partial(_opentelemetry, attributes=True),
        "paho-mqtt publish": _paho,
        "confluent-kafka produce": _kafka,
    }
    encode = bytes if kind == "bytes" else msgspec.json.Encoder().encode
    with openers[name](taken, count + WARM, encode) as call:
        return time_calls(call, records_of(kind), count, pause=pause, threads=threads)


Call = Callable[[Any], Any]


@contextmanager
def _simple_queue(taken: bool, room: int, encode: Call) -> Iterator[Call]:  # noqa: ARG001 - it has no bound
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    if taken:
        consume(waiting.get)
    yield waiting.put


@contextmanager
def _queue_handler(taken: bool, room: int, encode: Call) -> Iterator[Call]:  # noqa: ARG001 - it has no bound
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    logging.disable(logging.NOTSET)
    log = logging.getLogger("bench")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(logging.handlers.QueueHandler(waiting))
    if taken:
        consume(waiting.get)
    yield partial(log.info, "%s")


@contextmanager
def _pool(taken: bool, room: int, encode: Call) -> Iterator[Call]:  # noqa: ARG001 - it has no bound
    going = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        if taken:
            going.set()
        pool.submit(going.wait)
        submit = pool.submit
        yield lambda data: submit(id, data)
        going.set()


@contextmanager
def _opentelemetry(taken: bool, room: int, encode: Call, attributes: bool = False) -> Iterator[Call]:  # noqa: ARG001 - it encodes later
    from opentelemetry._logs import SeverityNumber
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    with yes_man() if taken else dead_port() as port:
        provider = LoggerProvider(shutdown_on_exit=False)  # the records of a dead target would hold it for ten seconds
        exporter = OTLPLogExporter(endpoint=f"http://{HOST}:{port}/v1/logs")
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter, max_queue_size=2 * room))
        emit, info = provider.get_logger("bench").emit, SeverityNumber.INFO
        if attributes:
            yield lambda data: emit(severity_number=info, body="reading", attributes=data)
        else:
            yield lambda data: emit(severity_number=info, body=data)


@contextmanager
def _paho(taken: bool, room: int, encode: Call) -> Iterator[Call]:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

    there = threading.Event()
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda *_: there.set()
    if room > 60_000:
        raise ValueError(f"{room} messages: an MQTT client can hold 65,535 at a time")
    with mosquitto() if taken else dead_port() as port:
        client.connect_async(HOST, port)
        client.loop_start()
        if taken and not there.wait(20):
            raise TimeoutError("no connection to the broker")
        publish = client.publish
        yield lambda data: publish("bench", encode(data), 1)
        if publish("bench", b"last", 1).rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            raise RuntimeError("messages were refused")
        client.disconnect()
        client.loop_stop()


@contextmanager
def _kafka(taken: bool, room: int, encode: Call) -> Iterator[Call]:
    from confluent_kafka import Producer

    with dead_port() as port:
        there = {"test.mock.num.brokers": 1} if taken else {"bootstrap.servers": f"{HOST}:{port}"}
        producer = Producer({**there, "queue.buffering.max.messages": 2 * room, "log_level": 0})
        produce = producer.produce
        yield lambda data: produce("bench", encode(data))
        if taken and producer.flush(60):
            raise RuntimeError("the broker did not take everything")
        if not taken and len(producer) < room:
            raise RuntimeError(f"{len(producer)} of {room} messages wait")
        producer.purge()
