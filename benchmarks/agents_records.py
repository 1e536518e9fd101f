"""The records of the comparison with the agents, as each of them takes them, and the way back from what is posted.

Record ``n`` is a reading of ``material`` with ``n`` as its ``seq``: 200 bytes of JSON. What arrives is compared with
it byte for byte.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import msgspec

from benchmarks.material import readings

__all__ = ["BULK", "bulks", "lines", "record", "stream", "texts"]

BULK = 500
_HEADER = b"<134>1 - - - - - - "  # what rsyslog needs to take the rest as it is
_encode = msgspec.json.Encoder().encode


@functools.cache
def material() -> list[dict[str, Any]]:
    return readings()


def record(number: int) -> bytes:
    """One of them, as JSON."""
    found = material()
    return _encode({**found[number % len(found)], "seq": number})


def lines(first: int, count: int) -> Iterator[bytes]:
    """Consecutive ones as a stream of lines."""
    return (record(number) + b"\n" for number in range(first, first + count))


def stream(first: int, count: int, *, header: bool) -> tuple[bytes, list[int]]:
    """The same in one piece, with the position of the end of each."""
    front = _HEADER if header else b""
    parts = [front + line for line in lines(first, count)]
    return b"".join(parts), list(itertools.accumulate(map(len, parts)))


def bulks(first: int, count: int) -> list[bytes]:
    """Bodies of OTLP requests with 500 log records each, whose body is the JSON.

    Field numbers from opentelemetry/proto/logs/v1/logs.proto.
    """
    found = []
    for start in range(first, first + count, BULK):
        logs = []
        for number in range(start, min(start + BULK, first + count)):
            body = _field(5, _field(1, record(number)))  # LogRecord.body, AnyValue.string_value
            logs.append(_field(2, b"\x09" + (1_760_000_000_000_000_000 + number).to_bytes(8, "little") + body))
        found.append(_field(1, _field(2, b"".join(logs))))  # ResourceLogs, ScopeLogs
    return found


def texts(kind: str, body: bytes) -> Iterator[bytes]:
    """What claims to be a record in a request, whatever became of it on the way."""
    if "protobuf" not in kind:
        yield from (line for line in body.split(b"\n") if line and not line.startswith(b'{"index":'))
        return
    for resource in _values(1, body):
        for scope in _values(2, resource):
            for log in _values(2, scope):
                for value in _values(5, log):
                    yield from _values(1, value)


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _values(wanted: int, message: bytes) -> Iterator[bytes]:
    """The length-delimited fields of a number; the others are skipped by their wire type."""
    at = 0
    while at < len(message):
        tag, at = _read(message, at)
        if tag & 7 == 2:
            size, at = _read(message, at)
            if tag >> 3 == wanted:
                yield message[at : at + size]
            at += size
        elif tag & 7 == 0:
            _, at = _read(message, at)
        else:
            at += 8 if tag & 7 == 1 else 4


def _read(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value, at
