"""The exporter for MySQL and MariaDB."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from resilient_exporters.exporters.parsed_url import arguments
from resilient_exporters.exporters.sql_server import ServerExporter, server_url

if TYPE_CHECKING:
    from resilient_exporters.exporters.parsed_url import ParsedURL
    from resilient_exporters.exporters.sql_engine import Session
    from resilient_exporters.exporters.sql_ledger import Ledger
    from resilient_exporters.exporters.sql_writer import Piece, Writer

__all__ = ["MySQLExporter"]


class MySQLExporter(ServerExporter):
    """Rows in MySQL or MariaDB, with PyMySQL.

    A mapping is a row, its keys are columns; a tuple is a row in table order. docs/exporters/mysql.md has the tables of
    types and of errors.

    Sessions are strict (``STRICT_ALL_TABLES``), so that a value that does not fit is refused and not cut, and in UTC.

    Args:
        target_host: name or address of the server.
        database: name of the database.
        target_port: its port.
        username: account; None: the server's anonymous one.
        password: of the account.
        default_table: table for records that name none. Also ``table``.
        create_table_if_inexistent: make a missing table from the first batch for it, and columns for new fields. Also
            ``create_table``.
        driver_options: further arguments of ``pymysql.connect``, such as ``{"ssl_ca": "/etc/ssl/ca.pem"}`` or
            ``{"unix_socket": …}``.
        **options: those of `SQLExporter` and `Exporter`. ``timeout`` bounds connecting, reading and writing too.

    Record options (``send(data, **options)``): ``table``, ``upsert_on``.

    Raises:
        MissingModuleError: SQLAlchemy or PyMySQL is not installed.
        MissingConfigError: no ``target_host``; in ``send``: no table.
        InvalidConfigError: an option has a value it cannot have.
    """

    kind: ClassVar[str] = "mysql"

    def __init__(
        self,
        target_host: str,
        database: str | None = None,
        target_port: int = 3306,
        username: str | None = None,
        password: str | None = None,
        default_table: str | None = None,
        create_table_if_inexistent: bool = False,
        *,
        driver_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        url = server_url(
            type(self), "mysql+pymysql", "mysql",
            host=target_host, port=target_port, database=database, username=username, password=password,
        )  # fmt: skip
        self._driver_options = dict(driver_options or {})
        table = options.pop("table", None) if default_table is None else default_table
        options.setdefault("create_table", create_table_if_inexistent)
        super().__init__(url, table, **options)
        self._set_table(table)

    @classmethod
    def from_url(cls, parsed: ParsedURL, options: dict[str, Any]) -> MySQLExporter:
        """Make one from ``mysql://user:password@host/database?table=readings``, which may say ``ssl_ca`` too."""
        given, rest = arguments(cls, parsed, options, passed_on=_PASSED_ON, taken={"url", "driver_options"})
        place = {
            "target_host": parsed.host,
            "target_port": parsed.port or 3306,
            "database": parsed.path.strip("/") or None,
            "username": parsed.username,
            "password": parsed.password,
        }
        return cls(**{**place, "driver_options": dict(rest), **given})

    def _session(self) -> Session:
        from resilient_exporters.exporters.mysql_session import session

        return session(self._driver_options, self.timeout if math.isfinite(self.timeout) else 0.0)

    def _new_writer(self, ledger: Ledger | None, schema: str | None) -> Writer:  # noqa: ARG002 - the hook's arguments
        from resilient_exporters.exporters.mysql_packets import PacketWriter

        return PacketWriter(ledger)

    def _oversize(self, error: Exception, pieces: Sequence[Piece]) -> dict[int, str]:  # noqa: ARG002 - the hook's
        """A row above ``max_allowed_packet`` makes the server hang up (2006, 2013), as an outage does."""
        from resilient_exporters.exporters.mysql_packets import oversize

        return oversize(self._database, pieces)


_PASSED_ON: Final = frozenset(
    {"charset", "ssl_ca", "ssl_cert", "ssl_key", "ssl_verify_cert", "ssl_verify_identity", "unix_socket"}
)
