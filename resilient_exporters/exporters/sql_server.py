"""What the exporters for one kind of SQL server share: options in the original's words made into a URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resilient_exporters.errors import InvalidConfigError, MissingConfigError, MissingModuleError
from resilient_exporters.exporters.sql import SQLExporter

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

__all__ = ["ServerExporter", "checked_port", "server_url"]


class ServerExporter(SQLExporter):
    """Base of the exporters for one kind of server: a table is needed, and asked for in `send` already."""

    def _set_table(self, table: str | None) -> None:
        """Let `send` ask for a table where the exporter has none; else it need not look at records at all."""
        self.checks = table is None

    def check(self, data: Any, options: Mapping[str, Any]) -> None:  # noqa: ARG002 - the hook's arguments
        """Called only where the exporter has no table: then the record must name one.

        Raises:
            MissingConfigError: it does not.
        """
        if not options.get("table"):
            raise MissingConfigError(self, "no table: give default_table=… to the exporter, or table=… to send()")


def server_url(
    cls: type,
    driver: str,
    extra: str,
    *,
    host: str | None,
    port: int,
    database: str | None,
    username: str | None,
    password: str | None,
) -> URL:
    """A SQLAlchemy URL of parts, which need no quoting.

    Raises:
        MissingModuleError: SQLAlchemy is not installed.
        MissingConfigError: there is no host.
        InvalidConfigError: the port is none.
    """
    if not host:
        raise MissingConfigError(None, f"target_host={host!r}: {cls.__name__} must be told where the server is")
    try:
        from sqlalchemy.engine import URL
    except ImportError as error:
        raise MissingModuleError(
            None, f"{cls.__name__} needs {error.name}: pip install 'resilient-exporters[{extra}]'"
        ) from error
    return URL.create(
        driver, username=username, password=password, host=host, port=checked_port(port), database=database
    )


def checked_port(given: Any) -> int:
    """A TCP port. Raises InvalidConfigError if it is none."""
    try:
        port = int(given)
    except (TypeError, ValueError):
        port = 0
    if not 0 < port < 65536:
        raise InvalidConfigError(None, f"target_port={given!r}: must be a number from 1 to 65535")
    return port
