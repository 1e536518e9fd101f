"""SQLSession: a database connection that consecutive tasks share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.tasks.config import odbc_string, setting
from resilient_exporters.tasks.errors import ConfigurationError
from resilient_exporters.tasks.resource import BaseResource

__all__ = ["SQLSession"]


class SQLSession(BaseResource):
    """A SQLAlchemy connection. Temporary tables last as long as it is open.

    What a task did is committed when it ends well, and rolled back when it fails.
    """

    @classmethod
    def missing_configs(cls, config: Any) -> list[str]:
        """``DB_URL``, unless something else says which database."""
        if any(setting(config, name) is not None for name in ("DB_URL", "DB_DSN", "ODBC_SERVER")):
            return []
        return ["DB_URL"]

    @classmethod
    def check(cls, config: Any) -> None:
        """Besides: that the URL is one, and that its driver is installed."""
        super().check(config)
        cls.url(config)

    @classmethod
    def url(cls, config: Any) -> Any:
        """The SQLAlchemy URL.

        Raises:
            ConfigurationError: there is none in the settings, or it is none.
            MissingModuleError: SQLAlchemy or the driver is not installed.
        """
        try:
            from resilient_exporters.exporters.sql_engine import database_url
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                None, f"{cls.__name__} needs SQLAlchemy: pip install 'resilient-exporters[sql]'"
            ) from error
        import sqlalchemy as sa

        dsn = setting(config, "DB_DSN")
        given = setting(config, "DB_URL") or (dsn if "://" in str(dsn or "") else None)
        if given is None:
            flavor = setting(config, "ODBC_FLAVOR")
            given = sa.URL.create(f"{flavor}+pyodbc", query={"odbc_connect": odbc_string(config)})
        try:
            url = database_url(given)
        except ValueError as error:  # its text holds no password
            raise ConfigurationError(f"DB_URL (or DB_DSN) is no database: {error}") from None
        if url.get_backend_name() != "sqlite" and "odbc_connect" not in url.query:
            user, password = setting(config, "DB_USER"), setting(config, "DB_PWD")
            url = url.set(username=url.username or user, password=url.password or password)
        return url

    @classmethod
    def describe(cls, config: Any) -> str:
        """With the database's address."""
        url = cls.url(config)
        shown = (
            f"{url.get_backend_name()}, ODBC" if "odbc_connect" in url.query else url.set(query={}).render_as_string()
        )
        return f"{cls.__name__} ({shown})"

    @classmethod
    @contextlib.contextmanager
    def transaction(cls) -> Iterator[Any]:
        """The connection, in a transaction of its own; or in that which the task began, to be settled at its end."""
        connection = cls.resource()
        if connection.in_transaction():
            yield connection
            return
        with connection.begin():
            yield connection

    @classmethod
    def settle(cls, error: BaseException | None) -> None:
        """Commit, or roll back."""
        connection = cls.resource()
        if connection.in_transaction():
            if error is None:
                connection.commit()
            else:
                connection.rollback()

    @classmethod
    def explain(cls, error: BaseException) -> str:
        """The driver's own words: SQLAlchemy's add a link and the statement."""
        return f"{type(error).__name__}: {getattr(error, 'orig', None) or error}"

    @classmethod
    def _open(cls, config: Any) -> Any:
        import sqlalchemy as sa

        return sa.create_engine(cls.url(config), poolclass=sa.pool.NullPool, hide_parameters=True).connect()

    @classmethod
    def _close(cls, *exc: Any) -> bool:  # noqa: ARG003 - the exception is raised as it is
        connection = cls.resource()
        connection.close()
        connection.engine.dispose()
        return False
