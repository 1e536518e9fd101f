"""How a value is handed to a driver so that the column gives back the same value."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
import math
import re
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from resilient_exporters.errors import DataTypeError
from resilient_exporters.exporters.sql_check import PLAIN, PLAIN_SQLITE, exact
from resilient_exporters.exporters.sql_columns import plain

__all__ = ["ColumnCodec", "Nan", "dump_json", "json_numbers"]

Nan = Literal["null", "text", "reject"]
_NONE: Final = type(None)


class ColumnCodec:
    """Values of one column, ready to be bound.

    Works on a whole column at a time: where every value is of a type that the driver binds as it is, nothing is
    touched, and the check costs 20 ns a value.

    Args:
        name: column name, for messages.
        kind: type of the column, as the database reports it.
        dialect: SQLAlchemy dialect; its bind processors are used for all but SQLite, whose own forms are written here.
        nan: what becomes of NaN where the database has none, and of infinities on MySQL and SQL Server.
    """

    __slots__ = ("_convert", "_process", "_safe", "family", "name", "nan", "shown", "sqlite")

    def __init__(self, name: str, kind: TypeEngine[Any], dialect: Dialect, nan: Nan = "null") -> None:
        self.name = name
        self.nan = nan
        self.sqlite = dialect.name == "sqlite"
        self.family = _family(kind)
        self.shown = _shown(kind, dialect)
        self._process: Callable[[Any], Any] | None = None
        if not self.sqlite and self.family != "json":  # JSON text is made here, also for values json.dumps refuses
            self._process = kind.dialect_impl(dialect).bind_processor(dialect)
        # SQLite binds NaN as NULL, which is what "null" asks for.
        has_nan = dialect.name in {"postgresql", "cockroachdb"} or (self.sqlite and nan == "null")
        safe = (_SAFE_SQLITE if self.sqlite else _SAFE).get(self.family, frozenset())
        self._safe = frozenset({_NONE}) if self._process else (safe if has_nan else safe - {float}) | {_NONE}
        naive = not self.sqlite and self.family == "datetime" and not getattr(kind, "timezone", True)
        convert = _CONVERT.get(self.family, _any)
        self._convert = _datetime_utc if naive else convert

    def column(self, values: Sequence[Any]) -> Sequence[Any]:
        """All values of a batch.

        Raises:
            DataTypeError: one of them does not fit; ask `one` for each to find which.
        """
        types = set(map(type, values)) - {_NONE}
        if types <= self._safe or self._plain(types, values):
            return values
        if types == {bool} and self.family == "int" and not self.sqlite and self._process is None:
            return [None if value is None else int(value) for value in values]
        return [self.one(value) for value in values]

    def _plain(self, types: set[type], values: Sequence[Any]) -> bool:
        """Whether numbers are within what the column and its database can hold: then they stay as they are."""
        if self.sqlite or self._process is not None or len(types) != 1:
            return False
        given = values if None not in values else [value for value in values if value is not None]
        if types == {int} and self.family == "int":
            return bool(min(given) >= -(2**63) and max(given) < 2**63)
        return types == {float} and self.family == "float" and all(map(math.isfinite, given))

    def plain_kind(self) -> Any:
        """What a column of values that need nothing done is made of, as a type for msgspec; None: not to be told so.

        `column` returns such values as they are, if `sound` says yes as well.
        """
        if self._process is not None:
            return None
        if self.sqlite:
            return PLAIN_SQLITE.get(self.family) if self.nan == "null" else None
        return PLAIN.get(self.family)

    def sound(self, values: Sequence[Any]) -> bool:
        """What `plain_kind` cannot tell: for msgspec an enumeration of texts is text, and a Decimal is a float."""
        return exact(self.family, values)

    def one(self, value: Any) -> Any:
        """One value.

        Raises:
            DataTypeError: it would be altered, or cannot be held; names column, its type and the value's type.
        """
        if type(value) in self._safe:
            return value
        value = plain(value)
        if isinstance(value, float) and not math.isfinite(value):
            value = self.not_finite(value)
        if value is None:
            return None
        value = self._convert(self, value)
        return value if self._process is None else self._process(value)

    def refuse(self, value: Any, why: str) -> DataTypeError:
        """The error for a value that this column cannot hold."""
        what = type(value).__name__
        return DataTypeError(None, f"column {self.name!r} ({self.shown}) cannot hold this {what}: {why}")

    def not_finite(self, value: float) -> Any:
        """What becomes of NaN or an infinity.

        Raises:
            DataTypeError: the database has it not, and ``nan`` says so.
        """
        if self.family in {"json", "text"} or float in self._safe:
            return value
        if self.sqlite and not math.isnan(value):
            return value  # SQLite holds infinities
        if self.nan == "null":
            return None
        if self.nan == "text" and (self.sqlite or self.family == "any"):
            return "NaN"
        raise self.refuse(value, f"{value} has no form here; nan='null' stores NULL")


def json_numbers(values: Sequence[float]) -> list[str]:
    """Texts of ints, or of floats: the shortest that are exact, at a fifth of the time of ``repr``.

    NaN and infinities are "null".

    Raises:
        OverflowError: an int beyond 64 bits.
    """
    return _numbers(values)[1:-1].decode().split(",") if values else []


_numbers: Final = msgspec.json.Encoder().encode


def _family(kind: TypeEngine[Any]) -> str:
    for classes, family in _FAMILIES:
        if isinstance(kind, classes):
            return family
    return "any"


_FAMILIES: Final[tuple[tuple[tuple[Any, ...], str], ...]] = (
    ((sa.JSON,), "json"),
    ((sa.Uuid,), "uuid"),
    ((sa.Boolean,), "bool"),
    ((sa.Interval,), "interval"),
    ((sa.Integer,), "int"),
    ((sa.Float,), "float"),
    ((sa.Numeric,), "numeric"),
    ((sa.LargeBinary, sa.BINARY, sa.VARBINARY), "binary"),
    ((sa.DateTime,), "datetime"),
    ((sa.Date,), "date"),
    ((sa.Time,), "time"),
    ((sa.ARRAY,), "array"),
    ((sa.String,), "text"),
)

# What a driver binds as it is. SQLite keeps a blob in any column, and a number in any but a text column.
_NUMBERS: Final[frozenset[type]] = frozenset({int, float, bool, bytes})
_SAFE_SQLITE: Final[dict[str, frozenset[type]]] = {
    "int": _NUMBERS,
    "bool": _NUMBERS,
    "numeric": _NUMBERS,
    "float": _NUMBERS - {int},
    "datetime": frozenset({bytes}),
    "date": frozenset({bytes}),
    "time": frozenset({bytes}),
    "interval": frozenset({bytes}),
    "text": frozenset({str, bytes}),
    "binary": _NUMBERS | {str},
    "any": _NUMBERS | {str},
    "uuid": frozenset({str, bytes}),
}
_SAFE: Final[dict[str, frozenset[type]]] = {
    "bool": frozenset({bool}),
    "float": frozenset({float}),
    "numeric": frozenset({decimal.Decimal}),
    "text": frozenset({str}),
    "binary": frozenset({bytes}),
    "date": frozenset({str}),
    "time": frozenset({str, dt.time}),
    "interval": frozenset({str, dt.timedelta}),
    "array": frozenset({list}),
}


# --- conversions: (codec, plain value that is not None) -> value for the driver


def _number(codec: ColumnCodec, value: Any) -> Any:
    """For whole, floating and exact numbers: the number itself or nothing, never a neighbour of it."""
    if isinstance(value, str):
        return _sqlite_text(codec, value) if codec.sqlite else value
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, dt.timedelta) and codec.family != "int":
        value = value.total_seconds()
    if isinstance(value, decimal.Decimal) and not value.is_finite() and (codec.sqlite or codec.family != "numeric"):
        return codec.not_finite(math.nan if value.is_nan() else float(value))
    if isinstance(value, int | float | decimal.Decimal):
        return _NUMBER[codec.family](codec, value)
    if codec.sqlite:
        return _text(codec, value)  # not the form of a number, so that it stays as it is
    raise codec.refuse(value, "not a number")


def _whole(codec: ColumnCodec, value: float | decimal.Decimal) -> Any:
    if value != (value.to_integral_value() if isinstance(value, decimal.Decimal) else value // 1):
        if codec.sqlite:
            return _float(codec, value)  # SQLite keeps a fraction in such a column
        raise codec.refuse(value, "it has a fraction, which a column of whole numbers would round away")
    if isinstance(value, float) and codec.sqlite:
        return value
    if -(2**63) <= value < 2**63:
        return int(value)
    raise codec.refuse(value, "beyond 64 bits; make the column TEXT (or NUMERIC on PostgreSQL)")


def _exact(codec: ColumnCodec, value: float | decimal.Decimal) -> Any:
    if codec.sqlite:  # NUMERIC is a whole number or a double there
        return _whole(codec, value)
    return decimal.Decimal(repr(value)) if isinstance(value, float) else value


def _float(codec: ColumnCodec, value: float | decimal.Decimal) -> float:
    if isinstance(value, float):
        return value
    try:
        near = float(value)
    except OverflowError:
        near = math.inf
    if decimal.Decimal(repr(near)) == value or near == value:
        return near
    raise codec.refuse(value, "a double has not enough digits for it; make the column TEXT")


_NUMBER: Final[dict[str, Callable[[ColumnCodec, Any], Any]]] = {
    "int": _whole, "bool": _whole, "interval": _float, "float": _float, "numeric": _exact,
}  # fmt: skip

_LITERAL: Final = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_CANONICAL: Final = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


def _sqlite_text(codec: ColumnCodec, value: str) -> Any:
    """A text for a column in which SQLite makes numbers of texts: only if the number says the same."""
    if not _LITERAL.fullmatch(value):
        return value  # SQLite keeps it as it is
    if _CANONICAL.fullmatch(value):
        exact = decimal.Decimal(value)
        if exact == exact.to_integral_value() and -(2**63) <= exact < 2**63:
            return int(exact)
        if exact == decimal.Decimal(repr(float(exact))):
            return float(exact)
    raise codec.refuse(value, "SQLite would turn it into a number that does not say the same; make the column TEXT")


def _bool(codec: ColumnCodec, value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if codec.sqlite:
        return _number(codec, value)
    if isinstance(value, int | float | decimal.Decimal) and value in (0, 1):
        return bool(value)
    raise codec.refuse(value, "neither true nor false")


def _text(codec: ColumnCodec, value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        if codec.sqlite:
            return value
        raise codec.refuse(value, "bytes are no text; make it a binary column")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int | decimal.Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, dt.datetime):
        return value.isoformat(" ", "microseconds")
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, dt.time):
        return value.isoformat("microseconds")
    if isinstance(value, dt.timedelta):
        return repr(value.total_seconds())
    return dump_json(value, codec.nan)


def _binary(codec: ColumnCodec, value: Any) -> Any:
    if isinstance(value, bytes):
        return value
    if codec.sqlite:
        return _any(codec, value)
    raise codec.refuse(value, "not bytes")


def _datetime(codec: ColumnCodec, value: Any) -> Any:
    if not codec.sqlite:
        return value
    if isinstance(value, str):
        return _sqlite_text(codec, value)
    return value if isinstance(value, int | float) else _text(codec, value)


def _datetime_utc(_: ColumnCodec, value: Any) -> Any:
    """For a column without time zone: the same instant in UTC; the offset alone would be cut off silently."""
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.astimezone(dt.timezone.utc).replace(tzinfo=None)
    return value


def _interval(codec: ColumnCodec, value: Any) -> Any:
    if codec.sqlite:
        return _number(codec, value)
    return value


def _json(codec: ColumnCodec, value: Any) -> str:
    if codec.sqlite and isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise codec.refuse(value, "SQLite would make a double of it; make the column TEXT")
    return dump_json(value, codec.nan)


def _uuid(codec: ColumnCodec, value: Any) -> Any:
    if codec.sqlite:
        return _text(codec, value)
    try:
        return value if isinstance(value, uuid.UUID) else uuid.UUID(str(value))
    except ValueError as error:
        raise codec.refuse(value, "not a UUID") from error


def _array(_: ColumnCodec, value: Any) -> Any:
    return list(value) if isinstance(value, tuple | set | frozenset) else value


def _any(codec: ColumnCodec, value: Any) -> Any:
    if codec.sqlite:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            return str(value)
        return value if isinstance(value, bool | int | float | str | bytes) else _text(codec, value)
    return dump_json(value, codec.nan) if isinstance(value, dict) else value


_CONVERT: Final[dict[str, Callable[[ColumnCodec, Any], Any]]] = {
    "int": _number, "float": _number, "numeric": _number, "bool": _bool, "text": _text, "binary": _binary,
    "datetime": _datetime, "date": _datetime, "time": _datetime, "interval": _interval, "json": _json, "uuid": _uuid,
    "array": _array, "any": _any,
}  # fmt: skip


# --- JSON


def dump_json(value: Any, nan: Nan = "null") -> str:
    """A value as JSON text (RFC 8259) that every database reads.

    Dates become ISO texts, Decimal, UUID and ObjectId their text, bytes base64, sets and tuples lists, other keys
    their text. NaN and infinities, which JSON has not, become null, or their text with ``nan="text"``.
    Lone surrogates are escaped.

    Raises:
        DataTypeError: it holds a value without such a form, NaN with ``nan="reject"``, or itself.
    """
    try:
        try:
            text = _encode(value)
        except (ValueError, TypeError):
            text = _encode(_jsonable(value, nan))
        text.encode()
    except UnicodeEncodeError:
        return _encode_ascii(_jsonable(value, nan))
    except RecursionError as error:
        raise DataTypeError(None, "nested too deeply, or holds itself") from error
    return text


def _default(value: Any) -> Any:
    """For the encoder: a value that it does not know."""
    value = plain(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    return value


_encode: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default, check_circular=True
).encode
_encode_ascii: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def _jsonable(value: Any, nan: Nan) -> Any:
    value = _default(value)
    if isinstance(value, float) and not math.isfinite(value):
        if nan == "reject":
            raise DataTypeError(None, f"JSON has no {value}; nan='null' stores null")
        return repr(value) if nan == "text" else None
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(plain(key)): _jsonable(each, nan) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(each, nan) for each in value]
    return value


def _shown(kind: TypeEngine[Any], dialect: Dialect) -> str:
    try:
        return str(kind.compile(dialect=dialect))
    except sa.exc.CompileError:
        return type(kind).__name__
