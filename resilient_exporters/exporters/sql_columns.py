"""Which column type holds a field, told from its values."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mssql, mysql
from sqlalchemy.types import TypeEngine

from resilient_exporters.errors import DataTypeError, InvalidConfigError

__all__ = ["column_type", "declared", "infer", "kind_of", "plain"]

_BASE: Final = frozenset({
    str, int, float, bool, bytes, type(None), dict, list, tuple, dt.datetime, dt.date, dt.time,
    dt.timedelta, decimal.Decimal, uuid.UUID, set, frozenset,
})  # fmt: skip


def plain(value: Any) -> Any:
    """A value as one of Python's own types: numpy and pandas values, enums, ObjectIds and buffers are unwrapped.

    Raises:
        DataTypeError: there is no such form; a database cannot hold it.
    """
    if type(value) in _BASE:
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if hasattr(value, "to_pydatetime"):  # pandas Timestamp, a subclass of datetime
        return None if _is_nat(value) else value.to_pydatetime(warn=False)
    if hasattr(value, "to_pytimedelta"):
        return None if _is_nat(value) else value.to_pytimedelta()
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numpy
        if value.dtype.kind in "mM":  # nanoseconds would come out as int
            value = value.astype(f"{value.dtype.kind}8[us]")
        found = value.tolist()
        return float(found) if type(found).__name__ == "longdouble" else found
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str | int | float | bytes | dt.date | dt.time | dt.timedelta):
        return value  # a subclass: drivers bind it as its base
    if isinstance(value, decimal.Decimal | uuid.UUID | list | tuple | set | frozenset):
        return value
    if isinstance(value, Mapping):
        return dict(value)
    if type(value).__name__ in {"NaTType", "NAType"}:
        return None
    if type(value).__name__ == "ObjectId":
        return str(value)
    raise DataTypeError(None, f"a value of type {type(value).__qualname__} has no form in a database")


def _is_nat(value: Any) -> bool:
    return type(value).__name__ == "NaTType"


def kind_of(value: Any) -> str | None:
    """The kind of one value (after `plain`), None for None."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return "int" if -(2**63) <= value < 2**63 else "bigint"
    if isinstance(value, dt.datetime):
        return "datetime" if value.tzinfo is None else "datetimetz"
    for classes, kind in _KINDS:
        if isinstance(value, classes):
            return kind
    raise DataTypeError(None, f"a value of type {type(value).__qualname__} has no form in a database")


_KINDS: Final[tuple[tuple[tuple[type, ...], str], ...]] = (
    ((bool,), "bool"),
    ((float,), "float"),
    ((str,), "text"),
    ((bytes,), "binary"),
    ((decimal.Decimal,), "decimal"),
    ((dt.date,), "date"),
    ((dt.time,), "time"),
    ((dt.timedelta,), "interval"),
    ((uuid.UUID,), "uuid"),
    ((dict, list, tuple, set, frozenset), "json"),
)


def infer(values: Iterable[Any], dialect: str, *, key: bool = False) -> TypeEngine[Any] | None:
    """The type of a new column for these values, or None where all of them are None.

    Values of several kinds make a column that holds all of them: JSON where one is a map or a list, else a BLOB
    on SQLite (it converts nothing), else text.

    Args:
        values: all that is known of the field, of any types.
        dialect: name of the SQLAlchemy dialect.
        key: the column is part of a key, which some databases do not allow for unlimited text.
    """
    kinds: set[str] = set()
    big = False
    for value in values:
        try:
            kind = kind_of(plain(value))
        except DataTypeError:
            continue  # the row is refused later, where its reason can be told
        if kind is not None:
            kinds.add(kind)
            big = big or (kind == "int" and abs(value) > 2**53)
    if not kinds:
        return None
    return column_type(_common(kinds, big), dialect, key=key)


def _common(kinds: set[str], big: bool) -> str:
    if len(kinds) == 1:
        return kinds.pop()
    if kinds == {"int", "float"} and not big:
        return "float"
    if kinds <= {"int", "bigint", "decimal"}:
        return "decimal"
    if kinds == {"datetime", "datetimetz"}:
        return "datetimetz"
    return "json" if "json" in kinds else "mixed"


def column_type(kind: str, dialect: str, *, key: bool = False) -> TypeEngine[Any]:
    """The column type for a kind of values in one dialect; docs/exporters/sql.md has the table."""
    my, ms, pg = dialect in {"mysql", "mariadb"}, dialect == "mssql", dialect == "postgresql"
    if kind in {"decimal", "bigint"}:
        # Only PostgreSQL has numbers of any length. Elsewhere digits would be cut, so the text form keeps them all.
        return sa.Numeric() if pg else sa.String(255) if key else _text(dialect)
    if kind == "text":
        return sa.String(255) if key and (my or ms) else _text(dialect)
    if kind == "mixed":
        return sa.LargeBinary() if dialect == "sqlite" else _text(dialect)
    if kind == "binary":
        return mysql.LONGBLOB() if my else sa.LargeBinary()
    if kind in {"datetime", "datetimetz"}:
        if my:
            return mysql.DATETIME(fsp=6)
        if ms:
            made: TypeEngine[Any] = (mssql.DATETIMEOFFSET if kind == "datetimetz" else mssql.DATETIME2)()
            return made
        return sa.DateTime(timezone=kind == "datetimetz")
    if kind == "time":
        return mysql.TIME(fsp=6) if my else sa.Time()
    if kind == "uuid":
        return sa.Uuid() if pg or ms else sa.String(36)
    if kind == "interval":
        return sa.Interval() if pg else sa.Double()
    return _SIMPLE[kind]()


_SIMPLE: Final[dict[str, type[TypeEngine[Any]]]] = {
    "int": sa.BigInteger, "float": sa.Double, "bool": sa.Boolean, "date": sa.Date, "json": sa.JSON,
}  # fmt: skip


def _text(dialect: str) -> TypeEngine[Any]:
    if dialect in {"mysql", "mariadb"}:
        return mysql.LONGTEXT()
    return sa.UnicodeText() if dialect in {"mssql", "oracle"} else sa.Text()


_DECLARED: Final[dict[type, str]] = {
    int: "int", float: "float", bool: "bool", str: "text", bytes: "binary", decimal.Decimal: "decimal",
    dt.datetime: "datetimetz", dt.date: "date", dt.time: "time", dt.timedelta: "interval",
    uuid.UUID: "uuid", dict: "json", list: "json",
}  # fmt: skip


def declared(columns: Mapping[str, Any], dialect: str) -> dict[str, TypeEngine[Any]]:
    """The types given by the option ``columns``: Python types or SQLAlchemy types.

    Raises:
        InvalidConfigError: a value is neither.
    """
    found: dict[str, TypeEngine[Any]] = {}
    for name, given in columns.items():
        if isinstance(given, type) and given in _DECLARED:
            found[name] = column_type(_DECLARED[given], dialect)
        elif isinstance(given, TypeEngine):
            found[name] = given
        elif isinstance(given, type) and issubclass(given, TypeEngine):
            found[name] = given()
        else:
            kinds = ", ".join(each.__name__ for each in _DECLARED)
            raise InvalidConfigError(
                None, f"columns[{name!r}]={given!r}: not a column type. Give a type of SQLAlchemy, or one of: {kinds}"
            )
    return found
