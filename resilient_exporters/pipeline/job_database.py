"""The database that keeps the state of jobs: SQLite, PostgreSQL or MySQL, by their own drivers' cursors."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from resilient_exporters.delivery.directory import make_directory
from resilient_exporters.errors import MissingModuleError
from resilient_exporters.pipeline.errors import StateError

__all__ = ["JobDatabase", "LostConnectionError", "of_database", "shown"]

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS job (
    id VARCHAR(64) PRIMARY KEY, version INTEGER NOT NULL, created DOUBLE PRECISION NOT NULL,
    last_committed DOUBLE PRECISION, job_finished INTEGER NOT NULL, configuration {text} NOT NULL,
    last_position {blob}, figures {blob}, token VARCHAR(64) NOT NULL);
CREATE TABLE IF NOT EXISTS job_state (
    job VARCHAR(64) NOT NULL, part VARCHAR(64) NOT NULL, value {blob} NOT NULL, PRIMARY KEY (job, part));
CREATE TABLE IF NOT EXISTS job_journal (
    job VARCHAR(64) NOT NULL, part VARCHAR(64) NOT NULL, number BIGINT NOT NULL, value {blob} NOT NULL,
    PRIMARY KEY (job, part, number));
CREATE TABLE IF NOT EXISTS job_dead (
    job VARCHAR(64) NOT NULL, number BIGINT NOT NULL, created DOUBLE PRECISION NOT NULL, value {blob} NOT NULL,
    PRIMARY KEY (job, number));
"""
_TYPES: Final = {
    "sqlite": {"text": "TEXT", "blob": "BLOB"},
    "postgresql": {"text": "TEXT", "blob": "BYTEA"},
    "mysql": {"text": "LONGTEXT", "blob": "LONGBLOB"},
}
_EXTRAS: Final = {"postgresql": "postgres", "mysql": "mysql"}


class LostConnectionError(StateError):
    """The server went away: the next transaction connects again."""


class JobDatabase:
    """One connection. Used by one thread at a time; any thread may be that one.

    Args:
        url: a path of an SQLite file, made with its directory if need be; or a SQLAlchemy URL of a PostgreSQL or
            MySQL database.

    Raises:
        StateError: it cannot be used; what is wrong.
        MissingModuleError: the extra of that database is not installed.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = url
        self.dialect = "sqlite"
        self._lock = threading.RLock()
        self._connection: Any = None
        try:
            self._make_tables()
        except BaseException:
            self.close()
            raise

    @property
    def remote(self) -> bool:
        """Whether it is a server, that may go away and come back."""
        return self.dialect != "sqlite"

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Run statements with ``?`` for values, all of them or none.

        Raises:
            LostConnectionError: the server went away; whether a commit on its way was done, nobody knows.
            StateError: the database does not take it.
        """
        try:
            with self._lock, self._transaction() as run:
                yield run
        except StateError:
            raise
        except Exception as error:
            if not of_database(error) and not isinstance(error, OSError):
                raise
            text = f"the state of jobs in {shown(self.url)} cannot be used: {error}"
            if self.remote and _is(error, "OperationalError", "InterfaceError"):
                self.close()
                raise LostConnectionError(None, text) from error
            raise StateError(None, text) from error

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        mark = "%s" if self.remote else "?"
        cursor = connection.cursor()

        def run(statement: str, *values: Any) -> Any:
            cursor.execute(statement.replace("?", mark), values)
            return cursor

        try:
            if not self.remote:
                cursor.execute("BEGIN IMMEDIATE")
            yield run
            connection.commit()
        except BaseException:
            with suppress(Exception):  # what went wrong first is what is said
                connection.rollback()
            raise
        finally:
            with suppress(Exception):  # as above
                cursor.close()

    def _connect(self) -> Any:
        if isinstance(self.url, str) and "://" in self.url:
            return self._connect_server(self.url)
        path = Path(self.url)
        if "\0" in str(path):
            raise StateError(None, f"the state of jobs: {str(path)!r} is no path of a file")
        make_directory(path.absolute().parent)
        path.touch(mode=0o600)
        connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _connect_server(self, url: str) -> Any:
        self.dialect = re.split(r"[+:]", url, maxsplit=1)[0].replace("mariadb", "mysql")
        if self.dialect not in _TYPES:
            raise StateError(None, f"state of jobs: {self.dialect!r} is none of {', '.join(_TYPES)}")
        try:
            import sqlalchemy

            return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool).raw_connection()
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                None, f"state of jobs in {self.dialect} needs {error.name}: "
                f"pip install 'resilient-exporters[{_EXTRAS.get(self.dialect, 'sql')}]'"
            ) from error  # fmt: skip

    def _make_tables(self) -> None:
        with self.transaction():
            pass  # connects, so that the dialect is known
        try:
            self._create()
        except StateError:
            self._create()  # two processes made them at once: PostgreSQL refuses one of the two
        try:
            with self.transaction() as run:
                run("SELECT version, token FROM job WHERE 1 = 0").fetchall()
        except StateError as error:
            raise StateError(
                None, f"{shown(self.url)} has a table job that is not ours: keep the state of jobs in a database of "
                f"its own ({error})"
            ) from error  # fmt: skip

    def _create(self) -> None:
        with self.transaction() as run:
            for statement in _TABLES.format(**_TYPES[self.dialect]).split(";"):
                if statement.strip():
                    run(statement)

    def close(self) -> None:
        """Close the connection; the next transaction opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it may be broken: that is why it is closed
                connection.close()


def of_database(error: BaseException) -> bool:
    """Whether it comes from a driver: each has a tree of its own, with names that are the same everywhere."""
    return _is(error, "DatabaseError", "InterfaceError", "SQLAlchemyError")


def _is(error: BaseException, *names: str) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)


def shown(url: str | Path) -> str:
    """A URL without user and password."""
    return re.sub(r"//[^@/]*@", "//…@", str(url))
