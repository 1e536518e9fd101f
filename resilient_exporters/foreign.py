r"""Values of numpy, pandas and bson in records, without importing these before one occurs.

A class is recognised by the module and name of one of its bases. What is written are *parts*, a list that the codec
encodes (``[name, …]``), and what is read back is the same value where the library is installed, else the nearest plain
value. Names in the data select from the fixed tables below and nothing else.

================ ===================================================== =======================================
value            parts                                                 without the library
================ ===================================================== =======================================
numpy array      dtype text, shape, bytes in C order                   nested lists
… of objects     "O", shape, flat list of items                        nested lists
numpy scalar     dtype text, bytes                                     int, float, bool, datetime, timedelta
numpy text       "U" or "S", the text or bytes                         str or bytes
pandas value     "Timestamp", ticks, unit[, UTC offset in us]          datetime, to the microsecond
\\                "Timedelta", ticks, unit                              timedelta, to the microsecond
\\                "NaT" / "NA"                                          None
ObjectId         (12 bytes, no list)                                   its 24 hexadecimal digits
bson value       "Int64", int                                          int
\\                "Binary", bytes, subtype                              bytes
\\                "Decimal128", 16 bytes, text                          Decimal
\\                "*", BSON document {"v": value}                       an error that names the extra
================ ===================================================== =======================================
"""

from __future__ import annotations

import functools
import importlib
import math
import reprlib
import struct
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

__all__ = [
    "Refusal",
    "bson_value",
    "number_size",
    "numpy_array",
    "numpy_scalar",
    "object_id",
    "pandas_value",
    "parts",
    "short",
]

NUMPY_ARRAY, NUMPY_SCALAR, PANDAS, OBJECT_ID, BSON = range(13, 18)


class Refusal(Exception):
    """A value cannot be kept. On its way up it collects where the value stands.

    Args:
        value: the value.
        hint: what is wrong with it, or what to send instead.
    """

    def __init__(self, value: Any, hint: str) -> None:
        super().__init__(hint)
        self.kind = type(value)
        self.hint = hint
        self.deep: Any = None
        self.steps: list[tuple[Any, str]] = []  # innermost first: the container, and the step from it

    @classmethod
    def too_deep(cls, value: Any) -> Refusal:
        """Make the refusal of a value that stands too deep, most often because it contains itself."""
        refusal = cls(value, "nested too deeply (more than 200 levels); send it flatter, or as text")
        refusal.deep = value
        return refusal

    def inside(self, container: Any, step: str) -> None:
        """Note the container that the value stands in, and the step from there to it."""
        self.steps.append((container, step))

    def text(self, root: str) -> str:
        """Return the message, with the path from ``root``."""
        steps = [step for _, step in reversed(self.steps)]
        if self.deep is not None:
            seen: dict[int, int] = {}
            for index, container in enumerate([container for container, _ in reversed(self.steps)] + [self.deep]):
                first = seen.setdefault(id(container), index)
                if first != index:
                    path, target = root + "".join(steps[:index]), root + "".join(steps[:first])
                    return f"{path}: is {target} again, a circular reference; send a copy without it"
            steps = [*steps[:3], "…", *steps[-1:]]
        module = "" if self.kind.__module__ == "builtins" else f"{self.kind.__module__}."
        name = module + self.kind.__qualname__
        return f"{root}{''.join(steps)}: cannot keep a value of type {name}: {self.hint}"


def short(value: Any) -> str:
    """Return a repr of bounded length that never raises."""
    try:
        return _repr.repr(value)
    except Exception:  # noqa: BLE001 - a class with a broken __repr__ must not hide the error that is being told
        return f"<{type(value).__name__}>"


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 60


def parts(value: Any) -> tuple[int, bytes | list[Any]] | None:
    """Return extension code and parts of a value of one of these libraries, or None for any other.

    Raises:
        Refusal: a value of theirs that cannot be kept, such as a DataFrame.
    """
    for base in type(value).__mro__:
        write = _WRITERS.get(base.__module__.partition(".")[0])
        if write is not None:
            found = write(value, base)
            if found is not None:
                return found
    return None


# -------------------------------------------------------------------------------------------------------- numpy


def _numpy_parts(value: Any, base: type) -> tuple[int, bytes | list[Any]] | None:
    name = base.__name__
    if name in ("MaskedArray", "MaskedConstant"):
        raise Refusal(value, "send array.filled(...)")
    if name == "ndarray":
        kind, dtype = value.dtype.kind, value.dtype.str
        if kind == "O":
            return NUMPY_ARRAY, ["O", list(value.shape), list(value.flat)]
        if kind not in "biufMmSU" or (kind == "f" and value.dtype.itemsize > 8):
            raise Refusal(value, _DTYPE_HINTS.get(kind, "send array.tolist()"))
        return NUMPY_ARRAY, [dtype, list(value.shape), value.tobytes()]
    if name == "str_":
        return NUMPY_SCALAR, ["U", str.__str__(value)]
    if name == "bytes_":
        return NUMPY_SCALAR, ["S", bytes(value)]
    if name == "generic":
        kind, dtype = value.dtype.kind, value.dtype.str
        if kind not in "biufMm" or (kind == "f" and value.dtype.itemsize > 8):
            raise Refusal(value, _DTYPE_HINTS.get(kind, "send value.item()"))
        return NUMPY_SCALAR, [dtype, value.tobytes()]
    return None


