"""Pages of a table or a query in the order of a key. Imports SQLAlchemy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.types import NullType

from resilient_exporters.pipeline.errors import ConfigurationError, PipelineError

__all__ = ["Pages", "Row", "Source"]

_KEY: Final = "rexport_key_"
_INEXACT: Final = {
    "mysql": ("FLOAT", "BIT", "JSON"), "mariadb": ("FLOAT", "BIT", "JSON"), "postgresql": ("REAL", "JSON", "JSONB"),
    "mssql": ("REAL",),
}  # fmt: skip
"""Types whose values, once read, do not compare with themselves."""


class Row(NamedTuple):
    """A record, and the values of its key as the driver has them."""

    record: dict[str, Any]
    key: list[Any]


class Source(NamedTuple):
    """What is read: a table with what is wanted of it, or a query."""

    table: str | None
    schema: str | None
    columns: Sequence[str]
    where: str | None
    query: str | None
    parameters: Mapping[str, Any]


class Pages:
    """Reads a source page by page: each page begins behind the key that the one before ended with.

    Args:
        source: what is read.
        key: names of the columns of the key; empty: the table's primary key.
        size: rows of a page.
        check: whether a key that no constraint makes unique is looked through once.
    """

    def __init__(self, source: Source, key: Sequence[str], size: int, check: bool) -> None:
        self._source = source
        self.key = list(key)
        self._size = size
        self._check = check
        self._from: Any = None
        self._shown: list[Any] = []
        self._condition: Any = None
        self._nullable: list[str] = []

    def begin(self, connection: Connection) -> None:
        """Look at the source, and whether its key is one.

        Raises:
            ConfigurationError: there is no such column; no key; or the key is none.
        """
        proven = self._look_at_table(connection) if self._source.query is None else self._look_at_query()
        self.check_nulls(connection)
        if not proven and self._check:
            columns = [self._from.c[name] for name in self.key]
            twice = sa.select(*columns).group_by(*columns).having(sa.func.count() > 1).limit(1)
            self._refuse_twice(connection.execute(self._narrowed(twice), self._parameters).first())

    def _look_at_table(self, connection: Connection) -> bool:
        source, inspector = self._source, sa.inspect(connection)
        assert source.table is not None  # noqa: S101 - the reader has either a table or a query
        table = sa.Table(source.table, sa.MetaData(), schema=source.schema, autoload_with=connection, resolve_fks=False)
        primary = [column.name for column in table.primary_key]
        self.key = self.key or primary
        if not self.key:
            raise ConfigurationError(
                None, f"table {source.table} has no primary key: give key, the columns that tell its rows apart"
            )
        missing = [name for name in (*self.key, *source.columns) if name not in table.c]
        if missing:
            raise ConfigurationError(
                None, f"table {source.table} has no column {', '.join(missing)}; there are {', '.join(table.c.keys())}"
            )
        for name in self.key:
            kind = type(table.c[name].type).__name__.upper()
            if kind in _INEXACT.get(connection.dialect.name, ()):
                raise ConfigurationError(None, f"key={self.key}: {name} is {kind}, which does not compare exactly")
        self._from = table
        self._shown = [_exact(table.c[name]) for name in source.columns or table.c.keys()]
        self._condition = None if source.where is None else sa.text(f"({source.where})")
        self._nullable = [name for name in self.key if table.c[name].nullable]
        constraints = inspector.get_unique_constraints(source.table, source.schema)
        unique = [primary, *(one["column_names"] for one in constraints)]
        for index in inspector.get_indexes(source.table, source.schema):
            partial = any(name.endswith("_where") for name in index.get("dialect_options", {}))
            if index["unique"] and not partial and None not in index["column_names"]:
                unique.append([str(name) for name in index["column_names"]])
        return any(names and set(names) <= set(self.key) for names in unique)

    def _look_at_query(self) -> bool:
        text = sa.text(str(self._source.query).strip().rstrip(";"))
        self._from = text.columns(*(sa.column(name) for name in self.key)).subquery("source")
        self._shown = [sa.text("source.*")]
        self._nullable = list(self.key)
        return False

    @property
    def _parameters(self) -> dict[str, Any]:
        return dict(self._source.parameters)

    def _narrowed(self, statement: Any) -> Any:
        statement = statement.select_from(self._from)
        return statement if self._condition is None else statement.where(self._condition)

    def check_nulls(self, connection: Connection) -> None:
        """Rows without a key would be passed over.

        Raises:
            PipelineError: there are some.
        """
        if not self._nullable:
            return
        empty = sa.or_(*(self._from.c[name].is_(None) for name in self._nullable))
        statement = self._narrowed(sa.select(sa.literal(1))).where(empty).limit(1)
        if connection.execute(statement, self._parameters).first() is not None:
            raise PipelineError(
                None, f"key={self.key}: there are rows with NULL in {' or '.join(self._nullable)}, which a resume "
                "could not find again: give a key that all rows have, or leave these out in where"
            )  # fmt: skip

    def page(self, connection: Connection, after: Sequence[Any] | None) -> list[Row]:
        """The rows behind a key; an empty list: there are no more.

        Raises:
            PipelineError: the key does not tell rows apart.
        """
        raw = [sa.type_coerce(self._from.c[name], NullType()) for name in self.key]
        labelled = [column.label(f"{_KEY}{number}") for number, column in enumerate(raw)]
        statement = self._narrowed(sa.select(*self._shown, *labelled))
        if after is not None:
            statement = statement.where(_behind(raw, after))
        statement = statement.order_by(*(self._from.c[name] for name in self.key)).limit(self._size + 1)
        rows: list[Row] = []
        before = None if after is None else list(after)
        for found in connection.execute(statement, self._parameters).mappings():
            record = dict(found)
            key = [record.pop(f"{_KEY}{number}") for number in range(len(raw))]
            if key == before:
                self._refuse_twice(key)
            before = key
            rows.append(Row(record, key))
        return rows[: self._size]

    def _refuse_twice(self, key: Any) -> None:
        if key is not None:
            raise PipelineError(
                None, f"key={self.key}: there are several rows with {list(key)!r:.200}, which a resume could not tell "
                "apart: give a key that is unique"
            )  # fmt: skip


def _exact(column: Any) -> Any:
    """A column as SQLAlchemy reads it; but not its floats, which it rounds to Decimals of ten places on MySQL."""
    return sa.type_coerce(column, NullType()).label(column.name) if isinstance(column.type, sa.Float) else column


def _behind(columns: Sequence[Any], after: Sequence[Any]) -> Any:
    """(a, b) > (x, y), in a form that every database finds in an index."""
    first, *others = columns
    value = sa.bindparam(None, after[0], type_=NullType(), unique=True)
    if not others:
        return first > value
    same = sa.bindparam(None, after[0], type_=NullType(), unique=True)
    least = sa.bindparam(None, after[0], type_=NullType(), unique=True)
    return sa.and_(first >= least, sa.or_(first > value, sa.and_(first == same, _behind(others, after[1:]))))
