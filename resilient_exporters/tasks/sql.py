"""Tasks on a database: SQLQuery, SQLExecute, SQLWrite, and SQLTask for your own."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from resilient_exporters.tasks.config import BigraysConfig, setting
from resilient_exporters.tasks.errors import InputError, TaskError
from resilient_exporters.tasks.frames import columns_of, frame_kind, records, result, result_kind
from resilient_exporters.tasks.placeholder import REQUIRED_ATTRIBUTE, resolve
from resilient_exporters.tasks.resources import BaseResource, SQLSession
from resilient_exporters.tasks.rows import Rows, chunks
from resilient_exporters.tasks.sql_text import Statement, clause, statement
from resilient_exporters.tasks.task import BaseTask, known_keywords

__all__ = ["SQLExecute", "SQLQuery", "SQLTask", "SQLWrite"]

_WRITE_PARAMS = {"if_exists", "schema", "index", "chunksize", "dtype"}


class SQLTask(BaseTask):
    """A step of your own on a database: ``run`` has ``read_query``, ``execute`` and ``write``.

    Attributes:
        params: values to bind, by the name that stands as ``:name`` in the text. A list fits ``in :names``.
        results: what a query gives: "pandas", "polars", "rows" (a list of dicts) or "auto"; None: as
            ``BigraysConfig.RESULTS`` says.
        stream: a query's rows go to a temporary file instead of memory; it gives `Rows`.
        batch_rows: rows that are fetched or written at a time.
    """

    required_resource: ClassVar[type[BaseResource] | None] = SQLSession
    params: Any = {}  # noqa: RUF012 - replaced by a subclass, never changed
    results: ClassVar[str | None] = None
    stream: ClassVar[bool] = False
    batch_rows: ClassVar[int] = 1000

    def read_query(self, query: str, params: Mapping[str, Any] | None = None) -> Any:
        """Run a query.

        Args:
            query: SQL, with ``:name`` for bound values.
            params: these values.

        Returns:
            A DataFrame, a list of dicts, or Rows: see ``results`` and ``stream``.
        """
        return self._read(Statement(query, params or {}))

    def execute(self, statement: str, params: Mapping[str, Any] | None = None) -> None:
        """Run a statement in a transaction of its own, or in that which ``run`` began on the connection itself."""
        self._execute(Statement(statement, params or {}))

    def write(self, table: str, dataframe: Any, **params: Any) -> None:
        """Write rows to a table.

        Args:
            table: its name. It is made if it is not there.
            dataframe: a DataFrame, or rows (mappings).
            **params: of pandas' ``to_sql``. For rows and polars: if_exists ("fail", "append" or "replace"), schema,
                dtype (SQLAlchemy types by column) and chunksize.

        Raises:
            TaskError: the table is there, and ``if_exists`` is "fail", the default.
        """
        with SQLSession.transaction() as connection:
            if frame_kind(dataframe) == "pandas":
                dataframe.to_sql(name=table, con=connection, **params)
            else:
                self._write(connection, table, dataframe, params)

    def _ready(self, name: str) -> Statement:
        what, text = f"{type(self).__name__}.{name}", getattr(self, name)
        made = statement(text, known_keywords(type(self), text), resolve(self.params), what)
        made.warn(what)
        return made

    def _read(self, ready: Statement) -> Any:
        kind = result_kind(self.results or setting(self.resource_config or BigraysConfig, "RESULTS"))
        self.logger.debug("running query: %s", ready.text)
        bound = clause(ready)
        if self.stream:
            bound = bound.execution_options(stream_results=True, yield_per=self.batch_rows)
        with SQLSession.transaction() as connection, connection.execute(bound) as found:
            names = list(found.keys())
            made = Rows(names, found, self.batch_rows) if self.stream else result(kind, names, found.fetchall())
        self.logger.debug("%s records retrieved", len(made))
        return made

    def _execute(self, ready: Statement) -> None:
        self.logger.debug("executing sql statement: %s", ready.text)
        with SQLSession.transaction() as connection:
            connection.execute(clause(ready))

    def _write(self, connection: Any, name: str, data: Any, params: Mapping[str, Any]) -> None:
        import sqlalchemy as sa

        if unknown := sorted(set(params) - _WRITE_PARAMS):
            raise TaskError(
                f"params has {', '.join(unknown)}, which only a pandas DataFrame takes; "
                f"rows take {', '.join(sorted(_WRITE_PARAMS))}"
            )
        rule = params.get("if_exists", "fail")
        if rule not in ("fail", "append", "replace"):
            raise TaskError(f"if_exists={rule!r} is not possible; give 'fail', 'append' or 'replace'")
        schema = params.get("schema")
        there = sa.inspect(connection).has_table(name, schema=schema)
        if there and rule == "fail":
            raise TaskError(f"the table {name} exists; give params = {{'if_exists': 'append'}} or 'replace'")
        rest = chunks(_mappings(data), int(params.get("chunksize") or self.batch_rows))
        first = next(rest, [])
        if not there or rule == "replace":
            if there:
                sa.Table(name, sa.MetaData(), schema=schema).drop(connection)
            _table(name, schema, data, first, params.get("dtype") or {}, connection.dialect.name).create(connection)
        table = sa.Table(name, sa.MetaData(), schema=schema, autoload_with=connection)
        for some in itertools.chain([first] if first else [], rest):
            every = columns_of(some)
            values = [{key: row.get(key) for key in every} for row in some]
            connection.execute(sa.insert(_typed(table, values)), values)


class SQLExecute(SQLTask, abstract=True):
    """Run a statement in a transaction of its own.

    Attributes:
        statement: SQL; ``{name}`` is a format keyword, ``:name`` a value of ``params``.
    """

    formatted_attributes = ("statement",)
    statement: Any = REQUIRED_ATTRIBUTE

    def run(self) -> None:
        """Run it."""
        self._execute(self._ready("statement"))


class SQLQuery(SQLTask, abstract=True):
    """Run a query; the output is its result: see ``results`` and ``stream``.

    Attributes:
        query: SQL; ``{name}`` is a format keyword, ``:name`` a value of ``params``.
    """

    formatted_attributes = ("query",)
    query: Any = REQUIRED_ATTRIBUTE

    def run(self) -> Any:
        """Run it."""
        return self._read(self._ready("query"))


class SQLWrite(SQLTask, abstract=True):
    """Write rows to a table, all or none.

    Attributes:
        tablename: made if it is not there.
        input: a DataFrame, or rows (mappings).
        params: see ``SQLTask.write``.
    """

    tablename: Any = REQUIRED_ATTRIBUTE
    input: Any = REQUIRED_ATTRIBUTE
    params: Any = {"index": False}  # noqa: RUF012 - replaced by a subclass, never changed

    def run(self) -> None:
        """Write them."""
        self.write(self.tablename, self.input, **resolve(self.params))


def _mappings(data: Any) -> Iterable[Mapping[str, Any]]:
    for row in records(data):
        if not isinstance(row, Mapping):
            raise InputError(f"a row of type {type(row).__name__} has no columns; give mappings, or a DataFrame")
        yield row


def _typed(table: Any, rows: list[dict[str, Any]]) -> Any:
    """The table for an insert of these rows. A column of which all are texts gets no type: the database reads them.

    SQLAlchemy would ask for a date where the column has dates, although "2026-11-21" is as good to every database.
    """
    import sqlalchemy as sa

    columns = []
    for name in rows[0]:
        texts = all(isinstance(row[name], (str, type(None))) for row in rows)
        known = None if texts else table.c.get(name)
        columns.append(sa.column(name) if known is None else sa.column(name, known.type))
    return sa.table(table.name, *columns, schema=table.schema)


def _table(name: str, schema: str | None, data: Any, first: list[Any], types: Mapping[str, Any], dialect: str) -> Any:
    """A table for these rows, its types told from the first of them."""
    import sqlalchemy as sa

    from resilient_exporters.exporters.sql_columns import column_type, infer

    names = list(data.columns) if hasattr(data, "columns") else columns_of(first)
    if not names:
        raise InputError(f"no rows and no columns: the table {name} cannot be made of nothing")
    columns = [
        sa.Column(
            each,
            types.get(each) or infer((row.get(each) for row in first), dialect) or column_type("text", dialect),
        )
        for each in names
    ]
    return sa.Table(name, sa.MetaData(), *columns, schema=schema)
