"""The connection side of a SQL target: URL, engine, pool, and what SQLite needs besides."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.pool import StaticPool

from resilient_exporters.errors import InvalidConfigError, MissingModuleError, RetryableError

__all__ = ["Database", "Session", "database_url"]

_DRIVERS: Final = {
    "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql", "mssql": "mssql+pymssql",
}  # fmt: skip
_TRUSTED: Final = 1.0
"""Seconds for which a connection that lay idle is taken for a good one. To ask each time costs a round trip a batch."""
_EXTRAS: Final = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql", "mssql": "sqlserver"}


@dataclass(frozen=True, slots=True)
class Session:
    """What a connection of ours is to be like. An Engine that was given is used as it is.

    Attributes:
        arguments: for the driver's ``connect``.
        engine: further arguments for SQLAlchemy's ``create_engine``.
        prepare: called with each new connection of the driver; for settings of the session.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Any], None] | None = None


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
        session: what connections of ours are to be like; set before the first use.
    """

    def __init__(self, target: str | URL | Engine, *, synchronous: str, busy_timeout: float) -> None:
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._lock = threading.Lock()
        self.session = Session()
        self._busy: dict[int, tuple[Any, float]] = {}
        self._given = isinstance(target, Engine)
        self._engine: Engine | None = target if isinstance(target, Engine) else None
        self._pid = os.getpid()
        url = target.url if isinstance(target, Engine) else database_url(target)
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
                self._busy = {}
                self._engine.dispose(close=False)
            self._pid = os.getpid()
            return self._engine

    def open(self) -> None:
        """Connect once. Raises what the driver raises."""
        if self._path is not None and not self._given:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        self._hang_up()
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
        if self.dialect != "sqlite":
            with self._server_transaction(deadline) as connection:
                yield connection
            return
        engine = self.engine
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = engine.connect()
        raw: Any = connection.connection.dbapi_connection
        try:
            if not raw.in_transaction:
                raw.execute("BEGIN IMMEDIATE")
            yield connection
            if time.monotonic() >= deadline:
                raise RetryableError(None, f"{self.address}: took longer than timeout; rolled back")
            connection.commit()
            if raw.in_transaction:  # SQLAlchemy does not count what the driver did by itself
                raw.commit()
        except BaseException:
            connection.close()  # rolls back
            raise
        if self._path is not None and not self._given:
            self._idle.append(connection)
        else:
            connection.close()

    @contextlib.contextmanager
    def _server_transaction(self, deadline: float) -> Iterator[Connection]:
        self._hang_up()
        connection = self.engine.connect()
        raw: Any = connection.connection.dbapi_connection
        with self._lock:
            self._busy[id(connection)] = raw, deadline
        try:
            connection.begin()
            yield connection
            if time.monotonic() >= deadline:
                raise RetryableError(None, f"{self.address}: took longer than timeout; rolled back")
            connection.commit()
        except BaseException:
            if _gone(raw):
                connection.invalidate()  # to roll back on it would raise, and hide why it is gone
            raise
        finally:
            with self._lock:
                del self._busy[id(connection)]
            with contextlib.suppress(sa.exc.DBAPIError):  # it broke while it was rolled back: the pool drops it
                connection.close()

    def _hang_up(self) -> None:
        """Shut down connections that are past their deadline: someone waits there for a peer that is not there.

        A link can swallow everything and yet keep the connection open, and psycopg knows no time-out. The thread gets
        an error and ends, and the server learns that nobody is there and rolls back.
        """
        if not self._busy or self._pid != os.getpid():  # a forked child must leave its parent's connections alone
            return
        now = time.monotonic()
        with self._lock:
            late = [raw for raw, deadline in self._busy.values() if now >= deadline]
            for raw in late:
                number = _descriptor(raw)
                if number is not None:
                    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as line:
                        line.shutdown(socket.SHUT_RDWR)

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
            return self._make_for_server()
        if self._memory:
            engine = sa.create_engine(
                self._url, poolclass=StaticPool, connect_args={"check_same_thread": False}, hide_parameters=True
            )
        else:
            engine = sa.create_engine(self._url, connect_args={"timeout": self._busy_timeout}, hide_parameters=True)
        sa.event.listen(engine, "connect", self._tune)
        return engine

    def _make_for_server(self) -> Engine:
        session = self.session
        # As many as there are batches in flight; those left by attempts that were given up come on top.
        options = {"pool_size": 16, "max_overflow": 32, "pool_use_lifo": True, **session.engine}
        engine = sa.create_engine(self._url, hide_parameters=True, connect_args=dict(session.arguments), **options)

        def made(raw: Any, _: Any) -> None:
            if session.prepare is not None:
                session.prepare(raw)

        def left(_: Any, record: Any) -> None:
            record.info["idle since"] = time.monotonic()

        def taken(raw: Any, record: Any, _: Any) -> None:
            since = record.info.get("idle since")
            if since is not None and time.monotonic() - since > _TRUSTED and not _answers(engine, raw):
                raise sa.exc.DisconnectionError  # the pool makes a new one

        sa.event.listen(engine, "connect", made)
        sa.event.listen(engine, "checkin", left)
        sa.event.listen(engine, "checkout", taken)
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


def _gone(raw: Any) -> bool:
    """Whether a driver's connection is of no use any more. psycopg says ``closed``, PyMySQL ``open``."""
    return bool(getattr(raw, "closed", False)) or not getattr(raw, "open", True)


def _answers(engine: Engine, raw: Any) -> bool:
    try:
        return bool(engine.dialect.do_ping(raw))
    except Exception:  # noqa: BLE001 - whatever a driver raises, this connection is not to be used
        return False


def _descriptor(raw: Any) -> int | None:
    try:
        number: int = raw.fileno()
    except Exception:  # noqa: BLE001 - closed meanwhile, or a driver without it, which then has a time-out of its own
        return None
    return number


def database_url(given: str | URL) -> URL:
    """A SQLAlchemy URL with the driver that we use.

    Raises:
        InvalidConfigError: this is no URL.
        MissingModuleError: the driver is not installed.
    """
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
