"""The connection side of a SQL target: URL, engine, pool, and what SQLite needs besides."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.pool import StaticPool

from resilient_exporters.errors import InvalidConfigError, MissingModuleError, RetryableError

__all__ = ["Database"]

_DRIVERS: Final = {
    "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql", "mssql": "mssql+pymssql",
}  # fmt: skip
_EXTRAS: Final = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql", "mssql": "sqlserver"}


class Database:
    """One database and its engine. The engine is made at the first use, in a worker thread, and used by several.

    Args:
        target: SQLAlchemy URL, or an Engine, which is used as it is.
        synchronous: SQLite's ``PRAGMA synchronous``.
        busy_timeout: seconds that SQLite waits for a lock.

    Raises:
        InvalidConfigError: this is no URL.
        MissingModuleError: the driver is not installed.

    Attributes:
        dialect: name of the SQLAlchemy dialect.
        address: dialect, host and database; no account, password or query.
    """

    def __init__(self, target: str | URL | Engine, *, synchronous: str, busy_timeout: float) -> None:
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._lock = threading.Lock()
        self._given = isinstance(target, Engine)
        self._engine: Engine | None = target if isinstance(target, Engine) else None
        self._pid = os.getpid()
        url = target.url if isinstance(target, Engine) else _url(target)
        self.dialect = url.get_backend_name()
        path = _sqlite_path(url) if self.dialect == "sqlite" else None
        self._path = path
        if path is not None and not self._given:
            url = url.set(database=str(path))  # the working directory may change
        self._memory = self.dialect == "sqlite" and url.database in (None, "", ":memory:")
        self._url = url
        self._identity: tuple[int, int] | None = None
        self._idle: list[Connection] = []
        self._left: list[Connection] = []  # the parent's, never touched: to close one here would drop its locks
        self.address = str(URL.create(self.dialect, host=url.host, port=url.port, database=url.database))

    @property
    def engine(self) -> Engine:
        """The engine, made now if there is none yet."""
        with self._lock:
            if self._engine is None:
                self._engine = self._make()
            elif self._pid != os.getpid():  # a forked child must not talk on its parent's connections
                self._left += self._idle
                self._idle = []
                self._engine.dispose(close=False)
            self._pid = os.getpid()
            return self._engine

    def open(self) -> None:
        """Connect once. Raises what the driver raises."""
        if self._path is not None and not self._given:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        with self.engine.connect():
            return

    def close(self) -> None:
        """Close the pooled connections, unless they are another's, or the only place where the data is."""
        while self._idle:
            self._idle.pop().close()
        with self._lock:
            if self._engine is not None and not self._given and not self._memory:
                self._engine.dispose()

    @contextlib.contextmanager
    def transaction(self, deadline: float) -> Iterator[Connection]:
        """A transaction, committed at the end of the block, or rolled back if that raises or is late.

        On SQLite it begins as a writer's: a reader that turns writer may be refused at any time. And there the
        connection is kept for the next batch, since to check it out costs as much as to write fifty rows.

        Args:
            deadline: ``time.monotonic()`` after which nothing is committed, since the batch was given up by then.

        Raises:
            RetryableError: it is late.
        """
        engine = self.engine
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = engine.connect()
        raw: Any = connection.connection.dbapi_connection if self.dialect == "sqlite" else None
        try:
            if raw is not None and not raw.in_transaction:
                raw.execute("BEGIN IMMEDIATE")
            yield connection
            if time.monotonic() >= deadline:
                raise RetryableError(None, f"{self.address}: took longer than timeout; rolled back")
            connection.commit()
            if raw is not None and raw.in_transaction:  # SQLAlchemy does not count what the driver did by itself
                raw.commit()
        except BaseException:
            connection.close()  # rolls back
            raise
        if self._path is not None and not self._given:
            self._idle.append(connection)
        else:
            connection.close()

    def moved(self) -> bool:
        """Whether the SQLite file was deleted or replaced under the open connections, which are then closed.

        SQLite would go on writing into the deleted file, and every record would be delivered to nowhere.
        """
        if self._path is None or self._identity is None or self._identity == _identity(self._path):
            return False
        self._identity = None
        self.close()
        self.open()
        return True

    def settled(self) -> None:
        """A transaction was committed: the file is there, remember which."""
        if self._path is not None and self._identity is None:
            self._identity = _identity(self._path)

    def _make(self) -> Engine:
        if self.dialect != "sqlite":
            return sa.create_engine(self._url, pool_pre_ping=True, hide_parameters=True)
        if self._memory:
            engine = sa.create_engine(
                self._url, poolclass=StaticPool, connect_args={"check_same_thread": False}, hide_parameters=True
            )
        else:
            engine = sa.create_engine(self._url, connect_args={"timeout": self._busy_timeout}, hide_parameters=True)
        sa.event.listen(engine, "connect", self._tune)
        return engine

    def _tune(self, connection: Any, _: Any) -> None:
        """Pragmas of a new connection.

        WAL, once set, is a property of the file; one that cannot be written keeps its mode, and the first row says why.
        """
        cursor = connection.cursor()
        try:
            mode = cursor.execute("PRAGMA journal_mode").fetchone()[0]
            if mode not in ("wal", "memory") and self._writable():
                cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute(f"PRAGMA synchronous={'FULL' if self._synchronous == 'full' else 'NORMAL'}")
        except BaseException:
            connection.close()  # SQLAlchemy forgets a connection whose listener raised
            raise
        cursor.close()

    def _writable(self) -> bool:
        return self._path is None or not self._path.exists() or os.access(self._path, os.W_OK)


def _url(given: str | URL) -> URL:
    try:
        url = sa.make_url(given)
        if url.drivername in _DRIVERS:
            url = url.set(drivername=_DRIVERS[url.drivername])
        dialect = url.get_dialect()
    except (sa.exc.ArgumentError, ValueError, TypeError) as error:
        raise InvalidConfigError(
            None, "url: not a SQLAlchemy URL; right would be sqlite:///x.db or postgresql://user@host/database"
        ) from (None if isinstance(given, str) else error)  # the text may hold a password
    except sa.exc.NoSuchModuleError as error:
        raise InvalidConfigError(None, f"url: SQLAlchemy knows no such database: {error}") from error
    try:
        dialect.import_dbapi()
    except ModuleNotFoundError as error:
        backend = url.get_backend_name()
        extra = _EXTRAS.get(backend)
        install = f"resilient-exporters[{extra}]" if extra else str(error.name)
        raise MissingModuleError(None, f"{url.drivername} needs {error.name}: pip install '{install}'") from error
    return url


def _sqlite_path(url: URL) -> Path | None:
    """The file of a SQLite URL, or None for a database in memory or a ``file:`` URI."""
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        return None
    return Path(url.database).absolute()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - asked for every batch, and three times as fast
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
