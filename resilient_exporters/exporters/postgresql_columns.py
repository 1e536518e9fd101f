"""What fits a column of PostgreSQL, told before the server is asked."""

from __future__ import annotations

import datetime as dt
import decimal
import re
import uuid
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.types import TypeEngine

from resilient_exporters.exporters.sql_check import EXACT_FLOAT, whole
from resilient_exporters.exporters.sql_columns import plain
from resilient_exporters.exporters.sql_values import ColumnCodec, Nan

__all__ = ["PostgreSQLCodec", "strict"]

_NONE: Final = type(None)

_QUICK: Final[dict[str, frozenset[type]]] = {
    "int": frozenset({int}),
    "float": frozenset({float}),
    "numeric": frozenset({decimal.Decimal}),
    "bool": frozenset({bool}),
    "text": frozenset({str}),
    "any": frozenset({str}),
    "binary": frozenset({bytes}),
    "datetime": frozenset({dt.datetime}),
    "date": frozenset({dt.date}),
    "time": frozenset({dt.time}),
    "interval": frozenset({dt.timedelta}),
    "uuid": frozenset({uuid.UUID}),
}
"""What psycopg writes as it is, once `PostgreSQLCodec._fits` has looked at the limits of the column."""

_NUMBER: Final = re.compile(r"\s*[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|nan|inf(inity)?)\s*", re.ASCII | re.IGNORECASE)


