"""The tables of one database: looked up once, made or widened where that is allowed."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler

from resilient_exporters.errors import HoldError
from resilient_exporters.exporters.sql_columns import column_type, infer
from resilient_exporters.exporters.sql_errors import judge
from resilient_exporters.exporters.sql_table import KnownTable, TableOptions

__all__ = ["Schema"]

ID_LENGTH = 64
"""Room for a record id: 16 hex digits, a dash and an offset of up to 20 digits."""


class Schema:
    """What is known of the tables. Used by several worker threads.

    Args:
        options: what the exporter was told.
        where: the target without secrets, for messages.
    """

    def __init__(self, options: TableOptions, where: str) -> None:
        self._options = options
        self._where = where
        self._tables: dict[str, KnownTable] = {}
        self._lock = threading.RLock()
        self._since = time.monotonic()

    def forget(self) -> None:
        """Look every table up again: the database answered that one is not what it was."""
        with self._lock:
            self._tables.clear()
            self._since = time.monotonic()

    def older_than(self, seconds: float) -> bool:
        """Whether what is known may be out of date."""
        return time.monotonic() - self._since > seconds

    def table(self, engine: Engine, name: str) -> KnownTable | None:
        """The table, or None if there is none by that name."""
        found = self._tables.get(name)
        if found is not None:
            return found
        with self._lock:
            found = self._tables.get(name)  # another thread may have looked while this one waited
            if found is not None:
                return found
            with engine.connect() as connection:
                return self._reflect(connection, name)

    def create(
        self, engine: Engine, name: str, fields: Mapping[str, Sequence[Any]], upsert: tuple[str, ...]
    ) -> KnownTable:
        """Make a table for some fields. Another process may be faster: then its table is taken.

        Args:
            engine: of the database.
            name: of the table.
            fields: what is known of the values of each field.
            upsert: columns that become its primary key; without them the record id is.

        Raises:
            HoldError: tables are not to be made.
        """
        if not self._options.create:
            raise HoldError(None, f"{self._where}: there is no table {name!r}; make it, or pass create_table=True")
        dialect = engine.dialect.name
        columns: list[sa.Column[Any]] = []
        if self._options.id_column is not None and not upsert:
            columns.append(sa.Column(self._options.id_column, sa.String(ID_LENGTH), primary_key=True))
        fresh = self._new_columns(fields, dialect, known={str(each.name) for each in columns}, keys=upsert)
        for column in fresh:
            if column.name in upsert:
                column.primary_key, column.nullable, column.autoincrement = True, False, False
        columns += fresh
        if self._options.new_columns == "json" and self._options.extra_column not in {str(c.name) for c in columns}:
            columns.append(sa.Column(self._options.extra_column, column_type("json", dialect)))
        if not columns:
            raise HoldError(None, f"{self._where}: no column is known for a table {name!r}; make it")
        # The default of a MySQL server may be one that has no emoji.
        special: dict[str, Any] = {f"{dialect}_charset": "utf8mb4"} if dialect in {"mysql", "mariadb"} else {}
        table = sa.Table(name, sa.MetaData(), *columns, schema=self._options.schema, **special)
        with self._lock:
            if name not in self._tables:  # else another thread was faster
                self._change(engine, sa.schema.CreateTable(table))
                return self._renewed(engine, name)
            return self._tables[name]

    def add(self, engine: Engine, table: KnownTable, fields: Mapping[str, Sequence[Any]]) -> KnownTable:
        """Give a table columns for further fields, as far as names, values and ``max_columns`` allow."""
        with self._lock:
            known = self._tables.get(table.name, table)  # another thread may have added them meanwhile
            wanted = {key: values for key, values in fields.items() if known.find(key) is None}
            fresh = self._new_columns(wanted, engine.dialect.name, known=set(known.columns))
            for column in fresh:
                self._change(engine, _AddColumn(table.name, self._options.schema, column))
            return self._renewed(engine, table.name) if fresh else known

    def add_extra(self, engine: Engine, table: KnownTable) -> KnownTable:
        """Give a table the column that takes unknown fields.

        Raises:
            HoldError: tables are not to be changed (``create_table=False``).
        """
        name = self._options.extra_column
        if not self._options.create:
            raise HoldError(
                None, f"{self._where}: add a column {name!r} (JSON or text) for further fields to table {table.name!r}"
            )
        with self._lock:
            column = sa.Column(name, column_type("json", engine.dialect.name))
            self._change(engine, _AddColumn(table.name, self._options.schema, column))
            return self._renewed(engine, table.name)

    def _new_columns(
        self, fields: Mapping[str, Sequence[Any]], dialect: str, *, known: Iterable[str], keys: Sequence[str] = ()
    ) -> list[sa.Column[Any]]:
        taken = {name.casefold() for name in known}
        found: list[sa.Column[Any]] = []
        for key, values in fields.items():
            if len(taken) >= self._options.max_columns or key.casefold() in taken or not _nameable(key, dialect):
                continue
            kind = self._options.columns.get(key)
            if kind is None:
                kind = infer(values, dialect, key=key in keys)
            if kind is not None:
                taken.add(key.casefold())
                found.append(sa.Column(key, kind))
        return found

    def _change(self, engine: Engine, statement: ExecutableDDLElement) -> None:
        try:
            with engine.begin() as connection:
                connection.execute(statement)
        except sa.exc.DBAPIError as error:
            # It is there already: someone else made it. PostgreSQL says 23505 of its catalogue if that was just now.
            if judge(error, engine.dialect.name) != "schema" and getattr(error.orig, "sqlstate", None) != "23505":
                raise

    def _renewed(self, engine: Engine, name: str) -> KnownTable:
        with self._lock, engine.connect() as connection:
            found = self._reflect(connection, name)
        if found is None:
            raise HoldError(
                None, f"{self._where}: table {name!r} was made and is not to be seen; check schema and rights"
            )
        return found

    def _reflect(self, connection: Connection, name: str) -> KnownTable | None:
        try:
            with warnings.catch_warnings():
                # A type that SQLAlchemy does not know (a point, a geometry) takes what the driver makes of a value.
                warnings.filterwarnings("ignore", "Did not recognize type", sa.exc.SAWarning)
                table = sa.Table(
                    name, sa.MetaData(), schema=self._options.schema, autoload_with=connection, resolve_fks=False
                )
        except sa.exc.NoSuchTableError:
            self._tables.pop(name, None)
            return None
        strict = self._options.strict is not None and self._options.strict(connection, table)
        known = self._tables[name] = KnownTable(table, connection.dialect, self._options, strict=strict)
        return known


def _nameable(key: str, dialect: str) -> bool:
    """Whether a field name can be a column name. PostgreSQL would cut a long one, and two would become one."""
    longest = {"postgresql": 63, "mysql": 64, "mariadb": 64, "mssql": 128}.get(dialect, 255)
    try:
        return 0 < len(key.encode()) <= longest and "\0" not in key
    except UnicodeEncodeError:
        return False


class _AddColumn(ExecutableDDLElement):
    """ALTER TABLE … ADD, which SQLAlchemy leaves to migration tools."""

    inherit_cache = False

    def __init__(self, table: str, schema: str | None, column: sa.Column[Any]) -> None:
        self.column = column
        self.table = sa.Table(table, sa.MetaData(), column, schema=schema)


@compiles(_AddColumn)  # type: ignore[no-untyped-call,untyped-decorator,unused-ignore]  # the decorator is untyped
def _add_column(element: _AddColumn, compiler: DDLCompiler, **_: Any) -> str:
    table = compiler.preparer.format_table(element.table)
    return f"ALTER TABLE {table} ADD {compiler.get_column_specification(element.column)}"
