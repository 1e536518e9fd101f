"""The exporter for PostgreSQL."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from resilient_exporters.errors import InvalidConfigError, MissingConfigError, MissingModuleError
from resilient_exporters.exporters.parsed_url import arguments
from resilient_exporters.exporters.sql_server import ServerExporter, checked_port

if TYPE_CHECKING:
    from resilient_exporters.exporters.parsed_url import ParsedURL
    from resilient_exporters.exporters.sql_engine import Session
    from resilient_exporters.exporters.sql_ledger import Ledger
    from resilient_exporters.exporters.sql_writer import Writer

__all__ = ["PostgreSQLExporter"]


class PostgreSQLExporter(ServerExporter):
    """Rows in PostgreSQL, by COPY, with psycopg 3.

    A mapping is a row, its keys are columns; a tuple is a row in table order. What the definition of a column rules
    out (None where there must be a value, a value of another kind, a text that is too long) becomes a dead letter
    before the server is asked. docs/exporters/postgresql.md has the tables of types and of errors.

    Args:
        conn_string: libpq's: ``host=… dbname=…`` or ``postgresql://…``, with any of its parameters. Options given by
            name win over it.
        target_host: name or address of the server, or the folder of its socket.
        database: name of the database. None: libpq's default, the name of the user.
        target_port: its port; in ``conn_string`` another may stand.
        username: None: libpq's default, the user that runs the program.
        password: None: libpq looks into ``~/.pgpass``.
        default_table: table for records that name none. Also ``table``.
        create_table_if_inexistent: make a missing table from the first batch for it, and columns for new fields. Also
            ``create_table``.
        **options: those of `SQLExporter` and `Exporter`. From ``timeout`` follow ``statement_timeout``,
            ``connect_timeout`` and the keep-alives of both ends, as far as ``conn_string`` does not set them.

    Record options (``send(data, **options)``): ``table``, ``upsert_on``.

    Raises:
        MissingModuleError: SQLAlchemy or psycopg is not installed.
        MissingConfigError: neither ``conn_string`` nor ``target_host`` is given; in ``send``: no table.
        InvalidConfigError: an option has a value it cannot have.
    """

    kind: ClassVar[str] = "postgresql"

    def __init__(
        self,
        conn_string: str | None = None,
        target_host: str | None = None,
        database: str | None = None,
        target_port: int = 5432,
        username: str | None = None,
        password: str | None = None,
        default_table: str | None = None,
        create_table_if_inexistent: bool = False,
        **options: Any,
    ) -> None:
        if not conn_string and not target_host:
            raise MissingConfigError(None, "neither conn_string nor target_host: say where PostgreSQL is")
        try:
            import psycopg  # noqa: F401 - only whether it is there
            from sqlalchemy.engine import URL
        except ImportError as error:  # psycopg without its libpq is an ImportError of its own
            raise MissingModuleError(
                None, f"{type(self).__name__} needs {error.name or error}: pip install 'resilient-exporters[postgres]'"
            ) from error
        named = {"host": target_host, "dbname": database, "user": username, "password": password}
        self._parameters = {**_parsed(conn_string), **{name: each for name, each in named.items() if each is not None}}
        if target_port != 5432 or "port" not in self._parameters:
            self._parameters["port"] = target_port
        host, port = self._parameters.get("host"), self._parameters["port"]
        url = URL.create(
            "postgresql+psycopg",
            username=self._parameters.get("user"),
            host=host,
            port=None if "," in f"{host}{port}" else checked_port(port),
            database=self._parameters.get("dbname"),
        )
        table = options.pop("table", None) if default_table is None else default_table
        options.setdefault("create_table", create_table_if_inexistent)
        super().__init__(url, table, **options)
        self._set_table(table)

    @classmethod
    def from_url(cls, parsed: ParsedURL, options: dict[str, Any]) -> PostgreSQLExporter:
        """Make one from ``postgresql://user@host/database?table=readings``; libpq's parameters may stand there too."""
        given, rest = arguments(cls, parsed, options, passed_on=_libpq_names(), taken={"conn_string", "url"})
        scheme, _, place = parsed.with_query(rest).partition(":")
        del scheme  # "postgresql+psycopg", which libpq does not know
        return cls(f"postgresql:{place}", **given)

    def _session(self) -> Session:
        from resilient_exporters.exporters.postgresql_session import session

        return session(self._parameters, self.timeout if math.isfinite(self.timeout) else 0.0)

    def _table_hooks(self) -> dict[str, Any]:
        from resilient_exporters.exporters.postgresql_columns import PostgreSQLCodec, strict

        return {"codec": PostgreSQLCodec, "strict": strict, "copies": True}

    def _new_writer(self, ledger: Ledger | None, schema: str | None) -> Writer:
        from resilient_exporters.exporters.postgresql_copy import CopyWriter

        return CopyWriter(ledger, schema)


def _parsed(conn_string: str | None) -> dict[str, Any]:
    if not conn_string:
        return {}
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    scheme, colon, place = conn_string.partition("://")
    if colon and scheme in {"postgres", "postgresql+psycopg", "postgresql+psycopg2"}:
        conn_string = f"postgresql://{place}"  # SQLAlchemy's and Heroku's names
    try:
        return {name: each for name, each in conninfo_to_dict(conn_string).items() if each is not None}
    except psycopg.Error as error:
        said = " ".join(str(error).split()) if "invalid connection option" in str(error) else "libpq cannot read it"
        raise InvalidConfigError(
            None, f"conn_string: {said}; right would be 'host=… dbname=…' or 'postgresql://user@host/database'"
        ) from None  # it may quote a password


def _libpq_names() -> frozenset[str]:
    from psycopg import pq

    return frozenset(each.keyword.decode() for each in pq.Conninfo.get_defaults())