class PostgreSQLCodec(ColumnCodec):
    """Values of one column, ready for COPY, and refused here where the column's definition says that they do not fit.

    Refused are: None where there must be a value, a value of another kind, a text that is too long or holds NUL,
    a whole number beyond the column's bytes, a label that the enumeration has not, a date and time for a column that
    would keep one of them.

    Args:
        column: as reflected. A domain counts as the type below it; its own checks are the server's.
        dialect: of the engine.
        nan: what JSON does with NaN; all columns of floating and exact numbers hold it.
        strict: whether None can be refused (a trigger may fill it in).
    """

    __slots__ = ("_choices", "_highest", "_item", "_length", "_quick", "_zoned", "required")

    def __init__(self, column: sa.Column[Any], dialect: Dialect, nan: Nan = "null", strict: bool = False) -> None:
        kind: TypeEngine[Any] = column.type
        nullable = bool(column.nullable)
        while isinstance(kind, postgresql.DOMAIN):
            nullable = nullable and not kind.not_null
            kind = kind.data_type
        super().__init__(str(column.name), kind, dialect, nan)
        if isinstance(kind, postgresql.HSTORE):
            self.family = "hstore"
        else:
            self._process = None  # psycopg adapts, and the server reads the text by the type of the column
        self.required = strict and not nullable
        self._quick = _QUICK.get(self.family, frozenset())
        self._length: int | None = getattr(kind, "length", None) if self.family == "text" else None
        self._choices = frozenset(kind.enums) if isinstance(kind, sa.Enum) else None
        small, big = isinstance(kind, sa.SmallInteger), isinstance(kind, sa.BigInteger)
        self._highest = 2**15 if small else 2**63 if big else 2**31
        self._zoned = bool(getattr(kind, "timezone", False))
        self._item: PostgreSQLCodec | None = None
        if isinstance(kind, sa.ARRAY):
            item: sa.Column[Any] = sa.Column(str(column.name), kind.item_type)
            self._item = PostgreSQLCodec(item, dialect, nan)

    def column(self, values: Sequence[Any]) -> Sequence[Any]:
        """All values of a batch. Raises DataTypeError; see `ColumnCodec.column`."""
        types = set(map(type, values))
        if types - {_NONE} <= self._quick and self._fits(values, missing=_NONE in types):
            return values
        return [self.one(value) for value in values]

    def plain_kind(self) -> Any:
        """As `ColumnCodec.plain_kind`, within the limits of the column."""
        kind: Any = None
        if self.family == "int":
            kind = whole(self._highest.bit_length())
        elif self.family == "text" and self._choices is None:
            kind = str if self._length is None else Annotated[str, msgspec.Meta(max_length=self._length)]
        elif self.family in {"float", "bool"}:
            kind = EXACT_FLOAT if self.family == "float" else bool
        return kind if kind is None or self.required else kind | None

    def sound(self, values: Sequence[Any]) -> bool:
        """As `ColumnCodec.sound`; and a text with NUL is refused."""
        return super().sound(values) and (self.family != "text" or "\0" not in "".join(filter(None, values)))

    def one(self, value: Any) -> Any:
        """One value. Raises DataTypeError; see `ColumnCodec.one`."""
        value = plain(value)
        if value is not None:
            value = self._suited(value)
        if value is None:
            if self.required:
                raise self.refuse(value, "it must have a value")
        elif not self._fits((value,), missing=False):
            raise self.refuse(value, self._why(value))
        return value

    def _fits(self, values: Sequence[Any], *, missing: bool) -> bool:
        """Whether values of the right type are within the column's limits. A whole column at a time: 20 ns a value."""
        if missing:
            if self.required:
                return False
            values = [value for value in values if value is not None]
            if not values:
                return True
        if self.family == "int":
            return bool(-self._highest <= min(values) and max(values) < self._highest)
        if self.family == "text":
            if self._choices is not None:
                return self._choices.issuperset(values)
            if self._length is not None and max(map(len, values)) > self._length:
                return False
            return "\0" not in "".join(values)
        if self.family in {"datetime", "time"} and not self._zoned:
            return all(isinstance(value, str) or value.tzinfo is None for value in values)
        return True

    def _why(self, value: Any) -> str:
        if self.family == "int":
            return "more than the column's bytes hold"
        if self.family == "text" and self._choices is not None:
            return f"it is none of {', '.join(sorted(self._choices))}"
        if self.family == "text" and self._length is not None and len(value) > self._length:
            return f"{len(value)} characters, and the column has room for {self._length}"
        if self.family == "text":
            return "PostgreSQL holds no NUL in a text"
        return "its offset from UTC would be lost"

    def _suited(self, value: Any) -> Any:
        suit = _SUIT.get(self.family)
        return super().one(value) if suit is None else suit(self, value)

    def _base(self, value: Any) -> Any:
        return super().one(value)

    def _number(self, value: Any) -> Any:
        if isinstance(value, str):
            if not _NUMBER.fullmatch(value):
                raise self.refuse(value, "not a number")
            value = decimal.Decimal(value.strip())
        if self.family == "numeric":
            if isinstance(value, float):
                return decimal.Decimal(repr(value))  # NaN and infinities too
            if isinstance(value, int):
                return decimal.Decimal(int(value))
        return self._base(value)

    def _moment(self, value: Any) -> Any:
        """A day alone is its midnight; whatever would lose its time, its day or its offset is refused."""
        if isinstance(value, str):
            return value  # the server reads it
        if isinstance(value, dt.datetime):
            if self.family == "datetime":
                return self._base(value)
            if self.family == "date" and value.tzinfo is None and value.time() == dt.time():
                return value.date()
            raise self.refuse(value, f"a {self.family} would be only a part of it")
        if isinstance(value, dt.time if self.family == "time" else dt.date):
            return value
        raise self.refuse(value, f"not a {self.family}")

    def _span(self, value: Any) -> Any:
        if isinstance(value, str | dt.timedelta):
            return value
        if isinstance(value, int | float | decimal.Decimal) and not isinstance(value, bool):
            return dt.timedelta(seconds=float(value))
        raise self.refuse(value, "not a span of time")

    def _array(self, value: Any) -> Any:
        if isinstance(value, str):
            return value  # '{1,2}', read by the server
        if isinstance(value, list | tuple | set | frozenset) and self._item is not None:
            item = self._item
            inner = () if item.family == "json" else (list, tuple)
            return [self._array(each) if isinstance(each, inner) else item.one(each) for each in value]
        raise self.refuse(value, "not a list")


_SUIT: Final[dict[str, Callable[[PostgreSQLCodec, Any], Any]]] = {
    "int": PostgreSQLCodec._number,
    "float": PostgreSQLCodec._number,
    "numeric": PostgreSQLCodec._number,
    "datetime": PostgreSQLCodec._moment,
    "date": PostgreSQLCodec._moment,
    "time": PostgreSQLCodec._moment,
    "interval": PostgreSQLCodec._span,
    "array": PostgreSQLCodec._array,
}


def strict(connection: Connection, table: sa.Table) -> bool:
    """Whether a row without a value that it must have can be refused: no trigger before the insert fills it in.

    ``tgtype`` is a bit mask (src/include/catalog/pg_trigger.h): 2 before, 64 instead of.
    """
    name = connection.dialect.identifier_preparer.format_table(table).replace("%%", "%")
    query = sa.text(
        "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_trigger"
        " WHERE tgrelid = to_regclass(:name) AND NOT tgisinternal AND tgtype & 66 <> 0)"
    )
    return bool(connection.execute(query, {"name": name}).scalar())