def number_size(value: Any) -> int:
    """Bytes of a numpy scalar of one of numpy's own types of numbers; 0 where the type alone does not say its dtype."""
    dtype, kind = value.dtype, type(value)
    return int(dtype.itemsize) if dtype.kind in "biuf" and dtype.type is kind and kind.__module__ == "numpy" else 0


_DTYPE_HINTS: Final = {
    "c": "send its real and imag parts",
    "f": "send .astype(float) of it",
    "V": "send .tolist() of it",
}


def numpy_array(content: list[Any]) -> Any:
    """Restore an array from its parts; nested lists where numpy is not installed."""
    dtype, shape, data = content
    numpy = _module("numpy")
    if numpy is None:
        return _nested(data if dtype == "O" else _plain_items(dtype, data), shape)
    if dtype == "O":
        array = numpy.empty(len(data), object)
        for index, item in enumerate(data):  # not array[:] = data, which would unpack items that are lists
            array[index] = item
        return array.reshape(shape)
    kind = _dtype(dtype)
    if len(data) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"an array of shape {shape} and dtype {dtype} does not have {len(data)} bytes")
    array = numpy.empty(shape, kind)
    if data:
        array.reshape(-1).view(numpy.uint8)[:] = numpy.frombuffer(data, numpy.uint8)
    return array


def numpy_scalar(content: list[Any]) -> Any:
    """Restore a numpy scalar from its parts; a Python scalar where numpy is not installed."""
    dtype, data = content
    numpy = _module("numpy")
    if numpy is None:
        return data if dtype in ("U", "S") else _plain_items(dtype, data)[0]
    if dtype == "U":
        return numpy.str_(data)
    if dtype == "S":
        return numpy.bytes_(data)
    return numpy.frombuffer(data, _dtype(dtype))[0]


def _dtype(text: str) -> Any:
    if text[1:2] not in "biufMmSU":
        raise ValueError(f"dtype {text!r} is not known to this format")
    numpy = _module("numpy")
    return numpy.dtype(text)


def _nested(items: list[Any], shape: list[int]) -> Any:
    """Give a flat list the shape of an array; one of no dimensions is its only item."""
    if not shape:
        return items[0]
    if len(shape) == 1:
        return list(items)
    size = math.prod(shape[1:])
    return [_nested(items[index * size : (index + 1) * size], shape[1:]) for index in range(shape[0])]


_STRUCT_CODES: Final = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
    "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip


def _plain_items(dtype: str, data: bytes) -> list[Any]:
    """Read an array's bytes without numpy."""
    order, kind = "<" if dtype[0] == "|" else dtype[0], dtype[1]
    if kind in "SU":
        size = int(dtype[2:]) * (4 if kind == "U" else 1)
        pieces = [data[start : start + size] for start in range(0, len(data), size)] if size else []
        if kind == "S":
            return [piece.rstrip(b"\0") for piece in pieces]
        codec = "utf-32-le" if order == "<" else "utf-32-be"
        return [piece.decode(codec, "surrogatepass").rstrip("\0") for piece in pieces]
    code = "q" if kind in "Mm" else _STRUCT_CODES[dtype[1:]]
    numbers: list[Any] = list(struct.unpack(f"{order}{len(data) // struct.calcsize('<' + code)}{code}", data))
    if kind not in "Mm":
        return numbers
    unit = dtype[4:-1] if "[" in dtype else ""
    restore = _moment if kind == "M" else _span
    return [restore(number, unit) for number in numbers]


# ------------------------------------------------------------------------------------------------------- pandas


