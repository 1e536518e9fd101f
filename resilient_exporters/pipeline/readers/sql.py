"""A table or a query of a SQL database as a source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.pipeline.asking import StopAsked, ask
from resilient_exporters.pipeline.errors import ConfigurationError, PipelineError
from resilient_exporters.pipeline.option import ListOf, Option
from resilient_exporters.pipeline.readers.base import BaseReader
from resilient_exporters.units import parse_count

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine

    from resilient_exporters.pipeline.readers.sql_pages import Pages, Row

__all__ = ["SQLReader"]


def _counting(value: int) -> int:
    return parse_count(value, "batch_size")


class SQLReader(BaseReader):
    """Reads a table or a query, a page at a time, in the order of a key that is unique and never NULL.

    The position is the key of the last record, so that a resume goes on exactly there and no transaction stays open
    between pages. Rows that appear behind the position while it reads are read, those before it are not. Values are
    those of the driver, of columns of a table those of SQLAlchemy's types; MySQL's TIMESTAMP comes in UTC.
    """

    supported_options = {
        "url": Option(
            type=object, help="SQLAlchemy URL (postgresql://user@host/database, sqlite:///x.db), or an Engine."
        ),
        "password": Option(
            type=str, default=None, env_fallback="EXPORTERS_SQLREADER_PASSWORD", secret=True,
            help="Password, where it is not to stand in the URL.",
        ),
        "table": Option(type=str, default=None, help="Name of the table or view; or give a query."),
        "schema": Option(type=str, default=None, help="Schema of the table."),
        "columns": Option(type=ListOf(str), default=[], help="Columns of the table; default: all."),
        "where": Option(
            type=str, default=None, help="Condition in SQL that rows of the table must meet; :name for values."
        ),
        "query": Option(type=str, default=None, help="A SELECT, without ORDER BY and LIMIT; :name for values."),
        "parameters": Option(type=dict, default={}, help="Values for :name in where or query."),
        "key": Option(
            type=ListOf(str), default=[],
            help="Columns that together tell every row apart; default: the primary key of the table.",
        ),
        "check_key": Option(
            type=bool, default=True, help="Look once for rows with the same key, where no constraint rules them out."
        ),
        "batch_size": Option(type=int, default=10_000, check=_counting, help="Rows of a page, and of a batch."),
        "timeout": Option(type=float, default=30.0, help="Seconds for connecting."),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            from resilient_exporters.exporters.sql_engine import database_url
            from resilient_exporters.pipeline.readers.sql_pages import Pages, Source
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                None, f"SQLReader needs {error.name}: pip install 'resilient-exporters[sql]'"
            ) from error
        option = self.read_option
        table, query = option("table"), option("query")
        if (table is None) == (query is None):
            raise ConfigurationError(None, f"table={table!r}, query={query!r:.60}: give one of the two")
        if query is not None:
            wrong = [name for name in ("schema", "columns", "where") if option(name)]
            if wrong:
                raise ConfigurationError(None, f"{', '.join(wrong)}: only with table; write it into the query")
            if not option("key"):
                raise ConfigurationError(None, "query needs key, the columns that together tell its rows apart")
        given = option("url")
        self._engine: Engine | None = None if isinstance(given, str) or not hasattr(given, "connect") else given
        self._url: URL | None = None
        if self._engine is None:
            self._url = database_url(given)
            if option("password") is not None:
                self._url = self._url.set(password=option("password"))
        source = Source(table, option("schema"), option("columns"), option("where"), query, option("parameters"))
        self._pages: Pages = Pages(source, option("key"), option("batch_size"), option("check_key"))
        self._begun = False
        self._after: list[Any] | None = None

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        """The next page."""
        try:
            rows = self._ask(self._page)
        except StopAsked:
            return
        for row in rows:
            self._after = row.key
            yield row.record
        self.finished = not rows

    def _page(self, connection: Any) -> list[Row]:
        if not self._begun:
            self._pages.begin(connection)
            self._begun = True
        rows = self._pages.page(connection, self._after)
        if not rows:
            self._pages.check_nulls(connection)
        return rows

    def _ask(self, question: Any) -> list[Row]:
        from resilient_exporters.exporters.sql_errors import judge, reason

        engine = self._connected()
        dialect = engine.dialect.name

        def once() -> Any:
            self._check_file()
            with engine.connect() as connection:
                return question(connection)

        return ask(
            once,
            f"reading {self.read_option('table') or 'a query'} of {engine.url.host or engine.url.database} ({dialect})",
            passing=lambda error: judge(error, "mysql" if dialect == "mariadb" else dialect) == "retry",
            reason=lambda error: f"{type(error).__name__}: {reason(error)}",
            stopping=self.stopping,
        )

    def _check_file(self) -> None:
        """SQLite would make the file, and it would be empty."""
        path = self._url.database if self._url is not None and self._url.get_backend_name() == "sqlite" else None
        if path and path != ":memory:" and not path.startswith("file:") and not Path(path).exists():
            raise PipelineError(None, f"url: there is no file {path}")

    def _connected(self) -> Engine:
        if self._engine is None:
            import sqlalchemy as sa

            assert self._url is not None  # noqa: S101 - there is a URL or an engine
            self._engine = sa.create_engine(
                self._url, poolclass=sa.NullPool, hide_parameters=True, connect_args=self._arguments(self._url)
            )
        return self._engine

    def _arguments(self, url: URL) -> dict[str, Any]:
        seconds = max(1, round(self.read_option("timeout")))
        if url.drivername.endswith("+psycopg"):
            # A peer that is gone is noticed; a query that takes its time is not disturbed.
            return {"connect_timeout": max(2, seconds), "keepalives_idle": seconds, "tcp_user_timeout": seconds * 1000}
        if url.drivername.endswith("+pymysql"):
            # In UTC no TIMESTAMP stands for two moments.
            return {"connect_timeout": seconds, "init_command": "SET time_zone = '+00:00'"}
        return {"timeout": seconds} if url.get_backend_name() == "sqlite" else {}

    def get_last_position(self) -> Any:
        """The key of the last record."""
        return None if self._after is None else {"after": list(self._after)}

    def set_last_position(self, position: Any) -> None:
        """Go on behind that key."""
        self._after = list(position["after"]) if position else None

    def close(self) -> None:
        """Close connections of our own."""
        if self._url is not None and self._engine is not None:
            self._engine.dispose()
