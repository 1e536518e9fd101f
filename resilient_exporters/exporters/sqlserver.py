"""The exporter for Microsoft SQL Server and Azure SQL."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from resilient_exporters.errors import InvalidConfigError
from resilient_exporters.exporters.parsed_url import arguments
from resilient_exporters.exporters.sql_server import ServerExporter, server_url

if TYPE_CHECKING:
    from resilient_exporters.exporters.parsed_url import ParsedURL
    from resilient_exporters.exporters.sql_engine import Session

__all__ = ["SQLServerExporter"]


class SQLServerExporter(ServerExporter):
    r"""Rows in SQL Server or Azure SQL, with pymssql or pyodbc.

    Not tested against a live server: its statements, types and error numbers are. docs/exporters/sqlserver.md.

    Args:
        target_host: name or address of the server, or ``host\instance``.
        database: name of the database.
        target_port: its port.
        username: account; on Azure also ``user@server``.
        password: of the account.
        default_table: table for records that name none. Also ``table``.
        create_table_if_inexistent: make a missing table from the first batch for it, and columns for new fields. Also
            ``create_table``.
        driver: "pymssql" (extra ``sqlserver``), or "pyodbc" with an ODBC driver of the system.
        driver_options: further arguments of the driver's ``connect``; for pyodbc parts of its connection string, as
            ``{"Encrypt": "yes"}``. Its ``driver`` is "ODBC Driver 18 for SQL Server" unless given.
        **options: those of `SQLExporter` and `Exporter`. ``timeout`` bounds connecting and each statement too.

    Record options (``send(data, **options)``): ``table``, ``upsert_on``.

    Raises:
        MissingModuleError: SQLAlchemy or the driver is not installed.
        MissingConfigError: no ``target_host``; in ``send``: no table.
        InvalidConfigError: an option has a value it cannot have.
    """

    kind: ClassVar[str] = "sqlserver"

    def __init__(
        self,
        target_host: str,
        database: str | None = None,
        target_port: int = 1433,
        username: str | None = None,
        password: str | None = None,
        default_table: str | None = None,
        create_table_if_inexistent: bool = False,
        *,
        driver: Literal["pymssql", "pyodbc"] = "pymssql",
        driver_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if driver not in ("pymssql", "pyodbc"):
            raise InvalidConfigError(None, f"driver={driver!r}: must be 'pymssql' or 'pyodbc'")
        url = server_url(
            type(self), f"mssql+{driver}", "sqlserver",
            host=target_host, port=target_port, database=database, username=username, password=password,
        )  # fmt: skip
        self._driver = driver
        self._driver_options = dict(driver_options or {})
        if driver == "pyodbc":  # the dialect makes a connection string of the URL's query
            url = url.update_query_dict({"driver": "ODBC Driver 18 for SQL Server", **self._driver_options})
        table = options.pop("table", None) if default_table is None else default_table
        options.setdefault("create_table", create_table_if_inexistent)
        super().__init__(url, table, **options)
        self._set_table(table)

    @classmethod
    def from_url(cls, parsed: ParsedURL, options: dict[str, Any]) -> SQLServerExporter:
        """Make one from ``mssql://user:password@host/database?table=readings`` (``mssql+pyodbc`` for that driver)."""
        given, rest = arguments(cls, parsed, options, passed_on=cls.url_parameters, taken={"url", "driver_options"})
        place: dict[str, Any] = {
            "target_host": parsed.host,
            "target_port": parsed.port or 1433,
            "database": parsed.path.strip("/") or None,
            "username": parsed.username,
            "password": parsed.password,
        }
        _, _, driver = parsed.scheme.partition("+")
        if driver:
            place["driver"] = driver
        return cls(**{**place, "driver_options": dict(rest), **given})

    def _session(self) -> Session:
        from resilient_exporters.exporters.sql_engine import Session

        patience = max(1, math.ceil(self.timeout)) if self.timeout and math.isfinite(self.timeout) else 0
        if self._driver == "pyodbc":
            login = {"timeout": min(10, patience)} if patience else {}
            return Session(arguments=login, engine={"fast_executemany": True}, prepare=_limit(patience))
        limits = {"login_timeout": min(10, patience), "timeout": patience} if patience else {}
        return Session(arguments={"charset": "UTF-8", **limits, **self._driver_options})


def _limit(patience: int) -> Callable[[Any], None]:
    def prepare(raw: Any) -> None:
        raw.timeout = patience  # seconds of one statement; 0: no limit

    return prepare