def _pandas_parts(value: Any, base: type) -> tuple[int, bytes | list[Any]] | None:
    name = base.__name__
    if name in ("Timestamp", "Timedelta"):
        ticks, unit = int(value.asm8.view("i8")), str(value.asm8.dtype)[:-1].partition("[")[2]
        offset = value.utcoffset() if name == "Timestamp" else None
        return PANDAS, [name, ticks, unit, *([] if offset is None else [offset // timedelta(microseconds=1)])]
    if name == "NaTType":
        return PANDAS, ["NaT"]
    if name == "NAType":
        return PANDAS, ["NA"]
    if name in _PANDAS_HINTS:
        raise Refusal(value, _PANDAS_HINTS[name])
    return None


_PANDAS_HINTS: Final = {
    "DataFrame": "send df.to_dict('records'), a list of many records",
    "Series": "send series.to_dict() or series.tolist()",
    "Index": "send index.tolist()",
    "ExtensionArray": "send array.tolist()",
    "Period": "send period.to_timestamp() or str(period)",
    "Interval": "send [interval.left, interval.right]",
}


def pandas_value(content: list[Any]) -> Any:
    """Restore a pandas scalar; a datetime, timedelta or None where pandas is not installed."""
    name, *rest = content
    pandas = _module("pandas")
    if name in ("NaT", "NA"):
        return None if pandas is None else getattr(pandas, name)
    if name not in ("Timestamp", "Timedelta"):
        raise ValueError(f"pandas value {name!r} is not known to this format")
    ticks, unit = rest[:2]
    zone = timezone(timedelta(microseconds=rest[2])) if len(rest) > 2 else None
    if pandas is None:
        plain = (_moment if name == "Timestamp" else _span)(ticks, unit)
        return plain.replace(tzinfo=timezone.utc).astimezone(zone) if zone and isinstance(plain, datetime) else plain
    numpy = _module("numpy")
    if name == "Timedelta":
        return pandas.Timedelta(numpy.timedelta64(ticks, unit))
    moment = pandas.Timestamp(numpy.datetime64(ticks, unit))
    return moment if zone is None else moment.tz_localize("UTC").tz_convert(zone)


# --------------------------------------------------------------------------------------------------------- bson


def _bson_parts(value: Any, base: type) -> tuple[int, bytes | list[Any]] | None:
    name = base.__name__
    if name == "ObjectId":
        return OBJECT_ID, value.binary
    if name == "Int64":
        return BSON, [name, int(value)]
    if name == "Binary":
        return BSON, [name, bytes(value), value.subtype]
    if name == "Decimal128":
        return BSON, [name, value.bid, str(value)]
    if name in ("Regex", "Code", "Timestamp", "MinKey", "MaxKey", "DBRef", "DatetimeMS"):
        return BSON, ["*", importlib.import_module("bson").encode({"v": value})]
    return None


def object_id(data: bytes) -> Any:
    """Restore an ObjectId; its hexadecimal text where bson is not installed."""
    bson = _module("bson")
    return data.hex() if bson is None else bson.ObjectId(data)


def bson_value(content: list[Any]) -> Any:
    """Restore a value of bson; a plain one where it is not installed.

    Raises:
        ValueError: it has no plain counterpart and bson is not installed.
    """
    name, data, *rest = content
    bson = _module("bson")
    if name == "Int64":
        return data if bson is None else bson.Int64(data)
    if name == "Binary":
        return data if bson is None else bson.Binary(data, rest[0])
    if name == "Decimal128":
        return Decimal(rest[0]) if bson is None else bson.Decimal128.from_bid(data)
    if name != "*":
        raise ValueError(f"bson value {name!r} is not known to this format")
    if bson is None:
        raise ValueError("a bson value without a plain counterpart; pip install resilient-exporters[mongodb]")
    options = importlib.import_module("bson.codec_options")
    kept = options.CodecOptions(datetime_conversion=options.DatetimeConversion.DATETIME_MS)
    return bson.decode(data, kept)["v"]


# ------------------------------------------------------------------------------------------------------ helpers

_WRITERS: Final[dict[str, Callable[[Any, type], tuple[int, bytes | list[Any]] | None]]] = {
    "numpy": _numpy_parts,
    "pandas": _pandas_parts,
    "bson": _bson_parts,
}

_NOT_A_TIME: Final = -(2**63)
_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9, "ps": 10**12, "fs": 10**15, "as": 10**18}
_SECONDS: Final = {"W": 604_800, "D": 86_400, "h": 3600, "m": 60}


def _span(ticks: int, unit: str) -> timedelta | int | None:
    """Return ticks of a numpy time unit as a timedelta, cut to microseconds; as they are where that cannot be."""
    if ticks == _NOT_A_TIME:
        return None
    digits = len(unit) - len(unit.lstrip("0123456789"))
    ticks, unit = ticks * int(unit[:digits] or 1), unit[digits:]
    try:
        if unit in _SECONDS:
            return timedelta(seconds=ticks * _SECONDS[unit])
        return timedelta(microseconds=ticks * 10**6 // _PER_SECOND[unit])
    except (KeyError, OverflowError):  # years, months, no unit; or outside what timedelta holds
        return ticks


def _moment(ticks: int, unit: str) -> datetime | int | None:
    """Return a numpy datetime as a datetime, cut to microseconds; its ticks where that cannot be."""
    if unit in ("Y", "M") and ticks != _NOT_A_TIME:
        months = ticks * 12 if unit == "Y" else ticks
        year, month = 1970 + months // 12, months % 12 + 1
        return datetime(year, month, 1) if 1 <= year <= 9999 else ticks  # noqa: DTZ001 - numpy's are naive
    span = _span(ticks, unit)
    if not isinstance(span, timedelta):
        return span
    try:
        return datetime(1970, 1, 1) + span  # noqa: DTZ001 - numpy's are naive
    except OverflowError:
        return ticks


@functools.cache
def _module(name: str) -> Any:
    """Import an optional library once; None if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
