"""The codec's single values: texts and ints that MessagePack cannot hold, moments, Decimal, UUID.

The payloads are described in the table of :mod:`resilient_exporters.codec`. Each function that writes takes the value
and, as all of the codec's, the depth and the types that may stay as they are, which single values do not need.
"""

from __future__ import annotations

import functools
import struct
import uuid
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

import msgspec

from resilient_exporters.foreign import Refusal

__all__ = ["EXACT", "READERS", "SUBCLASSES"]

BIG_INT, TEXT = 1, 2
DATETIME, DATE, TIME, TIMEDELTA, DECIMAL, UUID = range(7, 13)

_Ext = msgspec.msgpack.Ext

_NAIVE: Final = struct.Struct(">HBBBBBIB")
_AWARE: Final = struct.Struct(">HBBBBBIBq")
_CLOCK: Final = struct.Struct(">BBBIB")
_AWARE_CLOCK: Final = struct.Struct(">BBBIBq")
_DAY: Final = struct.Struct(">HBB")
_SPAN: Final = struct.Struct(">iII")
_MICROSECOND: Final = timedelta(microseconds=1)


def _text(value: str, _depth: int, _plain: frozenset[type]) -> Any:
    try:
        value.encode()
    except UnicodeEncodeError:
        return _Ext(TEXT, value.encode("utf-8", "surrogatepass"))
    return value


def _int(value: int, _depth: int, _plain: frozenset[type]) -> Any:
    if -(2**63) <= value < 2**64:
        return value
    return _Ext(BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _bytearray(value: bytearray, _depth: int, _plain: frozenset[type]) -> Any:
    return bytes(value)


def _memoryview(value: memoryview, _depth: int, _plain: frozenset[type]) -> Any:
    return value.tobytes()


def _datetime(v: datetime, _depth: int, _plain: frozenset[type]) -> Any:
    offset = _offset(v)
    if offset is None:
        return _Ext(DATETIME, _NAIVE.pack(v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond, v.fold))
    fields = (v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond, v.fold, offset)
    return _Ext(DATETIME, _AWARE.pack(*fields))


def _time(v: time, _depth: int, _plain: frozenset[type]) -> Any:
    offset = _offset(v)
    if offset is None:
        return _Ext(TIME, _CLOCK.pack(v.hour, v.minute, v.second, v.microsecond, v.fold))
    return _Ext(TIME, _AWARE_CLOCK.pack(v.hour, v.minute, v.second, v.microsecond, v.fold, offset))


def _offset(value: datetime | time) -> int | None:
    """Return the UTC offset in microseconds; None for a naive value and for a time whose zone needs the date."""
    zone = value.tzinfo
    if zone is None:
        return None
    if zone is timezone.utc:
        return 0
    try:
        offset = value.utcoffset()
    except Exception as error:
        raise Refusal(value, f"its time zone raised {type(error).__name__}: {error}") from error
    return None if offset is None else offset // _MICROSECOND


def _date(value: date, _depth: int, _plain: frozenset[type]) -> Any:
    return _Ext(DATE, _DAY.pack(value.year, value.month, value.day))


def _timedelta(value: timedelta, _depth: int, _plain: frozenset[type]) -> Any:
    # A subclass may give days another meaning (pendulum counts weeks apart); the base's own are the truth.
    days, seconds, microseconds = (part.__get__(value) for part in _SPAN_PARTS)
    return _Ext(TIMEDELTA, _SPAN.pack(days, seconds, microseconds))


_SPAN_PARTS: Final[tuple[Any, ...]] = (timedelta.days, timedelta.seconds, timedelta.microseconds)


def _decimal(value: Decimal, _depth: int, _plain: frozenset[type]) -> Any:
    return _Ext(DECIMAL, Decimal.__str__(value).encode())


def _uuid(value: uuid.UUID, _depth: int, _plain: frozenset[type]) -> Any:
    return _Ext(UUID, value.bytes)


def _read_datetime(data: memoryview) -> datetime:
    if len(data) == _NAIVE.size:
        year, month, day, hour, minute, second, microsecond, fold = _NAIVE.unpack(data)
        return datetime(year, month, day, hour, minute, second, microsecond, fold=fold)  # noqa: DTZ001 - sent naive
    year, month, day, hour, minute, second, microsecond, fold, offset = _AWARE.unpack(data)
    return datetime(year, month, day, hour, minute, second, microsecond, _zone(offset), fold=fold)


def _read_time(data: memoryview) -> time:
    if len(data) == _CLOCK.size:
        hour, minute, second, microsecond, fold = _CLOCK.unpack(data)
        return time(hour, minute, second, microsecond, fold=fold)
    hour, minute, second, microsecond, fold, offset = _AWARE_CLOCK.unpack(data)
    return time(hour, minute, second, microsecond, _zone(offset), fold=fold)


@functools.lru_cache(maxsize=128)
def _zone(offset: int) -> timezone:
    return timezone(timedelta(microseconds=offset))


#: What writes a value of exactly this type.
EXACT: Final[dict[type, Callable[[Any, int, frozenset[type]], Any]]] = {
    str: _text,
    int: _int,
    bytearray: _bytearray,
    memoryview: _memoryview,
    datetime: _datetime,
    date: _date,
    time: _time,
    timedelta: _timedelta,
    Decimal: _decimal,
    uuid.UUID: _uuid,
}

#: What writes a value of a subclass, to be tried in this order (a datetime is a date).
SUBCLASSES: Final[tuple[tuple[type, Callable[[Any, int, frozenset[type]], Any]], ...]] = (
    (datetime, _datetime),
    (date, _date),
    (time, _time),
    (timedelta, _timedelta),
    (Decimal, _decimal),
    (uuid.UUID, _uuid),
)

#: What reads the payload of an extension code.
READERS: Final[dict[int, Callable[[memoryview], Any]]] = {
    BIG_INT: lambda data: int.from_bytes(data, "big", signed=True),
    TEXT: lambda data: str(data, "utf-8", "surrogatepass"),
    DATETIME: _read_datetime,
    DATE: lambda data: date(*_DAY.unpack(data)),
    TIME: _read_time,
    TIMEDELTA: lambda data: timedelta(*_SPAN.unpack(data)),
    DECIMAL: lambda data: Decimal(str(data, "ascii")),
    UUID: lambda data: uuid.UUID(bytes=bytes(data)),
}
